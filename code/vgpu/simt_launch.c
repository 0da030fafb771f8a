/* code/vgpu/simt_launch.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* Between the runtime (streams, errors, options) and the SIMT engine: one function. */
#include "vgpu/simt.h"
#include "vgpu/vgpu_internal.h"

void dls_simt_run_launch(const dls_simt_grid *grid)
{
    char message[1536];
    dls_simt_configure_once(dls_vgpu.threads, dls_vgpu.options.seed);
    if (dls_simt_run_grid(grid) == 0)
        return;
    if (!dls_simt_take_fault(message, sizeof message))
        message[0] = 0;
    dls_vgpu_break(cudaErrorLaunchFailure, DLS_ERR_DEVICE, "%s", message);
}

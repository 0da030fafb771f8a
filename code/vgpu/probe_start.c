/* code/vgpu/probe_start.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Every probed object file calls __tsan_init before main: where the probes begin. */
#include "vgpu/check.h"
#include "vgpu/probe_internal.h"
#include "vgpu/profile.h"

/* start what the environment asks for */
void __tsan_init(void);
void __tsan_init(void)
{
    static int started;
    if (!started++) {
        dls_profile_start();
        dls_check_if_asked();
    }
}

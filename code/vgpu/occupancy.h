/* code/vgpu/occupancy.h: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* How many blocks of a kernel fit on one multiprocessor of the cluster's device. */
#ifndef DLS_VGPU_OCCUPANCY_H
#define DLS_VGPU_OCCUPANCY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* threads: of a block, 1 to 1024; registers: of a thread, 1 to 255; shared: bytes of a
 * block, static and dynamic. 0 when one block alone does not fit. */
int dls_gpu_occupancy(int threads, int registers, size_t shared);

#ifdef __cplusplus
}
#endif
#endif

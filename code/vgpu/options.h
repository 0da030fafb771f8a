/* code/vgpu/options.h: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu: completing the options, on both backends. */
#ifndef DLS_VGPU_OPTIONS_H
#define DLS_VGPU_OPTIONS_H

#include "vgpu/gpu.h"

/* Fills what is open in *options from DLS_CLUSTER, DLS_RANK, DLS_WORLD_SIZE,
 * DLS_LOCAL_RANK, DLS_SEED and DLS_KERNELS, loads the cluster and checks that the world
 * fits it; *threads from DLS_THREADS (0: not set). DLS_ERR_INPUT names the variable. */
dls_status dls_gpu_complete(dls_gpu_options *options, dls_cluster *cluster, int *threads);

#endif

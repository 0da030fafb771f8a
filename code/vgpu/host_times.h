/* code/vgpu/host_times.h: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* The host's real time by operation, for benchmarks; virtual backend only. The virtual
 * clock knows nothing of it. */
#ifndef DLS_VGPU_HOST_TIMES_H
#define DLS_VGPU_HOST_TIMES_H

#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dls_host_time {
    const char *name; // the operation's
    long calls;
    double seconds, flops, bytes; // the latter two as charged to the virtual clock
} dls_host_time;

extern int dls_host_times_on;

void dls_host_times_start(void); // forgets, and measures from now on
void dls_host_times_stop(void);
/* What was measured, in order of appearance; the number of names. */
int dls_host_times(const dls_host_time **out);

/* For the executor. */
void dls_host_times_add(const dls_gpu_op *op, double seconds);

#ifdef __cplusplus
}
#endif
#endif

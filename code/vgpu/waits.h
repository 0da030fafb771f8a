/* code/vgpu/waits.h: from chapters/A-virtual-gpu-waits.md. Edit the chapter, or edit here and run "make untangle". */
/* What the host and the streams of the virtual GPU wait for, for whoever sleeps in the
 * idle callback. Virtual backend only.
 *
 * The callback runs with the runtime's lock held, so that what it sees holds together;
 * it lets go of the lock to sleep (dls_gpu_unlock, dls_gpu_relock). */
#ifndef DLS_VGPU_WAITS_H
#define DLS_VGPU_WAITS_H

#include "vgpu/gpu.h"

/* declare the waits */
/* The wait of the thread that is inside the idle callback. */
typedef struct dls_gpu_host_wait {
    const char *call, *file; // "cudaStreamSynchronize" and where; "the host", NULL
    int line;
    int stream;        // number of the stream that it waits for; -1: of none
    int polls;         // 1: it asks, and will go on when it has an answer
    int threads;       // of the host that use the device
    int awake;         // of these: not in such a wait
    double time;       // the host's clock, virtual s
    uint64_t enqueued; // operations so far
} dls_gpu_host_wait;

dls_gpu_host_wait dls_gpu_host_waits(void);

/* One operation that is enqueued and has not run. */
typedef struct dls_gpu_queued {
    int stream;            // number
    const char *name;      // of the stream
    int first;             // 1: the stream stands at this operation
    int behind;            // the stream whose event it waits for; -1: it does not
    const dls_gpu_op *op;
    void *arg;
} dls_gpu_queued;

void dls_gpu_queues(void (*show)(void *context, const dls_gpu_queued *q), void *context);

/* Lets go of the lock altogether; returns what dls_gpu_relock needs. */
int dls_gpu_unlock(void);
void dls_gpu_relock(int held);

#endif

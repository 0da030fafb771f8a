/* code/vgpu/observer.h: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: what the runtime tells a checker.
 *
 * dls_vgpu_observer is NULL in plain programs. A probed program sets it before the first
 * CUDA call. Every function is called with the runtime's lock held; none may call CUDA.
 */
#ifndef DLS_VGPU_OBSERVER_H
#define DLS_VGPU_OBSERVER_H

#include "vgpu/vgpu_internal.h"

/* declare what the runtime tells */
typedef struct dls_vgpu_observer_table {
    /* memory; device < 0: pinned host memory. NULL: there is no more. */
    void *(*allocate)(size_t bytes, int device, const void *caller);
    void (*release)(void *start);      // freed: any access from now on is wrong
    void *(*renew)(void *start);       // the pool hands a block out again: a new address
    void (*managed)(void *start);      // the host may touch this allocation, too
    void (*refused_free)(const void *pointer, int is_host); // nothing to free there
    /* operations: in the order of the calls, then in the order of execution */
    void (*enqueued)(const struct CUstream_st *s, dls_vgpu_operation *o);
    void (*begun)(const struct CUstream_st *s, const dls_vgpu_operation *o);
    void (*ended)(const struct CUstream_st *s, const dls_vgpu_operation *o);
    void (*host_waited)(const dls_vgpu_mark *mark);  // the host knows that it is done
    void (*waited_for_nothing)(void);                // an event that was never recorded
    void (*touched)(int write, const void *start, size_t bytes, size_t pitch,
                    size_t rows);
    /* errors: returned by a call; of a launch, which returns nothing; and looked at */
    void (*failed)(cudaError_t error);
    void (*launch_failed)(const char *kernel, const char *file, int line,
                          cudaError_t error);
    void (*looked)(void);
} dls_vgpu_observer_table;

extern const dls_vgpu_observer_table *dls_vgpu_observer;

/* `rows` times `bytes` bytes, `pitch` bytes apart, were read or written by the operation
 * that runs. */
static inline void dls_vgpu_touched(int write, const void *start, size_t bytes,
                                    size_t pitch, size_t rows)
{
    if (dls_vgpu_observer && start && bytes && rows)
        dls_vgpu_observer->touched(write, start, bytes, pitch, rows);
}

#endif

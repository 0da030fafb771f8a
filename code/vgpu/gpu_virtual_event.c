/* code/vgpu/gpu_virtual_event.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Events of the virtual backend: names for marks. */
#include "vgpu/observer.h"

#include <stdlib.h>

/* work with events */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        (event == NULL || flags > 7 ||
         ((flags & cudaEventInterprocess) && !(flags & cudaEventDisableTiming))))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        *event = calloc(1, sizeof **event);
        error = *event ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    if (error == cudaSuccess)
        (*event)->flags = flags;
    return dls_vgpu_leave(error);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && event == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (event) {
        dls_vgpu_drop(event->mark);
        free(event);
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && (event == NULL || s == NULL))
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_submit_record(s, &event->mark);
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && (event == NULL || s == NULL))
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && flags != 0)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && !event->mark && dls_vgpu_observer)
        dls_vgpu_observer->waited_for_nothing();
    if (error == cudaSuccess && event->mark)
        error = dls_vgpu_capture_join(s, event->mark);
    if (error == cudaSuccess && event->mark)
        error = dls_vgpu_order(s);
    if (error == cudaSuccess && event->mark)
        error = dls_vgpu_submit_wait(s, event->mark);
    return dls_vgpu_leave(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = event ? dls_vgpu_captured(event->mark) : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_finish(event->mark, 1);
    return dls_vgpu_leave(error);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = event ? dls_vgpu_captured(event->mark) : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_poll(event->mark);
    return dls_vgpu_leave(error);
}

/* Virtual milliseconds; both events must have passed on the host's clock. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && milliseconds == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && (!start || !end || !start->mark || !end->mark ||
                                 ((start->flags | end->flags) & cudaEventDisableTiming)))
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess) {
        dls_vgpu_settle(start->mark);
        dls_vgpu_settle(end->mark);
        error = dls_vgpu.sticky;
    }
    if (error == cudaSuccess && (!start->mark->done || !end->mark->done ||
                                 end->mark->time > dls_vgpu.host_time ||
                                 start->mark->time > dls_vgpu.host_time))
        error = cudaErrorNotReady;
    if (error == cudaSuccess)
        *milliseconds = (float)((end->mark->time - start->mark->time) * 1e3);
    return dls_vgpu_leave(error);
}

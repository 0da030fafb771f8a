/* code/vgpu/gpu_virtual_calls.c: from chapters/A-virtual-gpu-calls.md. Edit the chapter, or edit here and run "make untangle". */
/* Questions about streams, callbacks, and attributes of kernels. */
#include "vgpu/vgpu_internal.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/occupancy.h"

/* answer questions about streams */
static cudaError_t find_stream(cudaStream_t stream, const void *out,
                               struct CUstream_st **s)
{
    cudaError_t error = dls_vgpu_enter();
    *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && *s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && out == NULL)
        error = cudaErrorInvalidValue;
    return error;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned int *flags)
{
    struct CUstream_st *s;
    cudaError_t error = find_stream(stream, flags, &s);
    if (error == cudaSuccess)
        *flags = s->flags;
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int *device)
{
    struct CUstream_st *s;
    cudaError_t error = find_stream(stream, device, &s);
    if (error == cudaSuccess)
        *device = s->device;
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long *id)
{
    struct CUstream_st *s;
    cudaError_t error = find_stream(stream, id, &s);
    if (error == cudaSuccess)
        *id = (unsigned long long)s->device << 32 | (unsigned)s->index;
    return dls_vgpu_leave(error);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream,
                                     unsigned int flags)
{
    if (flags == cudaEventRecordDefault)
        return cudaEventRecord(event, stream);
    cudaError_t error = dls_vgpu_enter(); // external: nodes of a graph, not built
    if (error == cudaSuccess)
        error = flags == cudaEventRecordExternal ? cudaErrorNotSupported
                                                 : cudaErrorInvalidValue;
    return dls_vgpu_leave(error);
}

/* call back */
typedef struct callback {
    cudaStreamCallback_t function;
    cudaStream_t stream;
    void *user;
} callback;

static int callback_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    const callback *c = arg;
    c->function(c->stream, cudaSuccess, c->user);
    return 0;
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function,
                                  void *user, unsigned int flags)
{
    callback *c = function && flags == 0 ? malloc(sizeof *c) : NULL;
    if (c == NULL) {
        cudaError_t error = dls_vgpu_enter();
        if (error == cudaSuccess)
            error = function && flags == 0 ? cudaErrorMemoryAllocation
                                           : cudaErrorInvalidValue;
        return dls_vgpu_leave(error);
    }
    *c = (callback){function, stream, user};
    dls_gpu_op op = {.name = "callback", .kind = DLS_GPU_HOST, .run = callback_run,
                     .destroy = free};
    return dls_gpu_enqueue(stream, &op, c);
}

/* answer questions about kernels */
enum { ASSUMED_REGISTERS = 32 };

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes,
                                  const void *kernel)
{
    const dls_device_spec *d = &dls_gpu_cluster()->device;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && attributes == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && kernel == NULL)
        error = cudaErrorInvalidDeviceFunction;
    if (error == cudaSuccess) {
        int version = 10 * d->compute_major + d->compute_minor;
        *attributes = (struct cudaFuncAttributes){
            .maxThreadsPerBlock = 1024, .numRegs = ASSUMED_REGISTERS,
            .ptxVersion = version, .binaryVersion = version,
            .maxDynamicSharedSizeBytes = (int)dls_simt_shared_limit(kernel),
            .preferredShmemCarveout = -1};
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *kernel, int threads, size_t shared, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && flags > cudaOccupancyDisableCachingOverride)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, threads,
                                                              shared);
    return dls_vgpu_leave(error);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, const void *kernel,
                                                      int blocks, int threads)
{
    const dls_device_spec *d = &dls_gpu_cluster()->device;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (bytes == NULL || blocks < 1 || threads < 1))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && kernel == NULL)
        error = cudaErrorInvalidDeviceFunction;
    if (error == cudaSuccess &&
        dls_gpu_occupancy(threads, ASSUMED_REGISTERS, 0) < blocks)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        int share = d->shared_per_multiprocessor / blocks - 1024;
        *bytes = (size_t)(share < d->shared_per_block ? share : d->shared_per_block);
        *bytes = *bytes / 128 * 128;
    }
    return dls_vgpu_leave(error);
}

/* code/vgpu/gpu_virtual_copy.c: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* cudaMemcpy and cudaMemset of the virtual backend.
 *
 *   host memory   to the device                      from the device
 *   pinned        read when the copy executes        written when the copy executes
 *   pageable      read at the call (private copy)    the call waits for the copy
 */
#include "vgpu/observer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/accounts.h"
#include "vgpu/space.h"

/* describe a copy */
typedef struct copy {
    void *to;
    const void *from;
    size_t bytes;
    int value;        // memset's
    char staged[];    // the private copy of pageable memory
} copy;

static int copy_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    copy *c = arg;
    dls_vgpu_touched(0, c->from, c->bytes, c->bytes, 1);
    dls_vgpu_touched(1, c->to, c->bytes, c->bytes, 1);
    if (c->from)
        memmove(c->to, c->from, c->bytes);
    else
        memset(c->to, c->value, c->bytes);
    return 0;
}

typedef struct end {
    int device; // -1: host
    int pinned; // host memory that the device can reach
    int either; // managed: passes as the host's too
} end;

/* check both ends */
/* What lies at the address; 0 when the range leaves its allocation. */
static int look_at(const void *address, size_t bytes, end *out)
{
    const dls_account_block *b = dls_account_at(address);
    *out = (end){.device = -1};
    if (b == NULL)
        return address != NULL && !dls_space_has(address);
    out->device = b->device;
    out->pinned = b->device < 0;
    out->either = b->kind == DLS_MEMORY_MANAGED;
    return bytes <= (size_t)(b->start + b->bytes - (const char *)address);
}

static cudaError_t check_direction(end to, end from, cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyDefault)
        return cudaSuccess;
    if ((int)kind < 0 || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    int to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    int from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return (to.either || to_device == (to.device >= 0)) &&
           (from.either || from_device == (from.device >= 0))
               ? cudaSuccess : cudaErrorInvalidValue;
}

/* time a copy */
static double copy_time(end to, end from, size_t bytes)
{
    const dls_cluster *c = &dls_vgpu.cluster;
    const dls_device_spec *d = &c->device;
    double alpha, beta;
    int first = dls_vgpu.options.rank / c->gpus_per_node * c->gpus_per_node; // our node's
    if (to.device >= 0 && to.device == from.device)
        return dls_cluster_duration(d, DLS_WORK_COPY, 0, 2.0 * (double)bytes);
    if (to.device >= 0 && from.device >= 0 && dls_vgpu_is_peer(to.device, from.device)) {
        dls_cluster_link(c, first + from.device, first + to.device, &alpha, &beta);
        return alpha + (double)bytes * beta;
    }
    if (to.device < 0 && from.device < 0)
        return 0; // the host's own memory: not the device's time
    int device = to.device >= 0 ? to.device : from.device;
    int staged = to.device >= 0 && from.device >= 0; // through the host, overlapped
    return (1 + staged) * d->host_latency +
           (double)bytes / dls_cluster_host_bandwidth(c, first + device,
                                                      dls_vgpu.options.world);
}

/* refuse pageable memory in a capture */
static cudaError_t refuse_pageable(cudaStream_t stream, end to, end from)
{
    struct CUstream_st *s = dls_vgpu_stream(stream);
    int pageable = (from.device < 0 && !from.pinned) || (to.device < 0 && !to.pinned);
    return s && pageable ? dls_vgpu_capture_refuse(s) : cudaSuccess;
}

/* enqueue a copy */
static const char *copy_name(end to, end from)
{
    if (to.device >= 0 && from.device >= 0)
        return to.device == from.device ? "copy on device" : "copy to peer";
    return to.device >= 0 ? "copy to device" : "copy to host";
}

static dls_work copy_work(end to, end from)
{
    if (to.device >= 0 && from.device >= 0)
        return to.device == from.device ? DLS_WORK_COPY : DLS_WORK_PEER;
    return to.device >= 0     ? DLS_WORK_UPLOAD
           : from.device >= 0 ? DLS_WORK_DOWNLOAD : DLS_WORK_OTHER;
}

static cudaError_t enqueue_copy(void *to, const void *from, size_t bytes,
                                cudaMemcpyKind kind, cudaStream_t stream, int wait)
{
    end target, source;
    if (bytes == 0)
        return cudaSuccess;
    if (!look_at(to, bytes, &target) || !look_at(from, bytes, &source))
        return cudaErrorInvalidValue;
    cudaError_t error = check_direction(target, source, kind);
    if (error == cudaSuccess)
        error = refuse_pageable(stream, target, source);
    if (error != cudaSuccess)
        return error;
    int stage = source.device < 0 && !source.pinned && !wait;
    copy *c = malloc(sizeof *c + (stage ? bytes : 0));
    if (c == NULL)
        return cudaErrorMemoryAllocation;
    *c = (copy){.to = to, .from = stage ? c->staged : from, .bytes = bytes};
    if (stage)
        memcpy(c->staged, from, bytes);
    dls_gpu_op op = {.name = copy_name(target, source), .kind = DLS_GPU_COPY,
                     .work = copy_work(target, source), .bytes = (double)bytes,
                     .run = copy_run, .destroy = free};
    error = dls_vgpu_launch(stream, &op, c, copy_time(target, source, bytes));
    int late = target.device < 0 && !target.pinned; // must have arrived on return
    if (error == cudaSuccess && (wait || late))
        error = cudaStreamSynchronize(stream);
    return error;
}

/* copy by the cuda names */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = enqueue_copy(to, from, bytes, kind, stream, 0);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = enqueue_copy(to, from, bytes, kind, NULL,
                             kind != cudaMemcpyDeviceToDevice);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from,
                                int from_device, size_t bytes, cudaStream_t stream)
{
    end target, source;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        (!look_at(to, bytes, &target) || !look_at(from, bytes, &source) ||
         target.device != to_device || source.device != from_device))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = enqueue_copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream, 0);
    return dls_vgpu_leave(error);
}

/* set memory */
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    end target;
    cudaError_t error = dls_vgpu_enter();
    if (error != cudaSuccess || bytes == 0)
        return dls_vgpu_leave(error);
    if (!look_at(to, bytes, &target) || (target.device < 0 && !target.pinned))
        return dls_vgpu_leave(cudaErrorInvalidValue);
    copy *c = malloc(sizeof *c);
    if (c == NULL)
        return dls_vgpu_leave(cudaErrorMemoryAllocation);
    *c = (copy){.to = to, .bytes = bytes, .value = value};
    dls_gpu_op op = {.name = "memset", .kind = DLS_GPU_COPY, .work = DLS_WORK_COPY,
                     .bytes = (double)bytes, .run = copy_run, .destroy = free};
    return dls_vgpu_leave(dls_vgpu_launch(stream, &op, c, -1));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return cudaMemsetAsync(to, value, bytes, NULL);
}

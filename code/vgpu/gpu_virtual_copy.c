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
    dls_vgpu_box box;
    int value;        // memset's
    char staged[];    // the private copy of pageable memory
} copy;

/* In pieces, on all threads: a gigabyte of gradients is cleared before each step. */
static void fill(char *to, int value, size_t bytes)
{
    const size_t piece = 4 << 20;
    #pragma omp parallel for schedule(static) if (bytes > piece)
    for (size_t at = 0; at < bytes; at += piece)
        memset(to + at, value, bytes - at < piece ? bytes - at : piece);
}

static void copy_rows(const dls_vgpu_box *b, int value)
{
    for (size_t z = 0; z < b->depth; z++)
        for (size_t y = 0; y < b->height; y++) {
            char *to = (char *)b->to + z * b->to_slice + y * b->to_pitch;
            if (b->from)
                memmove(to, (const char *)b->from + z * b->from_slice +
                            y * b->from_pitch, b->width);
            else
                fill(to, value, b->width);
        }
}

static int copy_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    copy *c = arg;
    const dls_vgpu_box *b = &c->box;
    for (size_t z = 0; z < b->depth; z++) {
        const char *from = b->from;
        dls_vgpu_touched(0, from ? from + z * b->from_slice : NULL, b->width,
                         b->from_pitch, b->height);
        dls_vgpu_touched(1, (char *)b->to + z * b->to_slice, b->width, b->to_pitch,
                         b->height);
    }
    copy_rows(b, c->value);
    return 0;
}

static dls_vgpu_box one_row(void *to, const void *from, size_t bytes)
{
    return (dls_vgpu_box){to, from, bytes, 1, 1, bytes, bytes, bytes, bytes};
}

static size_t bytes_of(const dls_vgpu_box *b) { return b->width * b->height * b->depth; }

static size_t span_of(const dls_vgpu_box *b, size_t pitch, size_t slice)
{
    return (b->depth - 1) * slice + (b->height - 1) * pitch + b->width;
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

static void stage(copy *c)
{
    dls_vgpu_box packed = c->box;
    packed.to = c->staged;
    packed.to_pitch = c->box.width;
    packed.to_slice = c->box.width * c->box.height;
    copy_rows(&packed, 0);
    c->box.from = c->staged;
    c->box.from_pitch = packed.to_pitch;
    c->box.from_slice = packed.to_slice;
}

static cudaError_t enqueue(const dls_vgpu_box *box, end target, end source,
                           cudaStream_t stream, int wait)
{
    size_t bytes = bytes_of(box);
    int staged = source.device < 0 && !source.pinned && !wait;
    copy *c = malloc(sizeof *c + (staged ? bytes : 0));
    if (c == NULL)
        return cudaErrorMemoryAllocation;
    *c = (copy){.box = *box};
    if (staged)
        stage(c);
    dls_gpu_op op = {.name = copy_name(target, source), .kind = DLS_GPU_COPY,
                     .work = copy_work(target, source), .bytes = (double)bytes,
                     .run = copy_run, .destroy = free};
    cudaError_t error = dls_vgpu_launch(stream, &op, c, copy_time(target, source, bytes));
    int late = target.device < 0 && !target.pinned; // must have arrived on return
    if (error == cudaSuccess && (wait || late))
        error = cudaStreamSynchronize(stream);
    return error;
}

cudaError_t dls_vgpu_copy(dls_vgpu_box box, cudaMemcpyKind kind, cudaStream_t stream,
                          int wait)
{
    end target, source;
    if (bytes_of(&box) == 0)
        return cudaSuccess;
    if ((int)kind < 0 || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (!look_at(box.to, span_of(&box, box.to_pitch, box.to_slice), &target) ||
        !look_at(box.from, span_of(&box, box.from_pitch, box.from_slice), &source))
        return cudaErrorInvalidValue;
    cudaError_t error = check_direction(target, source, kind);
    if (error == cudaSuccess)
        error = refuse_pageable(stream, target, source);
    if (error == cudaSuccess)
        error = enqueue(&box, target, source, stream, wait);
    return error;
}

/* copy by the cuda names */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = dls_vgpu_copy(one_row(to, from, bytes), kind, stream, 0);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = dls_vgpu_copy(one_row(to, from, bytes), kind, NULL,
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
        error = dls_vgpu_copy(one_row(to, from, bytes), cudaMemcpyDeviceToDevice, stream,
                              0);
    return dls_vgpu_leave(error);
}

/* set memory */
cudaError_t dls_vgpu_set(dls_vgpu_box box, int value, cudaStream_t stream)
{
    end target;
    if (bytes_of(&box) == 0)
        return cudaSuccess;
    if (!look_at(box.to, span_of(&box, box.to_pitch, box.to_slice), &target) ||
        (target.device < 0 && !target.pinned))
        return cudaErrorInvalidValue;
    copy *c = malloc(sizeof *c);
    if (c == NULL)
        return cudaErrorMemoryAllocation;
    *c = (copy){.box = box, .value = value};
    dls_gpu_op op = {.name = "memset", .kind = DLS_GPU_COPY, .work = DLS_WORK_COPY,
                     .bytes = (double)bytes_of(&box), .run = copy_run, .destroy = free};
    return dls_vgpu_launch(stream, &op, c, -1);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = dls_vgpu_set(one_row(to, NULL, bytes), value, stream);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return cudaMemsetAsync(to, value, bytes, NULL);
}

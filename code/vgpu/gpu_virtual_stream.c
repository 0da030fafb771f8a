/* code/vgpu/gpu_virtual_stream.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Streams and events of the virtual backend: everything that puts an operation in a queue
 * or waits for one. Nothing is executed here; that is gpu_virtual_executor.c. */
#include "vgpu/observer.h"

#include <stdio.h>
#include <stdlib.h>

#include "vgpu/trace.h"

/* count references to marks */
dls_vgpu_mark *dls_vgpu_hold(dls_vgpu_mark *mark)
{
    if (mark)
        mark->refs++;
    return mark;
}

void dls_vgpu_drop(dls_vgpu_mark *mark)
{
    if (mark && --mark->refs == 0)
        free(mark);
}

/* *slot := mark, with the counts kept right, also when both are the same mark. */
static void replace_mark(dls_vgpu_mark **slot, dls_vgpu_mark *mark)
{
    dls_vgpu_mark *old = *slot;
    *slot = dls_vgpu_hold(mark);
    dls_vgpu_drop(old);
}

/* make operations */
dls_vgpu_operation *dls_vgpu_operation_new(dls_vgpu_type type)
{
    dls_vgpu_operation *operation = malloc(sizeof *operation);
    dls_vgpu_mark *mark = malloc(sizeof *mark);
    if (operation == NULL || mark == NULL) {
        free(operation);
        free(mark);
        return NULL;
    }
    *mark = (dls_vgpu_mark){.refs = 1};
    *operation = (dls_vgpu_operation){.type = type, .mark = mark, .duration = -1};
    return operation;
}

void dls_vgpu_operation_free(dls_vgpu_operation *operation)
{
    if (operation->op.destroy)
        operation->op.destroy(operation->arg);
    dls_vgpu_drop(operation->awaited);
    dls_vgpu_drop(operation->mark);
    free(operation);
}

/* make and find streams */
static struct CUstream_st *stream_new(int device, int index, unsigned int flags)
{
    struct CUstream_st *s = calloc(1, sizeof *s), **end = &dls_vgpu.streams;
    if (s == NULL)
        return NULL;
    s->device = device;
    s->flags = flags;
    s->index = index;
    if (index == 0)
        snprintf(s->name, sizeof s->name, "default stream");
    else
        snprintf(s->name, sizeof s->name, "stream %d", index);
    while (*end)
        end = &(*end)->next;
    *end = s;
    return s;
}

struct CUstream_st *dls_vgpu_stream(cudaStream_t stream)
{
    if (stream == NULL || stream == cudaStreamLegacy) {
        struct CUstream_st **legacy = &dls_vgpu.legacy[dls_vgpu_device()];
        if (*legacy == NULL)
            *legacy = stream_new(dls_vgpu_device(), 0, 0);
        return *legacy;
    }
    if (stream == cudaStreamPerThread) {
        static _Thread_local struct CUstream_st *own[DLS_VGPU_DEVICES];
        int d = dls_vgpu_device();
        if (own[d] == NULL)
            own[d] = stream_new(d, ++dls_vgpu.stream_count[d], 0);
        return own[d];
    }
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next)
        if (s == stream)
            return s;
    return NULL;
}

/* submit an operation */
enum { QUEUE_LIMIT = 1024 };

cudaError_t dls_vgpu_submit(struct CUstream_st *s, dls_vgpu_operation *operation)
{
    if (s->capture)
        return dls_vgpu_capture_add(s, operation);
    if (dls_vgpu_recording)
        return dls_vgpu_record_add(s, operation);
    operation->enqueued = dls_vgpu.host_time;
    operation->range = dls_trace_range_current();
    dls_vgpu_plan(s, operation);
    if (s->head)
        s->tail->next = operation;
    else
        s->head = operation;
    s->tail = operation;
    replace_mark(&s->last, operation->mark);
    operation->mark->stream = s;
    dls_vgpu.enqueued++;
    dls_vgpu.pending++;
    if (dls_vgpu_observer)
        dls_vgpu_observer->enqueued(s, operation);
    if (dls_vgpu.pending > QUEUE_LIMIT)
        while (dls_vgpu.pending > QUEUE_LIMIT / 2 && dls_vgpu_step() > 0)
            ;
    return dls_vgpu.sticky;
}

/* order the default stream */
cudaError_t dls_vgpu_submit_wait(struct CUstream_st *s, dls_vgpu_mark *mark)
{
    dls_vgpu_operation *operation = dls_vgpu_operation_new(DLS_VGPU_WAIT);
    if (operation == NULL)
        return cudaErrorMemoryAllocation;
    operation->op.name = "wait";
    dls_vgpu_sited(&operation->op);
    operation->awaited = dls_vgpu_hold(mark);
    return dls_vgpu_submit(s, operation);
}

static cudaError_t order_with_legacy(struct CUstream_st *s)
{
    struct CUstream_st *legacy = dls_vgpu.legacy[s->device];
    cudaError_t error = cudaSuccess;
    if (s->capture || (s->flags & cudaStreamNonBlocking))
        return cudaSuccess;
    if (s == legacy && (error = dls_vgpu_capture_implicit(s->device)))
        return error;
    if (s != legacy) {
        if (legacy == NULL || legacy->last == s->legacy_seen)
            return cudaSuccess;
        replace_mark(&s->legacy_seen, legacy->last);
        return dls_vgpu_submit_wait(s, legacy->last);
    }
    for (struct CUstream_st *t = dls_vgpu.streams; t && !error; t = t->next)
        if (t != s && t->device == s->device && t->last != t->legacy_joined &&
            !(t->flags & cudaStreamNonBlocking)) {
            replace_mark(&t->legacy_joined, t->last);
            error = dls_vgpu_submit_wait(s, t->last);
        }
    return error;
}

cudaError_t dls_vgpu_order(struct CUstream_st *s) { return order_with_legacy(s); }

/* enqueue with a cost */
static _Thread_local dls_gpu_op annotation; // name, work, flops, bytes, file, line

void dls_gpu_cost_at(dls_work work, const char *name, double flops, double bytes,
                     const char *file, int line)
{
    annotation = (dls_gpu_op){.name = name, .work = work, .flops = flops,
                              .bytes = bytes, .file = file, .line = line};
}

void dls_vgpu_take_cost(dls_gpu_op *op)
{
    if (annotation.name)
        op->name = annotation.name;
    if (annotation.flops > 0 || annotation.bytes > 0) {
        op->flops = annotation.flops;
        op->bytes = annotation.bytes;
    }
    if (annotation.work != DLS_WORK_OTHER)
        op->work = annotation.work;
    if (annotation.file && op->file == NULL) {
        op->file = annotation.file;
        op->line = annotation.line;
    }
    if (op->name == NULL)
        op->name = "unnamed";
    annotation = (dls_gpu_op){0};
}

/* The common end of every launch. On an error the operation is freed. */
static cudaError_t launch(cudaStream_t stream, dls_vgpu_operation *operation)
{
    struct CUstream_st *s = dls_vgpu_stream(stream);
    cudaError_t error = s ? order_with_legacy(s) : cudaErrorInvalidResourceHandle;
    if (error != cudaSuccess) {
        dls_vgpu_operation_free(operation);
        return error;
    }
    error = dls_vgpu_submit(s, operation);
    dls_vgpu.host_time += dls_vgpu.cluster.device.launch;
    return error;
}

static cudaError_t enqueue(cudaStream_t stream, const dls_gpu_op *op, void *arg,
                           double duration)
{
    cudaError_t error = dls_vgpu_enter();
    dls_vgpu_operation *operation = error ? NULL : dls_vgpu_operation_new(DLS_VGPU_WORK);
    dls_gpu_op costed = *op;
    dls_vgpu_take_cost(&costed);
    if (operation == NULL) {
        if (op->destroy)
            op->destroy(arg);
        return dls_vgpu_leave(error ? error : cudaErrorMemoryAllocation);
    }
    operation->op = costed;
    operation->arg = arg;
    operation->duration = duration;
    return dls_vgpu_leave(launch(stream, operation));
}

cudaError_t dls_vgpu_launch(cudaStream_t stream, const dls_gpu_op *op, void *arg,
                            double duration)
{
    dls_gpu_op planned = *op;
    planned.planned = 1;
    return enqueue(stream, &planned, arg, duration);
}

cudaError_t dls_gpu_enqueue(cudaStream_t stream, const dls_gpu_op *op, void *arg)
{
    return enqueue(stream, op, arg, -1);
}

/* enqueue a kernel */
typedef struct kernel_call {
    void (*run)(void *);
    void (*destroy)(void *);
    void *closure;
} kernel_call;

static int kernel_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    kernel_call *call = arg;
    call->run(call->closure);
    return 0;
}

static void kernel_destroy(void *arg)
{
    kernel_call *call = arg;
    if (call->destroy)
        call->destroy(call->closure);
    free(call);
}

static int valid_launch(const unsigned int grid[3], const unsigned int block[3],
                        size_t shared)
{
    const unsigned long long threads = 1ull * block[0] * block[1] * block[2];
    return grid[0] >= 1 && grid[1] >= 1 && grid[2] >= 1 && threads >= 1 &&
           threads <= 1024 && block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64 &&
           grid[0] <= 0x7fffffff && grid[1] <= 65535 && grid[2] <= 65535 &&
           shared <= (size_t)dls_gpu_cluster()->device.shared_per_block;
}

cudaError_t dls_vgpu_enqueue_kernel(const char *name, const unsigned int grid[3],
                                    const unsigned int block[3], size_t shared,
                                    cudaStream_t stream, void (*run)(void *closure),
                                    void *closure, void (*destroy)(void *closure))
{
    kernel_call *call = malloc(sizeof *call);
    int valid = valid_launch(grid, block, shared);
    if (call == NULL || !valid) {
        dls_gpu_op forget = {0};
        free(call);
        if (destroy)
            destroy(closure);
        dls_vgpu_take_cost(&forget);
        cudaError_t error = dls_vgpu_enter();
        if (error == cudaSuccess)
            error = valid ? cudaErrorMemoryAllocation : cudaErrorInvalidConfiguration;
        return dls_vgpu_leave(error);
    }
    *call = (kernel_call){run, destroy, closure};
    dls_gpu_op op = {.name = name, .kind = DLS_GPU_COMPUTE, .run = kernel_run,
                     .destroy = kernel_destroy};
    return dls_vgpu_launch(stream, &op, call, -1);
}

/* create and destroy streams */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (stream == NULL || flags > cudaStreamNonBlocking))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        int device = dls_vgpu_device();
        *stream = stream_new(device, ++dls_vgpu.stream_count[device], flags);
        error = *stream ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = dls_vgpu_stream(stream), **link = &dls_vgpu.streams;
    if (error == cudaSuccess &&
        (stream == NULL || s == NULL || s->index == 0 || stream == cudaStreamPerThread))
        return dls_vgpu_leave(cudaErrorInvalidResourceHandle);
    if (error == cudaSuccess)
        error = dls_vgpu_capture_refuse(s);
    if (error == cudaSuccess)
        error = dls_vgpu_finish(s->last, 0);
    while (s && *link != s)
        link = &(*link)->next;
    if (s && s->head == NULL) {
        *link = s->next;
        dls_vgpu_drop(s->last);
        dls_vgpu_drop(s->legacy_seen);
        dls_vgpu_drop(s->legacy_joined);
        free(s);
    }
    return dls_vgpu_leave(error);
}

cudaError_t dls_gpu_name_stream(cudaStream_t stream, const char *name)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (s)
        snprintf(s->name, sizeof s->name, "%s", name);
    return dls_vgpu_leave(error);
}

/* wait for streams */
cudaError_t dls_vgpu_submit_record(struct CUstream_st *s, dls_vgpu_mark **slot)
{
    cudaError_t error = order_with_legacy(s);
    if (error != cudaSuccess)
        return error;
    dls_vgpu_operation *operation = dls_vgpu_operation_new(DLS_VGPU_RECORD);
    if (operation == NULL)
        return cudaErrorMemoryAllocation;
    operation->op.name = "record";
    replace_mark(slot, operation->mark);
    return dls_vgpu_submit(s, operation);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_refuse(s);
    if (error == cudaSuccess && s->index == 0)
        error = order_with_legacy(s);
    if (error == cudaSuccess)
        error = dls_vgpu_finish(s->last, 1);
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess)
        error = s ? dls_vgpu_capture_refuse(s) : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_poll(s->last);
    return dls_vgpu_leave(error);
}

/* A host function: runs in stream order, takes no virtual time unless annotated. */
typedef struct host_call {
    cudaHostFn_t function;
    void *user;
} host_call;

static int host_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    host_call *call = arg;
    call->function(call->user);
    return 0;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *user)
{
    host_call *call = function ? malloc(sizeof *call) : NULL;
    if (call == NULL) {
        cudaError_t error = dls_vgpu_enter();
        if (error == cudaSuccess)
            error = function ? cudaErrorMemoryAllocation : cudaErrorInvalidValue;
        return dls_vgpu_leave(error);
    }
    *call = (host_call){function, user};
    dls_gpu_op op = {.name = "host function", .kind = DLS_GPU_HOST, .run = host_run,
                     .destroy = free};
    return dls_vgpu_launch(stream, &op, call, -1);
}

/* code/vgpu/gpu_cuda.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_gpu_* on a real device: traces by events, accounts of memory, waiting operations.
 *
 * Runtime functions are interposed: ours has the same name, does its part, and calls the
 * next definition. A traced launch is bracketed by two events; their times are read at
 * the next synchronisation, since reading them earlier would stall the device.
 * Time zero is the first call, on the host's clock; the device's events are placed on it
 * through one event recorded then. */
/* include what the real device needs */
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vgpu/accounts.h"
#include "vgpu/options.h"
#include "vgpu/trace.h"

/* keep the real devices state */
enum { STREAMS = 64, NAME = 32 };

static struct {
    int initialised, threads;
    dls_gpu_options options;
    dls_cluster cluster;
    double zero;      // real s of the first call
    double watchdog;  // real s
    int (*idle)(void *arg);
    void *idle_arg;
    cudaEvent_t base; // recorded at `base_time`
    double base_time;
    struct { cudaStream_t stream; char name[NAME]; } streams[STREAMS];
    int stream_count;
} gpu;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // accounts, streams, spans
static atomic_int failed_status;                         // of an enqueued operation
static char failure[448];
static _Thread_local dls_gpu_op annotation;

static double real_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* initialise the real device */
dls_status dls_gpu_init(const dls_gpu_options *options)
{
    int devices;
    const char *watchdog = getenv("DLS_WATCHDOG");
    if (gpu.initialised)
        return DLS_FAIL(DLS_ERR_STATE, "dls_gpu_init: the devices are already in use");
    gpu.options = options ? *options : (dls_gpu_options){0};
    DLS_TRY(dls_gpu_complete(&gpu.options, &gpu.cluster, &gpu.threads));
    gpu.watchdog = watchdog && atof(watchdog) > 0 ? atof(watchdog) : 120;
    DLS_CUDA(cudaGetDeviceCount(&devices));
    DLS_CUDA(cudaSetDevice(gpu.options.local_rank % devices)); // ranks may share one
    DLS_CUDA(cudaEventCreate(&gpu.base));
    DLS_CUDA(cudaEventRecord(gpu.base, 0));
    DLS_CUDA(cudaEventSynchronize(gpu.base));
    gpu.zero = gpu.base_time = real_time();
    gpu.initialised = 1;
    dls_trace_set_rank(gpu.options.rank, gpu.options.world);
    return DLS_OK;
}

/* answer the same questions */
/* Initialises lazily; a failure comes back with the first call that returns a status. */
static void look(void)
{
    if (!gpu.initialised && dls_gpu_init(NULL) != DLS_OK && gpu.cluster.nodes == 0)
        dls_cluster_default(&gpu.cluster);
}

int dls_gpu_use_host_kernels(void) { return 0; }

int dls_gpu_threads(void)
{
    look();
    return gpu.threads > 0 ? gpu.threads : 1;
}

uint64_t dls_gpu_seed(void) { look(); return gpu.options.seed; }
int dls_gpu_rank(void) { look(); return gpu.options.rank; }
int dls_gpu_world(void) { look(); return gpu.options.world; }
int dls_gpu_local_rank(void) { look(); return gpu.options.local_rank; }
const dls_cluster *dls_gpu_cluster(void) { look(); return &gpu.cluster; }

double dls_gpu_host_time(void)
{
    look();
    return gpu.zero > 0 ? real_time() - gpu.zero : 0;
}

void dls_gpu_set_idle(int (*idle)(void *arg), void *arg)
{
    gpu.idle = idle;
    gpu.idle_arg = arg;
}

/* The stream's number, with a name when it is new. Called with the lock held. */
static int stream_number(cudaStream_t stream, const char *name)
{
    int i = 0;
    while (i < gpu.stream_count && gpu.streams[i].stream != stream)
        i++;
    if (i == STREAMS)
        return STREAMS - 1;
    if (i == gpu.stream_count) {
        gpu.stream_count++;
        gpu.streams[i].stream = stream;
        snprintf(gpu.streams[i].name, NAME, stream ? "stream %d" : "default stream", i);
    }
    if (name)
        snprintf(gpu.streams[i].name, NAME, "%s", name);
    return i;
}

cudaError_t dls_gpu_name_stream(cudaStream_t stream, const char *name)
{
    pthread_mutex_lock(&lock);
    stream_number(stream, name);
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* find the next definition */
/* next: the definition after ours; on failure the enclosing function returns `error`. */
#define NEXT(name, error)                                                  \
    static __typeof__(&name) next;                                         \
    if (next == NULL)                                                      \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                 \
    if (next == NULL)                                                      \
    return (error)

/* record spans with events */
extern cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block,
                                      void **args, size_t shared, cudaStream_t stream);

typedef struct pending {
    cudaEvent_t start, finish;
    dls_trace_span span;
} pending;

static pending *queue; // in order of launch
static int queue_count, queue_capacity;
static cudaEvent_t *pool;
static int pool_count, pool_capacity;

static cudaEvent_t take_event(void)
{
    cudaEvent_t event = NULL;
    if (pool_count > 0)
        return pool[--pool_count];
    return cudaEventCreate(&event) == cudaSuccess ? event : NULL;
}

static void give_event(cudaEvent_t event)
{
    if (pool_count == pool_capacity) {
        int capacity = pool_capacity ? 2 * pool_capacity : 256;
        cudaEvent_t *grown = realloc(pool, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            cudaEventDestroy(event);
            return;
        }
        pool = grown;
        pool_capacity = capacity;
    }
    pool[pool_count++] = event;
}

/* Opens a span on the stream, consuming the annotation; p->start is NULL when not
 * tracing. */
static void open_span(pending *p, cudaStream_t stream, const char *name, double flops,
                      double bytes)
{
    dls_gpu_op note = annotation;
    annotation = (dls_gpu_op){0};
    *p = (pending){0};
    if (!dls_trace_enabled() || !gpu.initialised)
        return;
    p->span = (dls_trace_span){
        .kind = DLS_GPU_COMPUTE, .name = note.name ? note.name : name,
        .flops = note.flops > 0 ? note.flops : flops,
        .bytes = note.bytes > 0 ? note.bytes : bytes, .range = dls_trace_range_current(),
    };
    cudaGetDevice(&p->span.device);
    pthread_mutex_lock(&lock);
    p->span.stream = stream_number(stream, NULL);
    p->start = take_event();
    p->finish = p->start ? take_event() : NULL;
    pthread_mutex_unlock(&lock);
    if (p->finish == NULL || cudaEventRecord(p->start, stream) != cudaSuccess)
        p->start = NULL; // this span is lost, the program goes on
}

/* Closes it and lets it wait for its times. */
static void close_span(const pending *p, cudaStream_t stream)
{
    if (p->start == NULL || cudaEventRecord(p->finish, stream) != cudaSuccess)
        return;
    pthread_mutex_lock(&lock);
    if (queue_count == queue_capacity) {
        int capacity = queue_capacity ? 2 * queue_capacity : 1024;
        pending *grown = realloc(queue, (size_t)capacity * sizeof *grown);
        if (grown) {
            queue = grown;
            queue_capacity = capacity;
        }
    }
    if (queue_count < queue_capacity)
        queue[queue_count++] = *p;
    pthread_mutex_unlock(&lock);
}

/* Turns finished pending spans into recorded ones; unfinished ones stay. */
static void collect_spans(void)
{
    int kept = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < queue_count; i++) {
        pending *p = &queue[i];
        float start, finish;
        if (cudaEventQuery(p->finish) != cudaSuccess ||
            cudaEventElapsedTime(&start, gpu.base, p->start) != cudaSuccess ||
            cudaEventElapsedTime(&finish, gpu.base, p->finish) != cudaSuccess) {
            queue[kept++] = *p;
            continue;
        }
        p->span.start = gpu.base_time - gpu.zero + 1e-3 * (double)start;
        p->span.finish = gpu.base_time - gpu.zero + 1e-3 * (double)finish;
        dls_trace_add(&p->span, gpu.streams[p->span.stream].name);
        give_event(p->start);
        give_event(p->finish);
    }
    queue_count = kept;
    pthread_mutex_unlock(&lock);
}

/* interpose launches */
void dls_gpu_cost_at(dls_work work, const char *name, double flops, double bytes,
                     const char *file, int line)
{
    annotation = (dls_gpu_op){.name = name, .work = work, .flops = flops,
                              .bytes = bytes, .file = file, .line = line};
}

#define LAUNCH(function, T)                                                     \
    cudaError_t function(T kernel, dim3 grid, dim3 block, void **args,          \
                         size_t shared, cudaStream_t stream)                    \
    {                                                                           \
        pending p;                                                              \
        NEXT(function, cudaErrorInitializationError);                           \
        open_span(&p, stream, "kernel", 0, 0);                                  \
        cudaError_t error = next(kernel, grid, block, args, shared, stream);    \
        close_span(&p, stream);                                                 \
        return error;                                                           \
    }

LAUNCH(cudaLaunchKernel, const void *)
LAUNCH(__cudaLaunchKernel, cudaKernel_t)

/* interpose products */
static cudaStream_t open_product(pending *p, cublasHandle_t handle, const char *name,
                                 double m, double n, double k, double batch, double size)
{
    cudaStream_t stream = NULL;
    cublasGetStream(handle, &stream);
    open_span(p, stream, name, 2 * m * n * k * batch,
              (m * k + k * n + m * n) * batch * size);
    return stream;
}

#define PRODUCT(function, name, T, PARAMETERS, ARGUMENTS, BATCH)                       \
    cublasStatus_t function PARAMETERS                                                 \
    {                                                                                  \
        pending p;                                                                     \
        NEXT(function, CUBLAS_STATUS_NOT_INITIALIZED);                                 \
        cudaStream_t s = open_product(&p, handle, name, m, n, k, BATCH, sizeof(T));    \
        cublasStatus_t status = next ARGUMENTS;                                        \
        close_span(&p, s);                                                             \
        return status;                                                                 \
    }

#define ONE(T)                                                                       \
    (cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, \
     int k, const T *alpha, const T *A, int lda, const T *B, int ldb, const T *beta,  \
     T *C, int ldc)
#define MANY(T)                                                                      \
    (cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, \
     int k, const T *alpha, const T *A, int lda, long long sa, const T *B, int ldb,   \
     long long sb, const T *beta, T *C, int ldc, long long sc, int batch)
#define PASS_ONE (handle, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc)
#define PASS_MANY                                                                    \
    (handle, ta, tb, m, n, k, alpha, A, lda, sa, B, ldb, sb, beta, C, ldc, sc, batch)

PRODUCT(cublasSgemm_v2, "sgemm", float, ONE(float), PASS_ONE, 1)
PRODUCT(cublasDgemm_v2, "dgemm", double, ONE(double), PASS_ONE, 1)
PRODUCT(cublasSgemmStridedBatched, "sgemm", float, MANY(float), PASS_MANY, batch)
PRODUCT(cublasDgemmStridedBatched, "dgemm", double, MANY(double), PASS_MANY, batch)

/* interpose synchronisation */
static cudaError_t after_waiting(cudaError_t error)
{
    if (queue_count > 0)
        collect_spans();
    return error == cudaSuccess && failed_status ? cudaErrorLaunchFailure : error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    NEXT(cudaStreamSynchronize, cudaErrorInitializationError);
    return after_waiting(next(stream));
}

cudaError_t cudaDeviceSynchronize(void)
{
    NEXT(cudaDeviceSynchronize, cudaErrorInitializationError);
    return after_waiting(next());
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    NEXT(cudaEventSynchronize, cudaErrorInitializationError);
    return after_waiting(next(event));
}

/* interpose allocation */
static void book_allocation(void *p, size_t bytes)
{
    int device = 0;
    cudaGetDevice(&device);
    pthread_mutex_lock(&lock);
    if (p && device < DLS_ACCOUNT_DEVICES)
        dls_account_add((dls_account_block){.start = p, .bytes = bytes,
                                            .device = device}); // else not counted
    pthread_mutex_unlock(&lock);
}

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    NEXT(cudaMalloc, cudaErrorInitializationError);
    cudaError_t error = next(pointer, bytes);
    if (error == cudaSuccess)
        book_allocation(*pointer, bytes);
    return error;
}

cudaError_t cudaFree(void *pointer)
{
    NEXT(cudaFree, cudaErrorInitializationError);
    pthread_mutex_lock(&lock);
    const dls_account_block *block = pointer ? dls_account_at(pointer) : NULL;
    if (block && block->start == pointer)
        dls_account_remove(block);
    pthread_mutex_unlock(&lock);
    return next(pointer);
}

void dls_gpu_set_shared_memory(void *(*take)(size_t bytes),
                               int (*give)(void *at, size_t bytes))
{
    (void)take; // managed memory belongs to one process
    (void)give;
}

cudaError_t dls_gpu_alloc_shared(void **pointer, size_t bytes)
{
    cudaError_t error = cudaMallocManaged(pointer, bytes, cudaMemAttachGlobal);
    if (error == cudaSuccess)
        book_allocation(*pointer, bytes);
    return error;
}

dls_status dls_gpu_memory_stats(int device, dls_gpu_memory *out)
{
    struct cudaDeviceProp properties;
    DLS_CUDA(cudaGetDeviceProperties(&properties, device));
    pthread_mutex_lock(&lock);
    if (device < DLS_ACCOUNT_DEVICES)
        dls_account_get(device, out);
    pthread_mutex_unlock(&lock);
    out->capacity = properties.totalGlobalMem;
    return DLS_OK;
}

/* enqueue through host functions */
typedef struct operation {
    dls_gpu_op op;
    void *arg;
    int stream, range, device;
} operation;

static int wait_until_ready(operation *o)
{
    double since = real_time(), earliest;
    int ready = 1;
    while (o->op.ready && (ready = o->op.ready(o->arg, &earliest)) == 0) {
        if (failed_status)
            return -1;
        if (real_time() - since > gpu.watchdog) {
            char what[160] = "its input";
            if (o->op.describe)
                o->op.describe(o->arg, what, sizeof what);
            return -(int)DLS_FAIL(DLS_ERR_COMM, "no progress for %g s: waits for %s",
                                  gpu.watchdog, what);
        }
        if (gpu.idle)
            gpu.idle(gpu.idle_arg);
        else
            nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    return ready;
}

static void record_host_span(const operation *o, double start)
{
    dls_trace_span span = {
        .device = o->device, .stream = o->stream, .kind = o->op.kind, .name = o->op.name,
        .start = start, .finish = dls_gpu_host_time(), .flops = o->op.flops,
        .bytes = o->op.bytes, .range = o->range,
    };
    pthread_mutex_lock(&lock);
    dls_trace_add(&span, gpu.streams[o->stream].name);
    pthread_mutex_unlock(&lock);
}

static void run_operation(void *arg)
{
    operation *o = arg;
    int code = failed_status ? -1 : wait_until_ready(o);
    double start = dls_gpu_host_time(), finish = start;
    if (code > 0 && o->op.run)
        code = o->op.run(o->arg, start, &finish);
    int known = -code > 0 && -code <= DLS_ERR_STATE, expected = 0;
    int status = known ? -code : DLS_ERR_DEVICE;
    if (code >= 0)
        record_host_span(o, start);
    else if (atomic_compare_exchange_strong(&failed_status, &expected, status))
        snprintf(failure, sizeof failure, "operation '%s' of %s (%s:%d): %s", o->op.name,
                 gpu.streams[o->stream].name, o->op.file ? o->op.file : "?", o->op.line,
                 dls_status_message());
    if (o->op.destroy)
        o->op.destroy(o->arg);
    free(o);
}

cudaError_t dls_gpu_enqueue(cudaStream_t stream, const dls_gpu_op *op, void *arg)
{
    look();
    operation *o = failed_status ? NULL : malloc(sizeof *o);
    if (o == NULL) {
        if (op->destroy)
            op->destroy(arg);
        return failed_status ? cudaErrorLaunchFailure : cudaErrorMemoryAllocation;
    }
    *o = (operation){.op = *op, .arg = arg, .range = dls_trace_range_current()};
    if (annotation.name) {
        o->op.name = annotation.name;
        o->op.flops = annotation.flops;
        o->op.bytes = annotation.bytes;
    }
    annotation = (dls_gpu_op){0};
    o->op.name = o->op.name ? o->op.name : "unnamed";
    cudaGetDevice(&o->device);
    pthread_mutex_lock(&lock);
    o->stream = stream_number(stream, NULL);
    pthread_mutex_unlock(&lock);
    cudaError_t error = cudaLaunchHostFunc(stream, run_operation, o);
    if (error != cudaSuccess) {
        if (op->destroy)
            op->destroy(arg);
        free(o);
    }
    return error;
}

/* turn real errors into statuses */
dls_status dls_gpu_fail(int error, const char *call, const char *file, int line)
{
    if (error == cudaErrorLaunchFailure && failed_status)
        return dls_status_fail((dls_status)failed_status, file, line, "%s", failure);
    return dls_status_fail(error == cudaErrorMemoryAllocation ? DLS_ERR_MEMORY
                                                              : DLS_ERR_DEVICE,
                           file, line, "%s: %s", call,
                           cudaGetErrorString((cudaError_t)error));
}

dls_status dls_gpu_blas_fail(int error, const char *call, const char *file, int line)
{
    return dls_status_fail(error == CUBLAS_STATUS_ALLOC_FAILED ? DLS_ERR_MEMORY
                                                               : DLS_ERR_DEVICE,
                           file, line, "%s: %s", call,
                           cublasGetStatusString((cublasStatus_t)error));
}

/* code/vgpu/gpu_virtual.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* The virtual backend's state: initialisation, devices, error codes and the lock.
 *
 * One process has one state and, seen from CUDA, all the devices of one node. A failure
 * inside an operation is *sticky*, as on hardware: the queues are emptied and every later
 * call returns the same error, since nothing after it can be trusted. */
#include "vgpu/observer.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vgpu/options.h"
#include "vgpu/space.h"
#include "vgpu/trace.h"

/* keep the state of the process */
dls_vgpu_state dls_vgpu;
const dls_vgpu_observer_table *dls_vgpu_observer;
static int initialised;
static pthread_mutex_t lock;
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;
static _Thread_local cudaError_t last_error;
static _Thread_local int current_device = -1; // -1: the local rank

static void make_lock(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static int lock_depth; // how often its owner has taken it

static void take_lock(void)
{
    pthread_once(&lock_once, make_lock);
    pthread_mutex_lock(&lock);
    lock_depth++;
}

static void drop_lock(void)
{
    if (--lock_depth == 0)
        dls_space_close(); // back to the host's code
    pthread_mutex_unlock(&lock);
}

/* let go of the lock */
int dls_gpu_unlock(void)
{
    int held = lock_depth;
    while (lock_depth > 0)
        drop_lock();
    return held;
}

void dls_gpu_relock(int held)
{
    while (held-- > 0)
        take_lock();
}

/* initialise the virtual gpus */
static void refuse_after_fork(void)
{
    if (!initialised)
        return;
    dls_vgpu.sticky = cudaErrorInitializationError;
    dls_vgpu.sticky_status = DLS_ERR_STATE;
    snprintf(dls_vgpu.failure, sizeof dls_vgpu.failure, "this process was forked from "
             "one that already used its devices; fork before the first CUDA call");
}

static int share_of_cores(int ranks)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    int known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    int cores = known ? CPU_COUNT(&allowed) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return cores > ranks ? cores / ranks : 1;
}

static dls_status initialise(const dls_gpu_options *options)
{
    const char *watchdog = getenv("DLS_WATCHDOG");
    dls_vgpu_state fresh = {.options = options ? *options : (dls_gpu_options){0}};
    DLS_TRY(dls_gpu_complete(&fresh.options, &fresh.cluster, &fresh.threads));
    fresh.watchdog = watchdog ? atof(watchdog) : 0;
    if (watchdog && !(fresh.watchdog > 0))
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_WATCHDOG=%s: expected seconds > 0", watchdog);
    if (fresh.threads == 0)
        fresh.threads = share_of_cores(fresh.options.world);
    fresh.random = fresh.options.seed * 0x9E3779B97F4A7C15u + 1;
    dls_vgpu = fresh;
    initialised = 1;
    pthread_atfork(NULL, NULL, refuse_after_fork);
    dls_trace_set_rank(dls_vgpu.options.rank, dls_vgpu.options.world);
    return DLS_OK;
}

dls_status dls_gpu_init(const dls_gpu_options *options)
{
    take_lock();
    dls_status status = initialised
        ? DLS_FAIL(DLS_ERR_STATE, "dls_gpu_init: the devices are already in use; "
                   "initialise before any other call")
        : initialise(options);
    drop_lock();
    return status;
}

/* enter and leave a call */
cudaError_t dls_vgpu_enter(void)
{
    take_lock();
    if (!initialised) {
        dls_status status = initialise(NULL);
        if (status != DLS_OK) {
            dls_vgpu.sticky = cudaErrorInitializationError;
            dls_vgpu.sticky_status = status;
            snprintf(dls_vgpu.failure, sizeof dls_vgpu.failure, "%s",
                     dls_status_message());
            return dls_vgpu.sticky;
        }
    }
    dls_vgpu_register();
    if (dls_vgpu.executing)
        return cudaErrorNotPermitted;
    return dls_vgpu.sticky;
}

cudaError_t dls_vgpu_leave(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    if (last_error == error && error && lock_depth == 1 && dls_vgpu_observer)
        dls_vgpu_observer->failed(error);
    if (lock_depth == 1)
        dls_vgpu_site(NULL, NULL, 0); // it was this call's
    drop_lock();
    return error;
}

int dls_vgpu_device(void)
{
    return current_device >= 0 ? current_device : dls_vgpu.options.local_rank;
}

cudaError_t dls_vgpu_break(cudaError_t error, dls_status status, const char *fmt, ...)
{
    if (dls_vgpu.sticky != cudaSuccess)
        return dls_vgpu.sticky; // the first failure is the one that explains
    va_list args;
    va_start(args, fmt);
    vsnprintf(dls_vgpu.failure, sizeof dls_vgpu.failure, fmt, args);
    va_end(args);
    dls_vgpu.sticky = error;
    dls_vgpu.sticky_status = status;
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next)
        while (s->head) {
            dls_vgpu_operation *operation = s->head;
            s->head = operation->next;
            operation->mark->done = 1;
            dls_vgpu_operation_free(operation);
            dls_vgpu.pending--;
        }
    return error;
}

/* answer questions about the process */
/* Initialises if nothing else did; a failure stays for the next CUDA call to report. */
static const dls_vgpu_state *look(void)
{
    dls_vgpu_enter();
    drop_lock();
    return &dls_vgpu;
}

int dls_gpu_use_host_kernels(void)
{
    return look()->options.kernels != DLS_KERNELS_SIMT;
}

int dls_gpu_threads(void) { return look()->threads > 0 ? dls_vgpu.threads : 1; }
uint64_t dls_gpu_seed(void) { return look()->options.seed; }
int dls_gpu_rank(void) { return look()->options.rank; }
int dls_gpu_world(void) { return look()->options.world; }
int dls_gpu_local_rank(void) { return look()->options.local_rank; }
const dls_cluster *dls_gpu_cluster(void) { return &look()->cluster; }
double dls_gpu_host_time(void) { return look()->host_time; }

void dls_gpu_set_idle(int (*idle)(void *arg), void *arg)
{
    dls_vgpu_enter();
    dls_vgpu.idle = idle;
    dls_vgpu.idle_arg = arg;
    drop_lock();
}

/* answer questions about devices */
cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && count == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *count = dls_vgpu.cluster.gpus_per_node;
    return dls_vgpu_leave(error);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (device < 0 || device >= dls_vgpu.cluster.gpus_per_node))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess)
        current_device = device;
    return dls_vgpu_leave(error);
}

cudaError_t cudaGetDevice(int *device)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && device == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *device = dls_vgpu_device();
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = dls_vgpu_capture_unsafe(dls_vgpu_device());
    if (error == cudaSuccess)
        error = dls_vgpu_finish_device(dls_vgpu_device(), 1);
    return dls_vgpu_leave(error);
}

/* Forgets the current device's memory and the sticky error; streams and events stay. */
cudaError_t cudaDeviceReset(void)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        dls_vgpu_finish_device(dls_vgpu_device(), 1);
    if (initialised && error != cudaErrorNotPermitted) {
        dls_vgpu_memory_reset(dls_vgpu_device());
        dls_vgpu.sticky = error = cudaSuccess;
        dls_vgpu.failure[0] = '\0';
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) { return cudaRuntimeGetVersion(version); }

/* name the errors */
cudaError_t cudaGetLastError(void)
{
    cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    take_lock();
    cudaError_t error = dls_vgpu.sticky ? dls_vgpu.sticky : last_error;
    if (dls_vgpu_observer)
        dls_vgpu_observer->looked();
    drop_lock();
    return error;
}

/* turn errors into statuses */
dls_status dls_gpu_fail(int error, const char *call, const char *file, int line)
{
    dls_status status = DLS_ERR_DEVICE;
    if (error == cudaErrorMemoryAllocation)
        status = DLS_ERR_MEMORY;
    if (dls_vgpu.sticky == cudaSuccess || error != (int)dls_vgpu.sticky)
        return dls_status_fail(status, file, line, "%s: %s", call,
                               cudaGetErrorString((cudaError_t)error));
    return dls_status_fail(dls_vgpu.sticky_status, file, line, "%s", dls_vgpu.failure);
}

dls_status dls_gpu_blas_fail(int error, const char *call, const char *file, int line)
{
    if (dls_vgpu.sticky != cudaSuccess)
        return dls_gpu_fail(dls_vgpu.sticky, call, file, line);
    return dls_status_fail(error == 3 ? DLS_ERR_MEMORY : DLS_ERR_DEVICE, file, line,
                           "%s: cuBLAS error %d", call, error);
}

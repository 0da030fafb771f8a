/* code/vgpu/gpu.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* What the library needs from a device beyond CUDA, on the virtual and the real backend.
 *
 * Costs: dls_gpu_cost() annotates the thread's next launch with its FLOPs and bytes;
 * the virtual clock turns them into time, the real backend into trace records.
 * Operations: dls_gpu_enqueue() puts host code in a stream, with a readiness test, so
 * that a message which has not arrived delays its stream and nothing else.
 * Times are in seconds, sizes in bytes, rates per second, always as double.
 * Not built: a callback per finished operation. Events do that job and order streams. */
#ifndef DLS_VGPU_GPU_H
#define DLS_VGPU_GPU_H

#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime.h>

#include "base/status.h"
#include "vgpu/cluster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the gpu options */
typedef enum dls_gpu_kernels {
    DLS_KERNELS_DEFAULT, // what DLS_KERNELS says: host when unset
    DLS_KERNELS_HOST,    // an operation's plain-C version, on the stream
    DLS_KERNELS_SIMT,    // every CUDA thread emulated
    DLS_KERNELS_TIMED    // neither: time passes, nothing is computed
} dls_gpu_kernels;

typedef struct dls_gpu_options {
    const char *cluster_file; // path or name; NULL: DLS_CLUSTER, else built-in dgx-h100
    int rank, world;          // world 0: DLS_RANK and DLS_WORLD_SIZE, else 0 of 1
    int local_rank;           // with world 0: DLS_LOCAL_RANK, else rank % GPUs per node
    uint64_t seed;            // order of execution; 0: DLS_SEED, else 1
    dls_gpu_kernels kernels;
} dls_gpu_options;

/* Once per process, before any other call; NULL takes all defaults. DLS_ERR_INPUT: a bad
 * cluster file or a world that does not fit it. DLS_ERR_STATE: the second call. */
dls_status dls_gpu_init(const dls_gpu_options *options);

int dls_gpu_use_host_kernels(void);       // 1: launch plain C; 0 on the real backend
int dls_gpu_threads(void);                // CPU threads this process may use, at least 1
uint64_t dls_gpu_seed(void);
int dls_gpu_rank(void);
int dls_gpu_world(void);
int dls_gpu_local_rank(void);
const dls_cluster *dls_gpu_cluster(void); // never NULL

/* declare costs and operations */
typedef enum dls_gpu_kind {
    DLS_GPU_COMPUTE, DLS_GPU_COPY, DLS_GPU_COMMUNICATION, DLS_GPU_HOST, DLS_GPU_KINDS
} dls_gpu_kind;

typedef struct dls_gpu_op {
    const char *name;    // static string
    dls_gpu_kind kind;
    dls_work work;       // kind of work, for the cost model
    double flops, bytes; // the same
    int planned;         // its time follows from these: run() leaves *finish alone
    int (*ready)(void *arg, double *earliest); // NULL: always. 1 yes, 0 no, <0 failed
    int (*run)(void *arg, double start, double *finish); // <0 failed; see below
    void (*describe)(void *arg, char *text, size_t size); // what it waits for
    void (*destroy)(void *arg); // called once, whether it ran or not
    const char *file;
    int line;
} dls_gpu_op;

/* Annotates the next launch, cuBLAS call or enqueue of this thread. `name` is kept by
 * pointer: use a literal. Zero FLOPs or bytes leave what the operation itself knows. */
#define dls_gpu_cost(name, flops, bytes) \
    dls_gpu_cost_of(DLS_WORK_OTHER, (name), (flops), (bytes))
/* The same for a kind of work (cluster.h), which chooses the peak and the shares. */
#define dls_gpu_cost_of(work, name, flops, bytes) \
    dls_gpu_cost_at((work), (name), (flops), (bytes), __FILE__, __LINE__)
void dls_gpu_cost_at(dls_work work, const char *name, double flops, double bytes,
                     const char *file, int line);

/* Puts an operation in a stream; `op` is copied, `arg` belongs to it from now on, and is
 * destroyed also when the call fails: without memory, or on a broken device. */
cudaError_t dls_gpu_enqueue(cudaStream_t stream, const dls_gpu_op *op, void *arg);

/* Called whenever no operation can run and at least one waits in `ready`: sleep there
 * until something outside may have changed, for at most about 100 ms. Returns 1 when
 * nothing can change before the host goes on: then a cudaStreamQuery is answered. */
void dls_gpu_set_idle(int (*idle)(void *arg), void *arg);

/* The host thread's clock: virtual seconds since the first call (real ones on CUDA). */
double dls_gpu_host_time(void);

/* A name for traces and messages, copied. Streams are called "stream N" otherwise. */
cudaError_t dls_gpu_name_stream(cudaStream_t stream, const char *name);

/* declare the memory purposes */
typedef enum dls_memory_purpose {
    DLS_MEM_OTHER, DLS_MEM_PARAMETERS, DLS_MEM_GRADIENTS, DLS_MEM_OPTIMIZER,
    DLS_MEM_ACTIVATIONS, DLS_MEM_COMMUNICATION, DLS_MEM_PURPOSES
} dls_memory_purpose;

typedef struct dls_gpu_memory {
    size_t current[DLS_MEM_PURPOSES], peak[DLS_MEM_PURPOSES]; // peaks at different times
    size_t total, total_peak;                                 // of all purposes together
    size_t capacity;
} dls_gpu_memory;

/* Sets what this thread's next allocations are for; returns what it was. */
dls_memory_purpose dls_gpu_memory_purpose(dls_memory_purpose purpose);
const char *dls_memory_purpose_name(dls_memory_purpose purpose);
dls_status dls_gpu_memory_stats(int device, dls_gpu_memory *out);
void dls_gpu_memory_reset_peaks(int device); // peak := current

/* Memory that both the device and the host's communication code may touch. */
cudaError_t dls_gpu_alloc_shared(void **pointer, size_t bytes); // freed with cudaFree

/* Where it takes that memory from, before all else: take returns NULL when it has none,
 * give 0 when the memory is not its own. A real device takes it from the driver. */
void dls_gpu_set_shared_memory(void *(*take)(size_t bytes),
                               int (*give)(void *at, size_t bytes));

/* declare how cuda errors become statuses */
#define DLS_CUDA(expr)                                                        \
    do {                                                                      \
        cudaError_t dls_cuda_ = (expr);                                       \
        if (dls_cuda_ != cudaSuccess)                                         \
            return dls_gpu_fail((int)dls_cuda_, #expr, __FILE__, __LINE__);   \
    } while (0)
#define DLS_CUBLAS(expr)                                                      \
    do {                                                                      \
        int dls_cublas_ = (int)(expr);                                        \
        if (dls_cublas_ != 0)                                                 \
            return dls_gpu_blas_fail(dls_cublas_, #expr, __FILE__, __LINE__); \
    } while (0)

/* Records a failed call as a status: DLS_ERR_MEMORY for an allocation, the status of the
 * operation that broke the device when there is one, else DLS_ERR_DEVICE. */
dls_status dls_gpu_fail(int error, const char *call, const char *file, int line);
dls_status dls_gpu_blas_fail(int error, const char *call, const char *file, int line);

#ifdef __cplusplus
}

/* define the host launch template */
#include <new>
#include <tuple>
#include <type_traits>

template <typename... P> struct dls_gpu_host_call {
    void (*fn)(P...);
    std::tuple<P...> args; // by value, like a kernel's

    static int run(void *self, double, double *)
    {
        dls_gpu_host_call *call = static_cast<dls_gpu_host_call *>(self);
        std::apply(call->fn, call->args);
        return 0;
    }
    static void destroy(void *self) { delete static_cast<dls_gpu_host_call *>(self); }
};

/* Enqueues fn(args...) on the stream, at the cost of the preceding dls_gpu_cost. */
template <typename... P, typename... A>
inline cudaError_t dls_gpu_host_launch(cudaStream_t stream, void (*fn)(P...), A... args)
{
    typedef dls_gpu_host_call<P...> call_type;
    static_assert(!(std::is_reference<P>::value || ...), "arguments are copied");
    call_type *call = new (std::nothrow) call_type{fn, std::tuple<P...>(P(args)...)};
    if (call == nullptr)
        return cudaErrorMemoryAllocation;
    dls_gpu_op op = {};
    op.kind = DLS_GPU_COMPUTE;
    op.planned = 1;
    op.run = call_type::run;
    op.destroy = call_type::destroy;
    return dls_gpu_enqueue(stream, &op, call);
}
#endif
#endif

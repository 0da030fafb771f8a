/* code/vgpu/shadow/vgpu_device.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* What exists inside a kernel, for g++: qualifiers, built-in variables, barriers, shared
 * memory, and the launch that the rewriter calls. The names and meanings are CUDA's; the
 * file and line that the waiting functions take by default are the caller's, so that a
 * report can name the source. Included by cuda_runtime.h in C++.
 */
#ifndef DLS_SHADOW_VGPU_DEVICE_H
#define DLS_SHADOW_VGPU_DEVICE_H

#include <math.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "../simt.h"

#define DLS_VIRTUAL_GPU 1

/* define the cuda qualifiers */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __thread __attribute__((aligned(128)))
/* declare the built in variables */
extern "C" {
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim, gridDim;
}

constexpr int warpSize = 32;
/* wait for the block */
static inline void __syncthreads(const char *file = __builtin_FILE(),
                                 int line = __builtin_LINE())
{
    dls_simt_barrier(file, line);
}

static inline int __syncthreads_count(int predicate, const char *file = __builtin_FILE(),
                                      int line = __builtin_LINE())
{
    return (int)dls_simt_barrier_count(predicate, file, line);
}

static inline int __syncthreads_or(int predicate, const char *file = __builtin_FILE(),
                                   int line = __builtin_LINE())
{
    return dls_simt_barrier_count(predicate, file, line) != 0;
}

static inline int __syncthreads_and(int predicate, const char *file = __builtin_FILE(),
                                    int line = __builtin_LINE())
{
    return dls_simt_barrier_count(!predicate, file, line) == 0;
}
/* reach shared memory */
struct dls_simt_any_pointer {
    template <class T> operator T *() const
    {
        return static_cast<T *>(dls_simt_dynamic_memory());
    }
};

static inline dls_simt_any_pointer dls_simt_dynamic_shared()
{
    return {};
}

/* For extern __shared__ arrays outside of functions: looks the pointer up at each use. */
template <class T> struct dls_simt_dynamic_array {
    operator T *() const { return static_cast<T *>(dls_simt_dynamic_memory()); }
    template <class U> explicit operator U *() const
    {
        return static_cast<U *>(dls_simt_dynamic_memory());
    }
};

#define DLS_SIMT_SHARED(array)                                                  \
    {                                                                           \
        static __thread unsigned dls_seen;                                      \
        if (__builtin_expect(dls_seen != dls_simt_here.serial, 0)) {            \
            dls_seen = dls_simt_here.serial;                                    \
            dls_simt_shared_enter(#array, &array, sizeof array, __FILE__, __LINE__); \
        }                                                                       \
    }
/* read caches and clocks */
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __nanosleep(unsigned) { dls_simt_yield(); }

static inline long long clock64()
{
#if defined(__x86_64__)
    return (long long)__builtin_ia32_rdtsc();
#else
    static __thread long long ticks;
    return ticks += 4;
#endif
}
/* launch a kernel */
extern "C" cudaError_t dls_vgpu_enqueue_kernel(
    const char *name, const unsigned int grid[3], const unsigned int block[3],
    size_t shared, cudaStream_t stream, void (*run)(void *closure), void *closure,
    void (*destroy)(void *closure));

template <class... P> struct dls_simt_closure {
    dls_simt_grid grid;
    void (*kernel)(P...);
    std::tuple<P...> arguments;
};

template <class... P, size_t... I>
static void dls_simt_run_threads(dls_simt_closure<P...> *c, std::index_sequence<I...>)
{
    unsigned at = ~0u;
    while (dls_simt_next(&at))
        c->kernel(std::get<I>(c->arguments)...);
}

template <class... P> static void dls_simt_span(void *closure)
{
    dls_simt_run_threads(static_cast<dls_simt_closure<P...> *>(closure),
                         std::index_sequence_for<P...>());
}

template <class... P> static void dls_simt_run(void *closure)
{
    dls_simt_run_launch(&static_cast<dls_simt_closure<P...> *>(closure)->grid);
}

template <class... P> static void dls_simt_destroy(void *closure)
{
    delete static_cast<dls_simt_closure<P...> *>(closure);
}

#define DLS_SIMT_NAME(...) #__VA_ARGS__

template <class... P> struct dls_simt_launcher {
    dls_simt_grid grid;
    void (*kernel)(P...);
    cudaStream_t stream;

    void operator()(P... arguments) const
    {
        auto *c = new dls_simt_closure<P...>{grid, kernel, {std::move(arguments)...}};
        c->grid.closure = c;
        c->grid.span = dls_simt_span<P...>;
        dls_vgpu_enqueue_kernel(grid.name, grid.grid, grid.block, grid.shared_bytes, stream,
                                dls_simt_run<P...>, c, dls_simt_destroy<P...>);
    }
};

template <class... P>
static inline dls_simt_launcher<P...>
dls_simt_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                size_t shared = 0, cudaStream_t stream = nullptr,
                const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    dls_simt_grid g = {name, file, line, {grid.x, grid.y, grid.z},
                       {block.x, block.y, block.z}, shared, nullptr, nullptr};
    return {g, kernel, stream};
}
/* copy to symbols */
template <class T>
static inline cudaError_t cudaMemcpyToSymbol(T &symbol, const void *from, size_t bytes,
                                             size_t offset = 0,
                                             cudaMemcpyKind kind = cudaMemcpyHostToDevice)
{
    return cudaMemcpy((char *)&symbol + offset, from, bytes, kind);
}

template <class T>
static inline cudaError_t cudaMemcpyFromSymbol(void *to, const T &symbol, size_t bytes,
                                               size_t offset = 0,
                                               cudaMemcpyKind kind = cudaMemcpyDeviceToHost)
{
    return cudaMemcpy(to, (const char *)&symbol + offset, bytes, kind);
}

template <class T> static inline cudaError_t cudaGetSymbolAddress(void **p, T &symbol)
{
    *p = (void *)&symbol;
    return cudaSuccess;
}

#include "vgpu_atomics.h"
#include "vgpu_math.h"
#include "vgpu_warp.h"

#endif

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
#ifdef DLS_PROBED
extern "C" {
__attribute__((const)) unsigned dls_probed_thread(int axis), dls_probed_block(int axis),
    dls_probed_block_size(int axis), dls_probed_grid_size(int axis);
}
#define DLS_PROBED_AXES(of) {dls_probed_##of(0), dls_probed_##of(1), dls_probed_##of(2)}
static inline dls_simt_index dls_probed_thread_index()
{
    return {DLS_PROBED_AXES(thread), dls_probed_thread(3)};
}
#define threadIdx dls_probed_thread_index()
#define blockIdx uint3 DLS_PROBED_AXES(block)
#define blockDim dim3 DLS_PROBED_AXES(block_size)
#define gridDim dim3 DLS_PROBED_AXES(grid_size)
#endif
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

#define DLS_SIMT_SHARED_PLACE(name)                                             \
    static const dls_simt_shared variable = {                                   \
        #name, __FILE__, __LINE__, sizeof(dls_type_##name),                     \
        alignof(dls_type_##name)};                                              \
    static __thread dls_simt_slot slot;                                         \
    if (__builtin_expect(slot.serial != dls_simt_here.serial, 0))               \
        slot = dls_simt_shared_enter(&variable);                                \
    return *static_cast<dls_type_##name *>(slot.address);

/* Behind typedef T dls_type_x: makes x a reference into the block's arena. */
#define DLS_SIMT_SHARED(name)                                                   \
    dls_type_##name &name = []() DLS_UNPROBED -> dls_type_##name & {            \
        DLS_SIMT_SHARED_PLACE(name)                                             \
    }();

/* The same outside of functions: looks the place up at each use. */
#define DLS_SIMT_SHARED_GLOBAL(name)                                            \
    static struct {                                                             \
        DLS_UNPROBED operator dls_type_##name &() const                         \
        {                                                                       \
            DLS_SIMT_SHARED_PLACE(name)                                         \
        }                                                                       \
        template <class U> dls_type_##name &operator=(const U &value) const     \
        {                                                                       \
            dls_type_##name &here = *this;                                      \
            return here = value;                                                \
        }                                                                       \
    } name;
/* read caches and clocks */
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline T __ldlu(const T *p) { return *p; }
template <class T> static inline T __ldcv(const T *p) { return *p; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }
template <class T> static inline void __stwb(T *p, T v) { *p = v; }
template <class T> static inline void __stwt(T *p, T v) { *p = v; }

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
/* The weaker order tells the probes that only the block is meant. */
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_ACQ_REL); }
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
/* stop a kernel */
extern "C" void dls_simt_trap(const char *file, int line);
extern "C" void dls_simt_bounds_exceeded(unsigned most);

static inline void __trap(const char *file = __builtin_FILE(),
                          int line = __builtin_LINE())
{
    dls_simt_trap(file, line);
}

template <class... Hints> static inline void dls_simt_bounds(unsigned most, Hints...)
{
    if (__builtin_expect(dls_simt_here.threads > most, 0))
        dls_simt_bounds_exceeded(most);
}
#define DLS_SIMT_BOUNDS(...) dls_simt_bounds(__VA_ARGS__);
#define __builtin_assume(condition) ((void)0)
/* launch a kernel */
extern "C" cudaError_t dls_simt_enqueue_grid(
    dls_simt_grid *grid, cudaStream_t stream, void (*run)(void *closure), void *closure,
    void (*destroy)(void *closure));
extern "C" cudaError_t dls_simt_set_attribute(const void *kernel, int attribute,
                                              int value);

/* A launch on its way through a stream: K is a function pointer or a callable object. */
template <class K, class... P> struct dls_simt_closure {
    dls_simt_grid grid;
    K kernel;
    std::tuple<P...> arguments;
};

template <class K, class... P>
DLS_UNPROBED static void dls_simt_run_threads(const K &kernel, const P &...arguments)
{
    unsigned at = ~0u;
    while (dls_simt_next(&at))
        kernel(arguments...);
}

template <class C, size_t... I>
static void dls_simt_unpack(const C *c, std::index_sequence<I...>)
{
    dls_simt_run_threads(c->kernel, std::get<I>(c->arguments)...);
}

template <class K, class... P> static void dls_simt_span(void *closure)
{
    dls_simt_unpack(static_cast<const dls_simt_closure<K, P...> *>(closure),
                    std::index_sequence_for<P...>());
}

template <class C> static void dls_simt_run(void *closure)
{
    dls_simt_run_launch(&static_cast<C *>(closure)->grid);
}

template <class C> static void dls_simt_destroy(void *closure)
{
    delete static_cast<C *>(closure);
}

template <class K, class... P>
static inline cudaError_t dls_simt_enqueue(const dls_simt_grid &grid, cudaStream_t stream,
                                           K kernel, std::tuple<P...> arguments)
{
    using closure = dls_simt_closure<K, P...>;
    closure *c = new closure{grid, kernel, std::move(arguments)};
    c->grid.closure = c;
    c->grid.span = dls_simt_span<K, P...>;
    return dls_simt_enqueue_grid(&c->grid, stream, dls_simt_run<closure>, c,
                                 dls_simt_destroy<closure>);
}

/* Stands for a kernel that has no address: an overloaded name. */
static inline char dls_simt_anonymous[1];

template <class... P> static inline auto dls_simt_address(int, void (*kernel)(P...))
{
    return kernel;
}

template <class A, class C> struct dls_simt_kernel {
    const char *name;
    A address;  // address(0) is the kernel's address, if that compiles
    C call;     // call(arguments...) calls it
};
template <class A, class C> dls_simt_kernel(const char *, A, C) -> dls_simt_kernel<A, C>;

#define DLS_SIMT_KERNEL(...)                                                      \
    dls_simt_kernel                                                               \
    {                                                                             \
        #__VA_ARGS__,                                                             \
        [&](auto zero) -> decltype(dls_simt_address(zero, __VA_ARGS__)) {         \
            return dls_simt_address(zero, __VA_ARGS__);                           \
        },                                                                        \
        [=](const auto &...arguments) DLS_UNPROBED { __VA_ARGS__(arguments...); } \
    }

template <class C, class... P> struct dls_simt_typed_launcher {
    dls_simt_grid grid;
    cudaStream_t stream;
    C call;
    void (*kernel)(P...);
    void operator()(P... arguments) const
    {
        dls_simt_enqueue(grid, stream, call, std::tuple<P...>(std::move(arguments)...));
    }
};
template <class C, class... P>
dls_simt_typed_launcher(dls_simt_grid, cudaStream_t, C, void (*)(P...))
    -> dls_simt_typed_launcher<C, P...>;

template <class C> struct dls_simt_deducing_launcher {
    dls_simt_grid grid;
    cudaStream_t stream;
    C call;
    template <class... P> void operator()(P... arguments) const
    {
        dls_simt_enqueue(grid, stream, call, std::tuple<P...>(std::move(arguments)...));
    }
};
template <class C>
dls_simt_deducing_launcher(dls_simt_grid, cudaStream_t, C)
    -> dls_simt_deducing_launcher<C>;

template <class A, class C>
static inline auto dls_simt_launch(dls_simt_kernel<A, C> kernel, dim3 grid, dim3 block,
                                   size_t shared = 0, cudaStream_t stream = nullptr,
                                   const char *file = __builtin_FILE(),
                                   int line = __builtin_LINE())
{
    dls_simt_grid g = {kernel.name, file, line, {grid.x, grid.y, grid.z},
                       {block.x, block.y, block.z}, shared, 0, dls_simt_anonymous,
                       0, nullptr, nullptr};
    if constexpr (std::is_invocable_v<A, int>) {
        g.kernel = reinterpret_cast<const void *>(kernel.address(0));
        return dls_simt_typed_launcher{g, stream, kernel.call, kernel.address(0)};
    } else
        return dls_simt_deducing_launcher{g, stream, kernel.call};
}
/* launch by a pointer */
template <class... P> struct dls_simt_named {
    const char *name;
    void (*kernel)(P...);
};
template <class... P>
dls_simt_named(const char *, void (*)(P...)) -> dls_simt_named<P...>;
#define DLS_SIMT_NAMED(...) dls_simt_named{#__VA_ARGS__, __VA_ARGS__}

template <class... P, size_t... I>
static inline cudaError_t dls_simt_launch_packed(dls_simt_grid g, cudaStream_t stream,
                                                 void (*kernel)(P...), void **arguments,
                                                 std::index_sequence<I...>)
{
    g.kernel = reinterpret_cast<const void *>(kernel);
    (void)arguments;
    return dls_simt_enqueue(g, stream, kernel,
                            std::tuple<P...>(*static_cast<P *>(arguments[I])...));
}

#define DLS_LAUNCH_BY_POINTER(function, cooperative)                              \
    template <class... P>                                                         \
    static inline cudaError_t function(                                           \
        dls_simt_named<P...> k, dim3 grid, dim3 block, void **arguments,          \
        size_t shared = 0, cudaStream_t stream = nullptr,                         \
        const char *file = __builtin_FILE(), int line = __builtin_LINE())         \
    {                                                                             \
        dls_simt_grid g = {k.name, file, line, {grid.x, grid.y, grid.z},          \
                           {block.x, block.y, block.z}, shared, 0, nullptr,       \
                           cooperative, nullptr, nullptr};                        \
        return dls_simt_launch_packed(g, stream, k.kernel, arguments,             \
                                      std::index_sequence_for<P...>());           \
    }
DLS_LAUNCH_BY_POINTER(cudaLaunchKernel, 0)
DLS_LAUNCH_BY_POINTER(cudaLaunchCooperativeKernel, 1)
#undef DLS_LAUNCH_BY_POINTER
/* copy to symbols */
template <class T>
static inline cudaError_t
cudaMemcpyToSymbolAsync(T &symbol, const void *from, size_t bytes, size_t offset,
                        cudaMemcpyKind kind, cudaStream_t stream = nullptr)
{
    cudaError_t error = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost
                            ? cudaErrorInvalidMemcpyDirection : cudaSuccess;
    if (error == cudaSuccess)
        error = dls_vgpu_symbol(&symbol, sizeof symbol, bytes, offset);
    char *to = (char *)&symbol + offset;
    return error ? error : cudaMemcpyAsync(to, from, bytes, kind, stream);
}

template <class T>
static inline cudaError_t
cudaMemcpyFromSymbolAsync(void *to, const T &symbol, size_t bytes, size_t offset,
                          cudaMemcpyKind kind, cudaStream_t stream = nullptr)
{
    cudaError_t error = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost
                            ? cudaErrorInvalidMemcpyDirection : cudaSuccess;
    if (error == cudaSuccess)
        error = dls_vgpu_symbol(&symbol, sizeof symbol, bytes, offset);
    const char *from = (const char *)&symbol + offset;
    return error ? error : cudaMemcpyAsync(to, from, bytes, kind, stream);
}

template <class T>
static inline cudaError_t cudaMemcpyToSymbol(T &symbol, const void *from, size_t bytes,
                                             size_t offset = 0,
                                             cudaMemcpyKind kind = cudaMemcpyHostToDevice)
{
    cudaError_t error = cudaMemcpyToSymbolAsync(symbol, from, bytes, offset, kind);
    return error || kind == cudaMemcpyDeviceToDevice ? error
                                                     : cudaStreamSynchronize(nullptr);
}

template <class T>
static inline cudaError_t
cudaMemcpyFromSymbol(void *to, const T &symbol, size_t bytes, size_t offset = 0,
                     cudaMemcpyKind kind = cudaMemcpyDeviceToHost)
{
    cudaError_t error = cudaMemcpyFromSymbolAsync(to, symbol, bytes, offset, kind);
    return error || kind == cudaMemcpyDeviceToDevice ? error
                                                     : cudaStreamSynchronize(nullptr);
}

template <class P, class T>
static inline cudaError_t cudaGetSymbolAddress(P **p, T &symbol)
{
    cudaError_t error = p ? dls_vgpu_symbol(&symbol, sizeof symbol, 0, 0)
                          : cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *p = (P *)(void *)&symbol;
    return error;
}

template <class T> static inline cudaError_t cudaGetSymbolSize(size_t *size, T &symbol)
{
    if (size == nullptr)
        return cudaErrorInvalidValue;
    *size = sizeof symbol;
    return cudaSuccess;
}

#include "vgpu_atomics.h"
#include "vgpu_math.h"
#include "vgpu_integer.h"
#include "vgpu_rounding.h"
#include "vgpu_warp.h"

#endif

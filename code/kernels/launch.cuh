/* code/kernels/launch.cuh: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* What every launcher needs: choosing the element type from the context, choosing between
 * the CUDA kernel and the host version, and the size of a grid. Included by .cu files
 * only.
 */
#ifndef DLS_KERNELS_LAUNCH_CUH
#define DLS_KERNELS_LAUNCH_CUH

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "base/status.h"
#include "tensor/accumulator.cuh"
#include "tensor/tensor.h"
#include "vgpu/gpu.h"

/* choose the type of a launch */
#define DLS_AS_TYPE(type, ...)                                                       \
    [&]() -> dls_status {                                                            \
        using real = type;                                                           \
        using acc [[maybe_unused]] = dls_acc<real>;                                  \
        return __VA_ARGS__;                                                          \
    }()
#define DLS_BY_TYPE(ctx, ...)                                                        \
    ((ctx)->dtype == DLS_F32   ? DLS_AS_TYPE(float, __VA_ARGS__)                     \
     : (ctx)->dtype == DLS_F64 ? DLS_AS_TYPE(double, __VA_ARGS__)                    \
                               : DLS_AS_TYPE(__nv_bfloat16, __VA_ARGS__))

/* run on the host when asked */
#ifdef __CUDACC__
#define DLS_RUN_ON_HOST(ctx, name, ...) ((void)0)
#define DLS_CHARGE_ON_HOST(ctx) ((void)0)
#else
#define DLS_RUN_ON_HOST(ctx, name, ...)                                              \
    do {                                                                             \
        if (!dls_gpu_use_host_kernels())                                             \
            break;                                                                   \
        if constexpr (std::is_same_v<real, float>)                                   \
            DLS_CUDA(dls_gpu_host_launch((ctx)->stream, name##_f32, __VA_ARGS__));   \
        else if constexpr (std::is_same_v<real, double>)                             \
            DLS_CUDA(dls_gpu_host_launch((ctx)->stream, name##_f64, __VA_ARGS__));   \
        else                                                                         \
            DLS_CUDA(dls_gpu_host_launch((ctx)->stream, name##_bf16, __VA_ARGS__));  \
        return DLS_OK;                                                               \
    } while (0)
/* charge for a kernel on the host */
#define DLS_CHARGE_ON_HOST(ctx)                                                      \
    do {                                                                             \
        dls_gpu_op empty_ = {};                                                      \
        empty_.planned = 1;                                                          \
        if (dls_gpu_use_host_kernels())                                              \
            DLS_CUDA(dls_gpu_enqueue((ctx)->stream, &empty_, nullptr));              \
    } while (0)
#endif

/* size a grid */
static inline unsigned dls_blocks(size_t n, size_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

static inline dls_status dls_launched(void)
{
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}

#endif

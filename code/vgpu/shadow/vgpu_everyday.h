/* code/vgpu/shadow/vgpu_everyday.h: from chapters/A-virtual-gpu-everyday.md. Edit the chapter, or edit here and run "make untangle". */
/* Calls that programs of courses and tutorials use beyond those of the book. */
#ifndef DLS_SHADOW_VGPU_EVERYDAY_H
#define DLS_SHADOW_VGPU_EVERYDAY_H

#include "cuda_runtime_api.h"

typedef enum cudaFuncCache {
    cudaFuncCachePreferNone, cudaFuncCachePreferShared, cudaFuncCachePreferL1,
    cudaFuncCachePreferEqual
} cudaFuncCache;

#ifdef __cplusplus
extern "C"
#endif
cudaError_t cudaOccupancyMaxPotentialBlockSizeOf(int *grid, int *block,
                                                 const void *kernel, size_t shared,
                                                 int most);

#ifdef __cplusplus
/* overload the everyday calls */
template <typename F> inline cudaError_t cudaFuncSetCacheConfig(F *, cudaFuncCache how)
{
    return (unsigned)how <= cudaFuncCachePreferEqual ? cudaSuccess
                                                     : cudaErrorInvalidValue;
}
template <typename... P>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(
    int *blocks, void (*kernel)(P...), int threads, size_t shared)
{
    return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks, reinterpret_cast<const void *>(kernel), threads, shared);
}
template <typename F>
inline cudaError_t cudaOccupancyMaxPotentialBlockSize(int *grid, int *block, F *kernel,
                                                      size_t shared = 0, int most = 0)
{
    return cudaOccupancyMaxPotentialBlockSizeOf(
        grid, block, reinterpret_cast<const void *>(kernel), shared, most);
}
#endif
#endif

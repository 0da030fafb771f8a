/* code/kernels/warp.cuh: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums and maxima over a warp and over a block. All lanes of the warp, all threads of the
 * block must call; all of them get the result. The order of the additions is fixed, so
 * the result is the same bits on every run. */
#ifndef DLS_KERNELS_WARP_CUH
#define DLS_KERNELS_WARP_CUH

/* reduce over a warp */
/* Of a warp, or of each 16, 8 or 4 lanes that follow each other. */
template <int lanes = 32, typename real>
__device__ inline real dls_warp_sum(real x)
{
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

template <int lanes = 32, typename real>
__device__ inline real dls_warp_max(real x)
{
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        real other = __shfl_xor_sync(0xffffffffu, x, distance);
        x = other > x ? other : x;
    }
    return x;
}

/* reduce over a block */
/* `partial` is shared memory, 32 elements. blockDim.x is a multiple of 32. */
template <typename real>
__device__ inline real dls_block_sum(real x, real *partial)
{
    x = dls_warp_sum(x);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : real(0);
    __syncthreads();  /* all have read before the next call may write */
    return dls_warp_sum(x);
}

template <typename real>
__device__ inline real dls_block_max(real x, real *partial)
{
    x = dls_warp_max(x);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = x;
    __syncthreads();
    x = partial[threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0];
    __syncthreads();
    return dls_warp_max(x);
}

#endif

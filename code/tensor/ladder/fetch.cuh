/* code/tensor/ladder/fetch.cuh: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Sixteen bytes of a row on their way to shared memory. */
#ifndef DLS_TENSOR_FETCH_CUH
#define DLS_TENSOR_FETCH_CUH

#include "tensor/ladder/quad.cuh"
#include "vgpu/ptx.cuh"

/* fetch sixteen bytes */
/* to[...] = X[r][c ...], 16 bytes of it, zeros outside; c is a multiple of 16 bytes.
 * Valid after dls_cp_async_commit, dls_cp_async_wait and a barrier. */
template <typename T>
static __device__ inline void fetch_16(T *to, const T *X, int rows, int columns, int r,
                                       int c)
{
    const int each = 16 / (int)sizeof(T);
    const T *x = X + (size_t)r * columns + c;
    if (r < rows && c < columns && columns % each == 0) {
        dls_cp_async_16(to, x);
        return;
    }
    for (int e = 0; e < each; e++)
        to[e] = r < rows && c + e < columns ? x[e] : T(0);
}

#endif

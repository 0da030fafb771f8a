/* code/tensor/ladder/ladder.cuh: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* What the kernels of the ladder share. Included by its .cu files only. */
#ifndef DLS_TENSOR_LADDER_CUH
#define DLS_TENSOR_LADDER_CUH

#include <cuda_runtime.h>

#include "tensor/ladder/ladder_internal.h"
#include "tensor/store.cuh"

/* count the tiles */
static inline unsigned tiles(int size, int tile)
{
    return (unsigned)((size - 1) / tile + 1);  // size is at least 1
}

/* read an element or zero */
/* X[r][c] of a packed (rows, columns) matrix, 0 outside. */
static __device__ inline float element_or_zero(const float *X, int rows, int columns,
                                               int r, int c)
{
    return r < rows && c < columns ? X[(size_t)r * columns + c] : 0.0f;
}

#endif

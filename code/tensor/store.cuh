/* code/tensor/store.cuh: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* How every product of the folder ends. Included by .cu files only. */
#ifndef DLS_TENSOR_STORE_CUH
#define DLS_TENSOR_STORE_CUH

#include <cuda_runtime.h>

/* store an element */
/* C[at] = value + beta C[at], without reading C when beta is 0. */
template <typename real>
static __host__ __device__ inline void store(real *C, size_t at, real value, real beta)
{
    C[at] = beta == 0 ? value : value + beta * C[at];
}

#endif

/* code/tensor/store.cuh: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* How every product of the folder ends. Included by .cu files only. */
#ifndef DLS_TENSOR_STORE_CUH
#define DLS_TENSOR_STORE_CUH

#include <cuda_runtime.h>

/* store an element */
/* C[at] = value + beta C[at], without reading C when beta is 0. */
template <typename result, typename acc>
static __host__ __device__ inline void store(result *C, size_t at, acc value, acc beta)
{
    C[at] = result(beta == 0 ? value : value + beta * acc(C[at]));
}

#endif

/* code/kernels/dropout.cuh: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* The mask of dropout for a warp. Included by .cu files only. */
#ifndef DLS_KERNELS_DROPOUT_CUH
#define DLS_KERNELS_DROPOUT_CUH

#include "kernels/dropout.h"

/* share the mask in a warp */
/* The mask of the 128 elements from global index 4 * quad: bit i of lane l's result is
 * that of element 32 i + l. All lanes call. */
__device__ inline unsigned dls_dropout_warp(const dls_dropout_gate *gate, uint64_t quad)
{
    int lane = threadIdx.x % 32;
    unsigned own = dls_dropout_keeps4(gate, quad + lane), bits = 0;
    for (int i = 0; i < 4; i++) {
        unsigned of_quad = __shfl_sync(0xffffffffu, own, 8 * i + lane / 4);
        bits |= (of_quad >> lane % 4 & 1) << i;
    }
    return bits;
}

#endif

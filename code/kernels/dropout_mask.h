/* code/kernels/dropout_mask.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* The mask of dropout for host kernels: 64 elements at a time, in vectors. */
#ifndef DLS_KERNELS_DROPOUT_MASK_H
#define DLS_KERNELS_DROPOUT_MASK_H

#include "kernels/dropout.h"

/* draw sixty four masks */
/* keep[i] = 1 when the element with global index 4 * quad + i is kept. */
static inline void dls_dropout_keeps64(const dls_dropout_gate *gate, uint64_t quad,
                                       unsigned char keep[64])
{
    unsigned bits[16];
    #pragma omp simd
    for (int q = 0; q < 16; q++)
        bits[q] = dls_dropout_keeps4(gate, quad + (uint64_t)q);
    for (int q = 0; q < 16; q++)
        for (int i = 0; i < 4; i++)
            keep[4 * q + i] = bits[q] >> i & 1;
}

#endif

/* code/kernels/dropout_host.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Dropout in plain C: the mask of 64 elements, then the 64 elements. */
#include <stddef.h>

#include "kernels/dropout_mask.h"
#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/dropout_host.h"

/* drop elements on the host */
void DLS_HOST_NAME(dls_dropout_apply)(real *out, const real *x, int N, int C,
                                      uint64_t first, uint64_t row,
                                      dls_dropout_gate gate)
{
    const acc scale = (acc)gate.scale;
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        unsigned char keep[64];
        uint64_t start = first + n * row;
        const real *from = x + n * C;
        real *to = out + n * C;
        for (int base = -(int)(start % 4); base < C; base += 64) {
            int begin = base < 0 ? 0 : base, end = C - base < 64 ? C : base + 64;
            dls_dropout_keeps64(&gate, (start + (uint64_t)base) / 4, keep);
            #pragma omp simd
            for (int c = begin; c < end; c++)
                to[c] = narrow(keep[c - base] ? widen(from[c]) * scale : 0);
        }
    }
}

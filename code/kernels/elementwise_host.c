/* code/kernels/elementwise_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Elementwise sums and scales in plain C. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/elementwise_host.h"

/* add and scale on the host */
void DLS_HOST_NAME(dls_add)(real *out, const real *a, const real *b, size_t n)
{
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        #pragma omp simd
        for (size_t i = from; i < to; i++)
            out[i] = narrow(widen(a[i]) + widen(b[i]));
    }
}

void DLS_HOST_NAME(dls_scale)(real *x, acc alpha, size_t n)
{
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        #pragma omp simd
        for (size_t i = from; i < to; i++)
            x[i] = narrow(alpha * widen(x[i]));
    }
}

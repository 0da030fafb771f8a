/* code/kernels/elementwise_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Elementwise sums and scales in plain C. */
#include <stddef.h>

#include "kernels/real.h"

#include "kernels/elementwise_host.h"

/* add and scale on the host */
void DLS_HOST_NAME(dls_add)(real *out, const real *a, const real *b, size_t n)
{
    #pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = narrow(widen(a[i]) + widen(b[i]));
}

void DLS_HOST_NAME(dls_scale)(real *x, acc alpha, size_t n)
{
    #pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = narrow(alpha * widen(x[i]));
}

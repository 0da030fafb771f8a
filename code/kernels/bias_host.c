/* code/kernels/bias_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The bias in plain C: columns vectorised, four rows at a time for the gradient. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/bias_host.h"

void DLS_HOST_NAME(dls_bias_add)(real *restrict x, const real *restrict bias, int N,
                                 int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        #pragma omp simd
        for (int c = 0; c < C; c++)
            x[n * C + c] = narrow(widen(x[n * C + c]) + widen(bias[c]));
    }
}

/* sum bias gradients four rows at a time */
/* Of the columns from .. to - 1. */
static void sum_columns(acc *restrict dbias, const real *restrict dout, int N, int C,
                        int from, int to)
{
    int n = 0;
    for (; n + 4 <= N; n += 4) {
        const real *a = dout + (size_t)n * C, *b = a + C, *c = b + C, *d = c + C;
        #pragma omp simd
        for (int i = from; i < to; i++)
            dbias[i] += (widen(a[i]) + widen(b[i])) + (widen(c[i]) + widen(d[i]));
    }
    for (; n < N; n++) {
        const real *a = dout + (size_t)n * C;
        #pragma omp simd
        for (int i = from; i < to; i++)
            dbias[i] += widen(a[i]);
    }
}

void DLS_HOST_NAME(dls_bias_backward)(acc *restrict dbias, const real *restrict dout,
                                      int N, int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (int from = 0; from < C; from += DLS_COLUMNS)
        sum_columns(dbias, dout, N, C, from, dls_columns_end(from, C));
}

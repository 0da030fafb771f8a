/* code/kernels/rmsnorm_host.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* RMSNorm in plain C. A row stays in the first-level cache between its two passes. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real_math.h"
#include "kernels/rmsnorm.h"

#include "kernels/rmsnorm_host.h"

/* normalise by the mean square on the host */
void DLS_HOST_NAME(dls_rmsnorm_forward)(real *out, acc *rstd, const real *x,
                                        const real *weight, int N, int C, acc epsilon)
{
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C;
        real *y = out + n * C;
        acc squares = 0;
        #pragma omp simd reduction(+ : squares)
        for (int c = 0; c < C; c++)
            squares += widen(row[c]) * widen(row[c]);
        acc r = 1 / acc_sqrt(squares / C + epsilon);
        #pragma omp simd
        for (int c = 0; c < C; c++)
            y[c] = narrow(widen(row[c]) * r * widen(weight[c]));
        rstd[n] = r;
    }
}

/* pass the gradient through on the host */
void DLS_HOST_NAME(dls_rmsnorm_backward_input)(real *dx, const real *dout, const real *x,
                                               const real *weight, const acc *rstd, int N,
                                               int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C, *drow = dout + n * C;
        real *to = dx + n * C;
        acc r = rstd[n], product = 0;
        #pragma omp simd reduction(+ : product)
        for (int c = 0; c < C; c++)
            product += widen(drow[c]) * widen(weight[c]) * widen(row[c]) * r;
        product /= C;
        #pragma omp simd
        for (int c = 0; c < C; c++) {
            acc g = widen(drow[c]) * widen(weight[c]);
            to[c] = narrow(r * (g - widen(row[c]) * r * product));
        }
    }
}

/* Of the columns from .. to - 1. */
static void sum_columns(acc *restrict dweight, const real *dout, const real *x,
                        const acc *rstd, int N, int C, int from, int to)
{
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C, *drow = dout + n * C;
        acc r = rstd[n];
        #pragma omp simd
        for (int c = from; c < to; c++)
            dweight[c] += widen(drow[c]) * (widen(row[c]) * r);
    }
}

void DLS_HOST_NAME(dls_rmsnorm_backward_weight)(acc *restrict dweight, const real *dout,
                                                const real *x, const acc *rstd, int N,
                                                int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (int from = 0; from < C; from += DLS_COLUMNS)
        sum_columns(dweight, dout, x, rstd, N, C, from, dls_columns_end(from, C));
}

/* code/kernels/layernorm_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Layer normalisation in plain C. A row of some hundred elements stays in the first-level
 * cache, so the two passes over it cost one read of memory. */
#include <stddef.h>

#include "kernels/layernorm.h"
#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/layernorm_host.h"

/* normalise rows on the host */
void DLS_HOST_NAME(dls_layernorm_forward)(real *out, acc *mean, acc *rstd,
                                          const real *x, const real *weight,
                                          const real *bias, int N, int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C;
        real *y = out + n * C;
        acc sum = 0, squares = 0;
        /* find mean and rstd on the host */
        #pragma omp simd reduction(+ : sum)
        for (int c = 0; c < C; c++)
            sum += widen(row[c]);
        acc m = sum / C;
        #pragma omp simd reduction(+ : squares)
        for (int c = 0; c < C; c++)
            squares += (widen(row[c]) - m) * (widen(row[c]) - m);
        acc r = 1 / acc_sqrt(squares / C + (acc)DLS_LAYERNORM_EPSILON);
        #pragma omp simd
        for (int c = 0; c < C; c++)
            y[c] = narrow((widen(row[c]) - m) * r * widen(weight[c]) + widen(bias[c]));
        mean[n] = m;
        rstd[n] = r;
    }
}

/* pass the gradient through rows on the host */
void DLS_HOST_NAME(dls_layernorm_backward_input)(real *dx, const real *dout,
                                                 const real *x, const real *weight,
                                                 const acc *mean, const acc *rstd,
                                                 int N, int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C, *drow = dout + n * C;
        real *to = dx + n * C;
        acc m = mean[n], r = rstd[n], sum = 0, product = 0;
        #pragma omp simd reduction(+ : sum, product)
        for (int c = 0; c < C; c++) {
            acc g = widen(drow[c]) * widen(weight[c]);
            sum += g;
            product += g * (widen(row[c]) - m) * r;
        }
        sum /= C;
        product /= C;
        #pragma omp simd
        for (int c = 0; c < C; c++) {
            acc xhat = (widen(row[c]) - m) * r, g = widen(drow[c]) * widen(weight[c]);
            to[c] = narrow(r * (g - sum - xhat * product));
        }
    }
}

/* sum weight gradients on the host */
/* Of the columns from .. to - 1. */
static void sum_columns(acc *restrict dweight, acc *restrict dbias, const real *dout,
                        const real *x, const acc *mean, const acc *rstd, int N, int C,
                        int from, int to)
{
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *row = x + n * C, *drow = dout + n * C;
        acc m = mean[n], r = rstd[n];
        #pragma omp simd
        for (int c = from; c < to; c++) {
            dweight[c] += widen(drow[c]) * ((widen(row[c]) - m) * r);
            dbias[c] += widen(drow[c]);
        }
    }
}

void DLS_HOST_NAME(dls_layernorm_backward_weight)(acc *restrict dweight,
                                                  acc *restrict dbias, const real *dout,
                                                  const real *x, const acc *mean,
                                                  const acc *rstd, int N, int C)
{
    DLS_PARALLEL((size_t)N * C)
    for (int from = 0; from < C; from += DLS_COLUMNS)
        sum_columns(dweight, dbias, dout, x, mean, rstd, N, C, from,
                    dls_columns_end(from, C));
}

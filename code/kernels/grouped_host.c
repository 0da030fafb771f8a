/* code/kernels/grouped_host.c: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Grouped products in plain C, a row of the result at a time. */
#include <stddef.h>

#include "kernels/grouped_internal.h"
#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/grouped_host.h"

/* multiply rows on the host */
static void multiply_row(real *y, const real *x, const real *W, int turned, int N, int K)
{
    enum { STRIP = 128 };
    for (int from = 0; from < N; from += STRIP) {
        int width = N - from < STRIP ? N - from : STRIP;
        acc sum[STRIP] = {0};
        for (int k = 0; k < K; k++) {
            acc a = widen(x[k]);
            for (int n = 0; n < width; n++)
                sum[n] += a * widen(turned ? W[(size_t)(from + n) * K + k]
                                           : W[(size_t)k * N + from + n]);
        }
        for (int n = 0; n < width; n++)
            y[from + n] = narrow(sum[n]);
    }
}

void DLS_HOST_NAME(dls_grouped_rows)(real *y, const real *x, dls_group_table table,
                                     int turned, int N, int K)
{
    for (int g = 0; g < table.groups; g++) {
        DLS_PARALLEL((size_t)table.count[g] * N * K)
        for (int r = table.begin[g]; r < table.begin[g] + table.count[g]; r++)
            multiply_row(y + (size_t)r * N, x + (size_t)r * K, table.weight[g], turned, N,
                         K);
    }
}

/* multiply weights on the host */
/* Row n of a group's gradient: products of all its rows' element n. */
static void gather_weight_row(acc *out, const real *y, const real *x,
                              const dls_group_table *t, int g, int n, int N, int K)
{
    for (int k = 0; k < K && !t->keep[g]; k++)
        out[k] = 0;
    for (int s = t->from[g]; s < t->from[g + 1]; s++)
        for (size_t r = t->begin[s]; r < (size_t)t->begin[s] + t->count[s]; r++) {
            acc a = widen(y[r * N + n]);
            #pragma omp simd
            for (int k = 0; k < K; k++)
                out[k] += a * widen(x[r * K + k]);
        }
}

void DLS_HOST_NAME(dls_grouped_weights)(const real *y, const real *x,
                                        dls_group_table table, int N, int K)
{
    for (int g = 0; g < table.groups; g++) {
        acc *out = table.weight[g];
        DLS_PARALLEL((size_t)N * K * 8)
        for (int n = 0; n < N; n++)
            gather_weight_row(out + (size_t)n * K, y, x, &table, g, n, N, K);
    }
}

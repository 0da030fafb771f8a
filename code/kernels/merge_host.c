/* code/kernels/merge_host.c: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Merges in plain C. */
#include <math.h>

#include "kernels/merge.h"
#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/merge_host.h"

/* merge a row on the host */
static acc larger(acc a, acc b) { return b > a ? b : a; }

/* A head of a row; returns its new total. */
static acc merge_head(acc *sum, acc total, const real *block, acc lse, int D)
{
    if (lse == -INFINITY)
        return total;
    acc small = (acc)exp(-fabs((double)(lse - total)));
    acc w = total == -INFINITY ? 1 : (lse > total ? 1 : small) / (1 + small);
    #pragma omp simd
    for (int d = 0; d < D; d++)
        sum[d] += w * (widen(block[d]) - sum[d]);
    return total == -INFINITY ? lse : larger(total, lse) + (acc)log1p((double)small);
}

static void take_head(acc *sum, const real *block, int add, int D)
{
    #pragma omp simd
    for (int d = 0; d < D; d++)
        sum[d] = (add ? sum[d] : 0) + widen(block[d]);
}

/* merge on the host */
void DLS_HOST_NAME(dls_merge_outputs)(dls_merge_rows rows, int H, int D, acc *sum,
                                      acc *total, const real *block, const acc *lse,
                                      int begin)
{
    DLS_PARALLEL((size_t)rows.B * rows.most * H * D)
    for (int n = 0; n < rows.B * rows.most; n++) {
        int b = n / rows.most, i = n % rows.most;
        ptrdiff_t row = dls_merge_row(&rows, b, i);
        for (int h = 0; row >= 0 && h < H; h++) {
            /* merge or take a head */
            size_t at = (row * H + h) * D;
            acc now = lse ? lse[((size_t)b * H + h) * rows.most + i] : 0;
            if (begin || !lse)
                take_head(sum + at, block + at, !begin, D);
            if (lse)
                total[row * H + h] =
                    begin ? now
                          : merge_head(sum + at, total[row * H + h], block + at, now, D);
        }
    }
}

void DLS_HOST_NAME(dls_merge_totals)(dls_merge_rows rows, int H, acc *lse,
                                     const acc *total)
{
    for (int b = 0; b < rows.B; b++)
        for (int h = 0; h < H; h++)
            for (int i = 0; i < rows.most; i++) {
                ptrdiff_t row = dls_merge_row(&rows, b, i);
                lse[((size_t)b * H + h) * rows.most + i] =
                    row < 0 ? -INFINITY : total[row * H + h];
            }
}

/* add rows on the host */
void DLS_HOST_NAME(dls_merge_add)(dls_merge_rows rows, int C, acc *sum, size_t sum_row,
                                  const real *x, size_t x_row, int begin)
{
    DLS_PARALLEL((size_t)rows.B * rows.most * C)
    for (int n = 0; n < rows.B * rows.most; n++) {
        ptrdiff_t row = dls_merge_row(&rows, n / rows.most, n % rows.most);
        if (row >= 0)
            take_head(sum + row * sum_row, x + row * x_row, !begin, C);
    }
}

void DLS_HOST_NAME(dls_merge_store)(int N, int C, real *out, size_t out_row,
                                    const acc *sum, size_t sum_row)
{
    DLS_PARALLEL((size_t)N * C)
    for (int n = 0; n < N; n++)
        #pragma omp simd
        for (int c = 0; c < C; c++)
            out[n * out_row + c] = narrow(sum[n * sum_row + c]);
}

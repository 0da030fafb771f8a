/* code/kernels/permute_host.c: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The permutation in plain C, a token at a time. */
#include <stddef.h>
#include <string.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/permute_host.h"

/* permute on the host */
void DLS_HOST_NAME(dls_permute)(real *xs, const real *x, const int *place, int n, int k,
                                int C)
{
    DLS_PARALLEL((size_t)n * k * C)
    for (size_t t = 0; t < (size_t)n; t++)
        for (int j = 0; j < k; j++) {
            int to = place[t * k + j];
            if (to >= 0)
                memcpy(xs + (size_t)to * C, x + t * C, (size_t)C * sizeof *x);
        }
}

/* unpermute on the host */
static void gather_token(real *y, const real *base, const real *ys, const acc *weight,
                         const int *place, int k, int C)
{
    enum { STRIP = 256 };
    for (int from = 0; from < C; from += STRIP) {
        int width = C - from < STRIP ? C - from : STRIP;
        acc sum[STRIP];
        for (int c = 0; c < width; c++)
            sum[c] = base ? widen(base[from + c]) : 0;
        /* add the rows of a token */
        for (int j = 0; j < k; j++) {
            const real *row = ys + (size_t)place[j] * C + from;
            acc w = weight ? weight[j] : 1;
            if (place[j] < 0)
                continue;
            #pragma omp simd
            for (int c = 0; c < width; c++)
                sum[c] += w * widen(row[c]);
        }
        for (int c = 0; c < width; c++)
            y[from + c] = narrow(sum[c]);
    }
}

void DLS_HOST_NAME(dls_unpermute)(real *y, const real *base, const real *ys,
                                  const acc *weight, const int *place, int n, int k,
                                  int C)
{
    DLS_PARALLEL((size_t)n * k * C)
    for (size_t t = 0; t < (size_t)n; t++)
        gather_token(y + t * C, base ? base + t * C : NULL, ys,
                     weight ? weight + t * k : NULL, place + t * k, k, C);
}

/* go back through the unpermutation on the host */
static acc scale_and_dot(real *dys, const real *dy, const real *ys, acc w, int C)
{
    acc sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int c = 0; c < C; c++) {
        acc d = widen(dy[c]);
        sum += d * widen(ys[c]);
        dys[c] = narrow(w * d);
    }
    return sum;
}

void DLS_HOST_NAME(dls_unpermute_backward)(real *dys, acc *dweight, const real *dy,
                                           const real *ys, const acc *weight,
                                           const int *place, int n, int k, int C)
{
    DLS_PARALLEL((size_t)n * k * C)
    for (size_t t = 0; t < (size_t)n; t++)
        for (size_t i = t * k; i < (t + 1) * k; i++) {
            size_t at = (size_t)(place[i] < 0 ? 0 : place[i]) * C;
            dweight[i] = place[i] < 0 ? 0
                : scale_and_dot(dys + at, dy + t * C, ys + at, weight[i], C);
        }
}

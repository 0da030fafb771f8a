/* code/kernels/reduce_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums over whole arrays in plain C, accumulated in double. */
#include <math.h>
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/reduce_host.h"

/* Sums are taken in this many parts, added in order, whatever the number of threads. */
enum { PARTS = 64 };

static size_t part_begin(int i, size_t n)
{
    return n / PARTS * i + (n % PARTS < (size_t)i ? n % PARTS : (size_t)i);
}

/* sum on the host */
static double sum_of(const real *x, size_t n, int squared)
{
    double part[PARTS], all = 0;
    DLS_PARALLEL(n)
    for (int k = 0; k < PARTS; k++) {
        double sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (size_t i = part_begin(k, n); i < part_begin(k + 1, n); i++)
            sum += (double)widen(x[i]) * (squared ? (double)widen(x[i]) : 1);
        part[k] = sum;
    }
    for (int k = 0; k < PARTS; k++)
        all += part[k];
    return all;
}

void DLS_HOST_NAME(dls_sum)(acc *out, const real *x, size_t n)
{
    *out = (acc)sum_of(x, n, 0);
}

void DLS_HOST_NAME(dls_square_sum)(double *out, const real *x, size_t n)
{
    *out += sum_of(x, n, 1);
}

void DLS_HOST_NAME(dls_clip_coefficient)(double *coef, double *norm,
                                         const double *square_sum, double max_norm)
{
    double length = sqrt(*square_sum);
    *norm = length;
    if (!isfinite(length))
        *coef = 0;
    else
        *coef = max_norm > 0 && length > max_norm ? max_norm / length : 1;
}

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

static double total_of(const double *part)
{
    double sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += part[i];
    return sum;
}

void DLS_HOST_NAME(dls_sum)(acc *out, const real *x, size_t n)
{
    double part[PARTS];
    DLS_PARALLEL(n)
    for (int k = 0; k < PARTS; k++) {
        double sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (size_t i = part_begin(k, n); i < part_begin(k + 1, n); i++)
            sum += (double)widen(x[i]);
        part[k] = sum;
    }
    *out = (acc)total_of(part);
}

/* sum squares on the host */
void DLS_HOST_NAME(dls_square_sum)(double *out, const real *x, size_t n)
{
    double part[PARTS];
    DLS_PARALLEL(n)
    for (int k = 0; k < PARTS; k++) {
        double sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (size_t i = part_begin(k, n); i < part_begin(k + 1, n); i++)
            sum += (double)widen(x[i]) * (double)widen(x[i]);
        part[k] = sum;
    }
    *out += total_of(part);
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

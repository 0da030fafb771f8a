/* code/kernels/reduce_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums over whole arrays in plain C, accumulated in double. */
#include <math.h>
#include <stddef.h>

#include "kernels/real.h"

#include "kernels/reduce_host.h"

void DLS_HOST_NAME(dls_sum)(acc *out, const real *x, size_t n)
{
    double sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)widen(x[i]);
    *out = (acc)sum;
}

/* sum squares on the host */
void DLS_HOST_NAME(dls_square_sum)(double *out, const real *x, size_t n)
{
    double sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)widen(x[i]) * (double)widen(x[i]);
    *out += sum;
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

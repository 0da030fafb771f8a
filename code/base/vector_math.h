/* code/base/vector_math.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Exponentials that a compiler can vectorise: no branch, no table, no call.
 *
 *     x = n ln 2 + r,  |r| <= ln 2 / 2,  exp(x) = 2^n exp(r)
 *
 * exp(r) is a Taylor polynomial, 2^n is built from bits. Error below 1.1 ulp where the
 * result is a normal number. Below 2^-125 (f32) and 2^-1021 (f64) the result is exactly
 * 0; above the largest number it is infinity; NaN stays NaN. libm's expf was tried first:
 * a loop that calls it is not vectorised and took eight times as long.
 */
#ifndef DLS_BASE_VECTOR_MATH_H
#define DLS_BASE_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* compute exp of a float */
static inline float dls_exp_f32(float x)
{
    const float shift = 12582912.0f;           /* 1.5 * 2^23: adding it rounds */
    float shifted = x * 1.44269504f + shift;   /* log2(e) */
    float n = shifted - shift;
    float r = x - n * 0.693145752f;            /* ln 2 in two parts */
    r = r - n * 1.42860677e-6f;
    /* evaluate the float polynomial */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r;                             /* exp(r) - 1 */
    /* scale the float by a power of two */
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);          /* n sits in the low bits */
    bits = (bits + 126u) << 23;                    /* 2^(n-1): n may be 128 */
    float half;
    memcpy(&half, &bits, sizeof half);
    float y = (p * half + half) * 2.0f;
    y = x < -86.6f ? 0.0f : y;
    return x > 88.72283f ? INFINITY : y;
}

/* compute exp of a double */
static inline double dls_exp_f64(double x)
{
    const double shift = 6755399441055744.0;   /* 1.5 * 2^52 */
    double shifted = x * 1.4426950408889634 + shift;
    double n = shifted - shift;
    double r = x - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    /* evaluate the double polynomial */
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r * r + r;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1022u) << 52;
    double half;
    memcpy(&half, &bits, sizeof half);
    double y = (p * half + half) * 2.0;
    y = x < -707.7 ? 0.0 : y;
    return x > 709.782712893384 ? INFINITY : y;
}

#endif

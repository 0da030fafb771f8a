/* code/vgpu/shadow/vgpu_float.h: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* The short floating-point formats, in integer arithmetic: dls_encode() rounds a double
 * to a pattern, dls_decode() gives a pattern's value. Magnitudes are ordered like their
 * patterns, so that "the next number" is the pattern plus one, through every exponent
 * and past the largest. C and C++; the types are in cuda_bf16.h, cuda_fp16.h and
 * cuda_fp8.h. */
#ifndef DLS_SHADOW_VGPU_FLOAT_H
#define DLS_SHADOW_VGPU_FLOAT_H

#include <stdint.h>
#include <string.h>

/* describe a short format */
typedef struct dls_format {
    int exponent_bits, mantissa_bits;
    unsigned largest; // pattern of the largest finite number
} dls_format;

typedef enum dls_rounding {
    DLS_ROUND_NEAREST, DLS_ROUND_ZERO, DLS_ROUND_DOWN, DLS_ROUND_UP
} dls_rounding;

#define DLS_SHORT_FORMAT static const dls_format __attribute__((unused))
DLS_SHORT_FORMAT DLS_FORMAT_BF16 = {8, 7, 0x7f7f};
DLS_SHORT_FORMAT DLS_FORMAT_FP16 = {5, 10, 0x7bff};
DLS_SHORT_FORMAT DLS_FORMAT_E4M3 = {4, 3, 0x7e};
DLS_SHORT_FORMAT DLS_FORMAT_E5M2 = {5, 2, 0x7b};

/* round a double to a short format */
/* The dropped digits decide: 1 when the magnitude goes up to the next number. */
static inline unsigned dls_round_up(uint64_t kept, uint64_t rest, uint64_t half,
                                    unsigned negative, dls_rounding mode)
{
    switch (mode) {
    case DLS_ROUND_ZERO: return 0;
    case DLS_ROUND_DOWN: return negative && rest;
    case DLS_ROUND_UP: return !negative && rest;
    default: return rest > half || (rest == half && (kept & 1));
    }
}

/* The pattern nearest to x, sign included, rounded once. NaN gives the canonical NaN of
 * the hardware: all ones without a sign (0x7fff, 0x7f). */
static inline unsigned dls_encode(double x, dls_format f, dls_rounding mode)
{
    const int m = f.mantissa_bits, bias = (1 << (f.exponent_bits - 1)) - 1;
    const uint64_t infinity = 0x7ffull << 52, one = 1;
    uint64_t bits, magnitude;
    memcpy(&bits, &x, sizeof bits);
    magnitude = bits & ~(one << 63);
    unsigned negative = (unsigned)(bits >> 63), pattern = 0;
    unsigned sign = negative << (f.exponent_bits + m);
    if (magnitude > infinity)
        return (1u << (f.exponent_bits + m)) - 1;
    if (magnitude == 0)
        return sign;
    /* keep the leading digits */
    int exponent = (int)(magnitude >> 52) - 1023 + bias, drop = 52 - m;
    uint64_t digits = (magnitude & ((one << 52) - 1)) | one << 52;
    if (exponent < 1)
        drop += 1 - exponent; // subnormal: fewer digits
    else
        pattern = (unsigned)(exponent - 1) << m;
    if (drop > 54)
        drop = 54;
    uint64_t kept = digits >> drop, rest = digits & ((one << drop) - 1);
    pattern += (unsigned)kept +
               dls_round_up(kept, rest, one << (drop - 1), negative, mode);
    unsigned up = dls_round_up(1, 1, 0, negative, mode);
    if (magnitude == infinity || (pattern > f.largest && up))
        return sign | (f.largest + 1);
    return sign | (pattern > f.largest ? f.largest : pattern);
}

/* read a short format */
/* The value of a pattern; exact. A NaN keeps its mantissa. */
static inline float dls_decode(unsigned pattern, dls_format f)
{
    const int width = f.exponent_bits + f.mantissa_bits, shift = 23 - f.mantissa_bits;
    const int bias = (1 << (f.exponent_bits - 1)) - 1;
    uint32_t magnitude = pattern & ((1u << width) - 1);
    uint32_t sign = (uint32_t)(pattern >> width & 1) << 31;
    uint32_t bits = sign | magnitude << shift, factor = (uint32_t)(254 - bias) << 23;
    float value, scale;
    if (magnitude > f.largest)
        bits |= 0x7f800000u;
    memcpy(&value, &bits, sizeof value);
    memcpy(&scale, &factor, sizeof scale); // 2^(127 - bias)
    return magnitude > f.largest ? value : value * scale;
}

/* add with rounding to odd */
/* x + y rounded to odd, so that a second rounding to ≤ 51 digits is right. */
static inline double dls_add_odd(double x, double y)
{
    double s = x + y, part = s - x, error = (x - (s - part)) + (y - part);
    int64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (s - s != 0 || error == 0 || (bits & 1)) // not finite, exact, or already odd
        return s;
    bits += (s > 0) == (error > 0) ? 1 : -1; // towards the error
    memcpy(&s, &bits, sizeof s);
    return s;
}

#endif

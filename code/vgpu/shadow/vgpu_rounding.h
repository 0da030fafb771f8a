/* code/vgpu/shadow/vgpu_rounding.h: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA's arithmetic and conversions with a rounding mode in the name. */
#ifndef DLS_SHADOW_VGPU_ROUNDING_H
#define DLS_SHADOW_VGPU_ROUNDING_H

#include "vgpu_rounding_ops.h"

/* name the rounded operations */
#define DLS_ROUNDED(T, call, prefix, fma, low, UP)                                \
    inline T __##prefix##add_##low(T a, T b) noexcept                             \
    {                                                                             \
        return call(DLS_ROUNDED_ADD, DLS_MODE_##UP, a, b, 0);                     \
    }                                                                             \
    inline T __##prefix##sub_##low(T a, T b) noexcept                             \
    {                                                                             \
        return call(DLS_ROUNDED_SUB, DLS_MODE_##UP, a, b, 0);                     \
    }                                                                             \
    inline T __##prefix##mul_##low(T a, T b) noexcept                             \
    {                                                                             \
        return call(DLS_ROUNDED_MUL, DLS_MODE_##UP, a, b, 0);                     \
    }                                                                             \
    inline T __##prefix##div_##low(T a, T b) noexcept                             \
    {                                                                             \
        return call(DLS_ROUNDED_DIV, DLS_MODE_##UP, a, b, 0);                     \
    }                                                                             \
    inline T __##fma##_##low(T a, T b, T c) noexcept                              \
    {                                                                             \
        return call(DLS_ROUNDED_FMA, DLS_MODE_##UP, a, b, c);                     \
    }                                                                             \
    inline T __##prefix##sqrt_##low(T a) noexcept                                 \
    {                                                                             \
        return call(DLS_ROUNDED_SQRT, DLS_MODE_##UP, a, 0, 0);                    \
    }                                                                             \
    inline T __##prefix##rcp_##low(T a) noexcept                                  \
    {                                                                             \
        return call(DLS_ROUNDED_DIV, DLS_MODE_##UP, 1, a, 0);                     \
    }
#define DLS_ROUNDED_ALL(low, UP)                                                  \
    DLS_ROUNDED(float, dls_rounded_float, f, fmaf, low, UP)                       \
    DLS_ROUNDED(double, dls_rounded_double, d, fma, low, UP)
DLS_ROUNDED_ALL(rz, RZ)
DLS_ROUNDED_ALL(ru, RU)
DLS_ROUNDED_ALL(rd, RD)
#undef DLS_ROUNDED_ALL
#undef DLS_ROUNDED
/* name the conversions to floats */
#define DLS_TO_FLOATS(low, UP)                                                    \
    static inline float __double2float_##low(double x)                            \
    {                                                                             \
        return dls_float_of_double(x, DLS_MODE_##UP);                             \
    }                                                                             \
    static inline float __int2float_##low(int x)                                  \
    {                                                                             \
        return dls_float_of_integer(x, DLS_MODE_##UP);                            \
    }                                                                             \
    static inline float __uint2float_##low(unsigned x)                            \
    {                                                                             \
        return dls_float_of_unsigned(x, DLS_MODE_##UP);                           \
    }                                                                             \
    static inline float __ll2float_##low(long long x)                             \
    {                                                                             \
        return dls_float_of_integer(x, DLS_MODE_##UP);                            \
    }                                                                             \
    static inline float __ull2float_##low(dls_ull x)                              \
    {                                                                             \
        return dls_float_of_unsigned(x, DLS_MODE_##UP);                           \
    }                                                                             \
    static inline double __ll2double_##low(long long x)                           \
    {                                                                             \
        return dls_double_of_integer(x, DLS_MODE_##UP);                           \
    }                                                                             \
    static inline double __ull2double_##low(dls_ull x)                            \
    {                                                                             \
        return dls_double_of_unsigned(x, DLS_MODE_##UP);                          \
    }
DLS_TO_FLOATS(rn, RN)
DLS_TO_FLOATS(rz, RZ)
DLS_TO_FLOATS(ru, RU)
DLS_TO_FLOATS(rd, RD)
#undef DLS_TO_FLOATS
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
/* name the conversions to integers */
template <class I> static inline I dls_saturate(double whole)
{
    constexpr I least = std::is_signed_v<I> ? (I)((I)1 << (sizeof(I) * 8 - 1)) : (I)0;
    constexpr I most = (I)~least;
    if (whole != whole)
        return sizeof(I) == 8 ? (I)(1ull << 63) : (I)0;
    if (whole <= (double)least)
        return least;
    return whole >= (double)most ? most : (I)whole;
}

#define DLS_TO_INTEGER(F, I, name, low, whole)                                    \
    static inline I __##name##_##low(F x) { return dls_saturate<I>(whole((double)x)); }
#define DLS_TO_INTEGERS(low, whole)                                               \
    DLS_TO_INTEGER(float, int, float2int, low, whole)                             \
    DLS_TO_INTEGER(float, unsigned, float2uint, low, whole)                       \
    DLS_TO_INTEGER(float, long long, float2ll, low, whole)                        \
    DLS_TO_INTEGER(float, dls_ull, float2ull, low, whole)                         \
    DLS_TO_INTEGER(double, int, double2int, low, whole)                           \
    DLS_TO_INTEGER(double, unsigned, double2uint, low, whole)                     \
    DLS_TO_INTEGER(double, long long, double2ll, low, whole)                      \
    DLS_TO_INTEGER(double, dls_ull, double2ull, low, whole)
DLS_TO_INTEGERS(rn, rint)
DLS_TO_INTEGERS(rz, trunc)
DLS_TO_INTEGERS(ru, ceil)
DLS_TO_INTEGERS(rd, floor)
#undef DLS_TO_INTEGERS
#undef DLS_TO_INTEGER
/* take doubles apart */
static inline int __double2hiint(double x)
{
    return (int)(__double_as_longlong(x) >> 32);
}
static inline int __double2loint(double x)
{
    return (int)__double_as_longlong(x);
}
static inline double __hiloint2double(int high, int low)
{
    return __longlong_as_double((long long)high << 32 | (unsigned)low);
}
#endif

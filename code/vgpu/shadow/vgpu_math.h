/* code/vgpu/shadow/vgpu_math.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA's mathematical names that the C library does not have. Plain `inline`, noexcept,
 * and not static: newer C libraries declare some of them (rsqrtf), older ones declare
 * others (__expf) without defining them for us, and a redeclaration must agree.
 */
#ifndef DLS_SHADOW_VGPU_MATH_H
#define DLS_SHADOW_VGPU_MATH_H

/* define cuda minimum and maximum */
template <class A, class B>
using dls_both = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>,
                                  std::common_type_t<A, B>>;

template <class A, class B> constexpr dls_both<A, B> max(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return (T)b != (T)b || (T)a > (T)b ? (T)a : (T)b;
    else
        return (T)a > (T)b ? (T)a : (T)b;
}

template <class A, class B> constexpr dls_both<A, B> min(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return (T)b != (T)b || (T)a < (T)b ? (T)a : (T)b;
    else
        return (T)a < (T)b ? (T)a : (T)b;
}
/* define roots and fast functions */
inline float rsqrtf(float x) noexcept { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) noexcept { return 1.0 / sqrt(x); }
inline float rsqrt(float x) noexcept { return 1.0f / sqrtf(x); }
inline float rcbrtf(float x) noexcept { return 1.0f / cbrtf(x); }
inline float fdividef(float a, float b) noexcept { return a / b; }
inline float normcdff(float x) noexcept { return 0.5f * erfcf(-x * 0.70710678f); }
inline float __expf(float x) noexcept { return expf(x); }
inline float __exp10f(float x) noexcept { return powf(10.0f, x); }
inline float __logf(float x) noexcept { return logf(x); }
inline float __log2f(float x) noexcept { return log2f(x); }
inline float __log10f(float x) noexcept { return log10f(x); }
inline float __powf(float x, float y) noexcept { return powf(x, y); }
inline float __sinf(float x) noexcept { return sinf(x); }
inline float __cosf(float x) noexcept { return cosf(x); }
inline float __tanf(float x) noexcept { return tanf(x); }
inline float __tanhf(float x) noexcept { return tanhf(x); }
inline float __fdividef(float a, float b) noexcept { return a / b; }
inline void __sincosf(float x, float *s, float *c) noexcept
{
    *s = sinf(x);
    *c = cosf(x);
}
inline float sinpif(float x) noexcept { return (float)sin(M_PI * fmod((double)x, 2)); }
inline float cospif(float x) noexcept { return (float)cos(M_PI * fmod((double)x, 2)); }
inline double sinpi(double x) noexcept { return sin(M_PI * fmod(x, 2)); }
inline double cospi(double x) noexcept { return cos(M_PI * fmod(x, 2)); }
inline double normcdf(double x) noexcept { return 0.5 * erfc(-x * M_SQRT1_2); }
inline float rhypotf(float x, float y) noexcept { return 1.0f / hypotf(x, y); }
inline float norm3df(float x, float y, float z) noexcept
{
    return (float)sqrt((double)x * x + (double)y * y + (double)z * z);
}
inline float __saturatef(float x) noexcept { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
/* define rounded arithmetic */
#define DLS_NEAREST(T, prefix)                                                    \
    inline T __##prefix##add_rn(T a, T b) noexcept { volatile T r = a + b; return r; } \
    inline T __##prefix##sub_rn(T a, T b) noexcept { volatile T r = a - b; return r; } \
    inline T __##prefix##mul_rn(T a, T b) noexcept { volatile T r = a * b; return r; } \
    inline T __##prefix##div_rn(T a, T b) noexcept { volatile T r = a / b; return r; } \
    inline T __##prefix##rcp_rn(T a) noexcept { volatile T r = 1 / a; return r; }
DLS_NEAREST(float, f)
DLS_NEAREST(double, d)
#undef DLS_NEAREST
inline float __fmaf_rn(float a, float b, float c) noexcept { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) noexcept { return fma(a, b, c); }
inline float __fsqrt_rn(float x) noexcept { return sqrtf(x); }
inline double __dsqrt_rn(double x) noexcept { return sqrt(x); }
inline float __frsqrt_rn(float x) noexcept { return (float)(1.0 / sqrt((double)x)); }
/* reinterpret bits as numbers */
template <class To, class From> static inline To dls_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

static inline int __float_as_int(float x) { return dls_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return dls_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return dls_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return dls_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return dls_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return dls_bits<double>(x); }
/* count bits */
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(dls_ull x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((dls_ull)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((dls_ull)a * b >> 32);
}
static inline unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1) << (31 - i);
    return r;
}

#endif

/* tests/vgpu/test_numbers.cu: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* Every pattern of the short formats, every tie, and millions of random numbers, against
 * tables and integers that never round. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <math.h>
#include <stdint.h>

#include "simt_test.h"

/* tabulate a short format */
enum { BF16, FP16, E4M3, E5M2, FORMATS };
static const struct { int e, m; unsigned largest; } formats[FORMATS] = {
    {8, 7, 0x7f7f}, {5, 10, 0x7bff}, {4, 3, 0x7e}, {5, 2, 0x7b}};

/* The magnitude that a pattern would have if all exponents were ordinary. */
static double magnitude_of(int f, unsigned pattern)
{
    int m = formats[f].m, bias = (1 << (formats[f].e - 1)) - 1;
    int exponent = (int)(pattern >> m), mantissa = (int)(pattern & ((1u << m) - 1));
    return exponent ? ldexp((1 << m) + mantissa, exponent - bias - m)
                    : ldexp(mantissa, 1 - bias - m);
}

static double table[FORMATS][0x7f82];

static void make_tables(void)
{
    for (int f = 0; f < FORMATS; f++)
        for (unsigned p = 0; p <= formats[f].largest + 1; p++)
            table[f][p] = magnitude_of(f, p);
}

/* round by the table */
enum { NEAREST, ZERO, DOWN, UP, MODES };

static unsigned expected(int f, int mode, double x)
{
    unsigned low = 0, high = formats[f].largest + 1, sign = signbit(x) ? 1u : 0u;
    double a = fabs(x);
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (table[f][middle] <= a)
            low = middle;
        else
            high = middle;
    }
    double tie = (table[f][low] + table[f][low + 1]) / 2;
    bool up = mode == NEAREST ? a > tie || (a == tie && low % 2 == 1)
                              : a > table[f][low] && mode == (sign ? DOWN : UP);
    if (isinf(x))
        up = low == formats[f].largest;
    return sign << (formats[f].e + formats[f].m) | (low + up);
}

/* name the conversions under test */
static unsigned convert(int f, int mode, float x)
{
    if (f == BF16)
        return __bfloat16_as_ushort(mode == NEAREST ? __float2bfloat16(x)
                                    : mode == ZERO  ? __float2bfloat16_rz(x)
                                    : mode == DOWN  ? __float2bfloat16_rd(x)
                                                    : __float2bfloat16_ru(x));
    if (f == FP16)
        return __half_as_ushort(mode == NEAREST ? __float2half(x)
                                : mode == ZERO  ? __float2half_rz(x)
                                : mode == DOWN  ? __float2half_rd(x)
                                                : __float2half_ru(x));
    return __nv_cvt_float_to_fp8(x, __NV_NOSAT, f == E4M3 ? __NV_E4M3 : __NV_E5M2);
}

static unsigned convert_double(int f, double x)
{
    if (f == BF16)
        return __bfloat16_as_ushort(__double2bfloat16(x));
    if (f == FP16)
        return __half_as_ushort(__double2half(x));
    return __nv_cvt_double_to_fp8(x, __NV_NOSAT, f == E4M3 ? __NV_E4M3 : __NV_E5M2);
}

static float value_of(int f, unsigned p)
{
    if (f == BF16)
        return __bfloat162float(__ushort_as_bfloat16((unsigned short)p));
    if (f == FP16)
        return __half2float(__ushort_as_half((unsigned short)p));
    __nv_fp8_interpretation_t kind = f == E4M3 ? __NV_E4M3 : __NV_E5M2;
    __half_raw raw = __nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)p, kind);
    return __half2float(__half(raw));
}

/* How often a conversion differs from the table, the first time in words. */
static int compare(int f, double x)
{
    int wrong = 0, modes = f < E4M3 ? MODES : 1;
    for (int mode = 0; mode < modes && (double)(float)x == x; mode++) {
        unsigned want = expected(f, mode, x), got = convert(f, mode, (float)x);
        if (got != want && wrong++ == 0)
            cr_log_error("format %d mode %d: %a is %#x, not %#x", f, mode, x, got, want);
    }
    unsigned want = expected(f, NEAREST, x), got = convert_double(f, x);
    if (got != want && wrong++ == 0)
        cr_log_error("format %d: double %a is %#x, not %#x", f, x, got, want);
    return wrong;
}

/* test number round trips */
Test(vgpu, numbers_every_pattern_makes_the_round_trip)
{
    make_tables();
    for (int f = 0; f < FORMATS; f++) {
        unsigned bit = 1u << (formats[f].e + formats[f].m);
        for (unsigned p = 0; p < 2 * bit; p++) {
            unsigned m = p & (bit - 1);
            float v = value_of(f, p);
            if (m <= formats[f].largest) {
                cr_assert_eq(fabs(v), table[f][m], "format %d, pattern %#x", f, p);
                cr_assert_eq(!signbit(v), p < bit, "format %d, pattern %#x", f, p);
            } else if (f != E4M3 && m == formats[f].largest + 1) {
                cr_assert(isinf(v), "format %d, pattern %#x", f, p);
            } else {
                cr_assert(isnan(v), "format %d, pattern %#x", f, p);
                cr_assert(isnan(value_of(f, convert(f, NEAREST, v))));
                continue;
            }
            for (int mode = 0; mode < (f < E4M3 ? MODES : 1); mode++)
                cr_assert_eq(convert(f, mode, v), p, "format %d, pattern %#x", f, p);
        }
    }
}

/* test ties and random numbers */
Test(vgpu, numbers_round_ties_and_their_neighbours)
{
    int wrong = 0;
    make_tables();
    for (int f = 0; f < FORMATS; f++)
        for (unsigned p = 0; p <= formats[f].largest; p++) {
            double tie = (table[f][p] + table[f][p + 1]) / 2;
            const double near[] = {tie, nextafterf((float)tie, 0.0f), nextafter(tie, 0),
                                   nextafterf((float)tie, INFINITY),
                                   nextafter(tie, INFINITY)};
            for (int i = 0; i < 5; i++)
                wrong += compare(f, near[i]) + compare(f, -near[i]);
        }
    cr_assert_eq(wrong, 0);
}

Test(vgpu, numbers_round_millions_of_random_floats)
{
    uint64_t random = 1;
    int wrong = 0;
    make_tables();
    for (int i = 0; i < 2000000; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        int f = i % FORMATS, bias = (1 << (formats[f].e - 1)) - 1;
        int exponent = (int)(random >> 8 & 0xffff) % (2 * bias + 16) - bias - 12;
        float x = ldexpf((float)(random >> 40) / (1 << 24), exponent);
        wrong += compare(f, random >> 7 & 1 ? -x : x);
    }
    cr_assert_eq(wrong, 0);
}

/* test arithmetic by integers */
/* n · 2^-48 to the nearest pattern; n is exact. */
static unsigned round_fixed(int f, __int128 n, bool minus_zero)
{
    int m = formats[f].m, bias = (1 << (formats[f].e - 1)) - 1, top = 127;
    unsigned __int128 u = n < 0 ? -(unsigned __int128)n : (unsigned __int128)n, one = 1;
    unsigned sign = n < 0 || (n == 0 && minus_zero) ? 0x8000u : 0;
    if (u == 0)
        return sign;
    while (!(u >> top & 1))
        top--;
    int drop = top - m, least = 48 + 1 - bias - m;
    drop = drop < least ? least : drop;
    unsigned __int128 kept = drop > 0 ? u >> drop : u << -drop;
    if (drop > 0) {
        unsigned __int128 rest = u & ((one << drop) - 1), half = one << (drop - 1);
        kept += rest > half || (rest == half && (kept & 1));
    }
    return sign | expected(f, NEAREST, ldexp((double)kept, drop - 48));
}

static __int128 fixed(int f, unsigned p, int shift)
{
    return (__int128)ldexp(value_of(f, p), shift);
}

static unsigned bits_of(__half x) { return __half_as_ushort(x); }
static unsigned bits_of(__nv_bfloat16 x) { return __bfloat16_as_ushort(x); }

/* Four results for each triple: a b, a b + c, a + c, a - c. */
template <class T> __global__ void compute_all(T *out, const T *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n)
        return;
    T a = x[3 * i], b = x[3 * i + 1], c = x[3 * i + 2];
    out[4 * i] = __hmul_rn(a, b);
    out[4 * i + 1] = __hfma(a, b, c);
    out[4 * i + 2] = __hadd_rn(a, c);
    out[4 * i + 3] = __hsub_rn(a, c);
}

static int compare_results(int f, const unsigned in[3], const unsigned out[4])
{
    __int128 product = fixed(f, in[0], 24) * fixed(f, in[1], 24);
    __int128 x = fixed(f, in[0], 48), z = fixed(f, in[2], 48);
    unsigned sign = in[0] ^ in[1], same = in[0] & in[2], other = in[0] & ~in[2];
    int wrong = (out[0] != round_fixed(f, product, sign >> 15 & 1)) +
                (out[1] != round_fixed(f, product + z, sign & in[2] & 0x8000)) +
                (out[2] != round_fixed(f, x + z, same & 0x8000)) +
                (out[3] != round_fixed(f, x - z, other & 0x8000));
    if (wrong)
        cr_log_error("format %d: %#x, %#x, %#x", f, in[0], in[1], in[2]);
    return wrong;
}

template <class T> static int wrong_results(int f, int n)
{
    uint64_t random = 7;
    T *x = managed(3 * (size_t)n, T(0.0f)), *out = managed(4 * (size_t)n, T(0.0f));
    for (int i = 0; i < 3 * n; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        float v = ldexpf((float)(random >> 40) / (1 << 24) + 1,
                         (int)(random >> 20 & 0xff) % 26 - 13);
        x[i] = T(random >> 19 & 1 ? -v : v);
    }
    compute_all<<<(n + 255) / 256, 256>>>(out, x, n);
    OK(cudaDeviceSynchronize());
    int wrong = 0;
    for (int i = 0; i < n; i++) {
        unsigned in[3], results[4];
        for (int j = 0; j < 3; j++)
            in[j] = bits_of(x[3 * i + j]);
        for (int j = 0; j < 4; j++)
            results[j] = bits_of(out[4 * i + j]);
        wrong += compare_results(f, in, results);
    }
    return wrong;
}

Test(vgpu, numbers_compute_with_one_rounding)
{
    make_tables();
    cr_assert_eq(wrong_results<__nv_bfloat16>(BF16, 300000), 0);
    cr_assert_eq(wrong_results<__half>(FP16, 300000), 0);
}

/* test special values */
Test(vgpu, numbers_fuse_a_tiny_summand)
{
    __nv_bfloat16 a = 1.0625f, tiny = 0x1p-100f;
    __nv_bfloat16 *x = managed(6, a), *out = managed(8, a);
    x[2] = tiny;
    x[5] = -tiny;
    compute_all<<<1, 2>>>(out, x, 2);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(bits_of(out[0]), 0x3f90, "a tie");
    cr_assert_eq(bits_of(out[1]), 0x3f91, "above the tie");
    cr_assert_eq(bits_of(out[5]), 0x3f90, "below the tie");
}

Test(vgpu, numbers_have_their_special_values)
{
    __nv_bfloat16 one = 1.0f, sum = 1.0f;
    for (int i = 0; i < 256; i++)
        sum += one;
    cr_assert_eq((float)sum, 256.0f);
    cr_assert_eq(__nv_cvt_float_to_fp8(460, __NV_NOSAT, __NV_E4M3), 0x7e);
    cr_assert_eq(__nv_cvt_float_to_fp8(500, __NV_NOSAT, __NV_E4M3) & 0x7f, 0x7f);
    cr_assert_eq(__nv_cvt_float_to_fp8(500, __NV_SATFINITE, __NV_E4M3), 0x7e);
    cr_assert_eq(__nv_cvt_float_to_fp8(-INFINITY, __NV_SATFINITE, __NV_E4M3), 0xfe);
    cr_assert_eq(__nv_cvt_float_to_fp8(70000, __NV_NOSAT, __NV_E5M2), 0x7c);
    cr_assert_eq(__nv_cvt_float_to_fp8(70000, __NV_SATFINITE, __NV_E5M2), 0x7b);
    cr_assert_eq((float)__nv_fp8_e4m3(6.5f), 6.5f);
    cr_assert_eq((float)__nv_fp8_e5m2(6.5f), 6.0f);
    __half nan = __ushort_as_half(0x7fff), zero = 0.0f, two = 2.0f;
    cr_assert(__hisnan(nan) && nan != nan && !__hne(nan, nan) && !__hlt(nan, two));
    cr_assert(__heq(zero, __hneg(zero)) && bits_of(__hmax(__hneg(zero), zero)) == 0);
    cr_assert_eq((float)__hmax(nan, two), 2.0f);
    cr_assert_eq((float)__hmin(two, nan), 2.0f);
}

/* test short numbers in kernels */
__global__ void mix_pairs(__half2 *out, const __half2 *x, __half *total, int n)
{
    __shared__ __half2 row[64];
    int t = (int)threadIdx.x;
    row[t] = t < n ? x[t] : __float2half2_rn(0.0f);
    __syncthreads();
    __half2 other = row[(t + 1) % 64], mine = row[t];
    out[t] = __hfma2(mine, other, __hadd2(mine, other));
    atomicAdd(total, __low2half(mine));
}

Test(vgpu, numbers_in_kernels)
{
    const int n = 64;
    __half2 *x = managed(n, __float2half2_rn(0.0f)), *out = managed(n, x[0]);
    __half *total = managed(1, __float2half(0.0f));
    for (int i = 0; i < n; i++)
        x[i] = __floats2half2_rn((float)i, (float)i / 64);
    mix_pairs<<<1, n>>>(out, x, total, n);
    OK(cudaDeviceSynchronize());
    cr_assert_eq((float)*total, 2016.0f);
    for (int i = 0; i < n; i++) {
        float j = (float)((i + 1) % n), v = (float)i;
        cr_assert_eq(__low2float(out[i]), (float)__float2half(v * j + (v + j)));
        cr_assert_eq(__high2float(out[i]),
                     (float)__float2half(v / 64 * (j / 64) + (v + j) / 64));
    }
}

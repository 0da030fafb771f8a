/* tests/vgpu/test_simt_intrinsics.cu: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* Integer functions, rounding modes, conversions, short and wide types in warp operations
 * and atomics; kernels that give up. */
#include "simt_test.h"

#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <float.h>
#include <math.h>
#include <signal.h>

/* test integer functions */
__global__ void compute_integers(unsigned *u, int *i, unsigned long long *l)
{
    u[0] = __byte_perm(0x33221100u, 0x77665544u, 0x7e50u);
    u[1] = __funnelshift_l(0xaabbccddu, 0x11223344u, 8);
    u[2] = __funnelshift_r(0xaabbccddu, 0x11223344u, 40);
    u[3] = __funnelshift_lc(0xaabbccddu, 0x11223344u, 40);
    u[4] = __funnelshift_rc(0xaabbccddu, 0x11223344u, 32);
    u[5] = __umul24(0xff000003u, 5u);
    u[6] = __usad(3u, 10u, 100u) + __sad(-5, 5, 1000u);
    u[7] = __dp4a(0xff020304u, 0x02010101u, 1u);
    u[8] = __uhadd(0xffffffffu, 2u) - __urhadd(0xffffffffu, 0xfffffffeu);
    i[0] = __mul24(0x00ffffff, 7);
    i[1] = __dp4a((int)0xff020304u, 0x02010101, 1);
    i[2] = __dp2a_lo((int)0xfffe0003u, 0x0000ff02, 10);
    i[3] = __hadd(-3, 0) * 100 + __rhadd(-3, 0);
    i[4] = __dp4a(make_char4(1, -2, 3, -4), make_char4(5, 6, 7, -8), 0);
    l[0] = __umul64hi(0x8000000000000000ull, 6ull) + (unsigned long long)__mul64hi(-1, 1);
    l[1] = __brevll(1ull) >> 60;
    l[2] = (unsigned long long)__hiloint2double(0x40080000, 0);
}

Test(vgpu, simt_integers)
{
    const unsigned want_u[] = {0x77665500u, 0x223344aau, 0x44aabbccu, 0xaabbccddu,
                               0x11223344u, 15u, 107u + 1010u, 520u, 0x80000001u};
    const int want_i[] = {-7, 8, 18, -201, 46};
    unsigned *u = managed(9, 1u);
    int *i = managed(5, 1);
    unsigned long long *l = managed(3, 1ull);
    compute_integers<<<1, 1>>>(u, i, l);
    OK(cudaDeviceSynchronize());
    for (int k = 0; k < 9; k++)
        cr_assert_eq(u[k], want_u[k], "%d: %x", k, u[k]);
    for (int k = 0; k < 5; k++)
        cr_assert_eq(i[k], want_i[k], "%d: %d", k, i[k]);
    cr_assert(l[0] == 2 && l[1] == 8 && l[2] == 3, "%llu %llu %llu", l[0], l[1], l[2]);
}
/* test rounded arithmetic */
struct four {
    float rn, rz, ru, rd;
};

#define FOUR(f, ...)                                                              \
    {                                                                             \
        __f##f##_rn(__VA_ARGS__), __f##f##_rz(__VA_ARGS__), __f##f##_ru(__VA_ARGS__), \
            __f##f##_rd(__VA_ARGS__)                                              \
    }

__global__ void round_everything(four *out, const float *x)
{
    float a = x[3 * threadIdx.x], b = x[3 * threadIdx.x + 1], c = x[3 * threadIdx.x + 2];
    four all[7] = {FOUR(add, a, b), FOUR(sub, a, b), FOUR(mul, a, b), FOUR(maf, a, b, c),
                   FOUR(div, a, b), FOUR(rcp, b), FOUR(sqrt, fabsf(a))};
    for (int i = 0; i < 7; i++)
        out[7 * threadIdx.x + i] = all[i];
}

static void check_four(const four &f, long double below, long double exact,
                       long double above)
{
    cr_assert(below <= exact && exact <= above, "%Lg %Lg %Lg", below, exact, above);
    cr_assert(f.ru == f.rd || nextafterf(f.rd, INFINITY) == f.ru);
    cr_assert((f.ru == f.rd) == (below == exact && exact == above));
    cr_assert_eq(f.rz, f.rd > 0 || f.ru > 0 ? f.rd : f.ru);
    cr_assert(f.rn == f.rd || f.rn == f.ru);
}

Test(vgpu, simt_rounding)
{
    enum { N = 256 };
    float *x = managed(3 * N, 0.0f);
    four *out = managed(7 * N, four());
    srand(1);
    for (int i = 0; i < 3 * N; i++)
        x[i] = ldexpf((float)(rand() % 16777216 - 8388608), -20 - i % 5);
    for (int i = 1; i < 3 * N; i++)
        x[i] = x[i] == 0 ? 1.0f : x[i];
    round_everything<<<1, N>>>(out, x);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < N; i++) {
        long double a = x[3 * i], b = x[3 * i + 1], c = x[3 * i + 2];
        const long double exact[] = {a + b, a - b, a * b, a * b + c};
        const four *f = &out[7 * i];
        for (int k = 0; k < 4; k++)
            check_four(f[k], f[k].rd, exact[k], f[k].ru);
        int up = b > 0;
        check_four(f[4], b * (up ? f[4].rd : f[4].ru), a, b * (up ? f[4].ru : f[4].rd));
        check_four(f[5], b * (up ? f[5].rd : f[5].ru), 1, b * (up ? f[5].ru : f[5].rd));
        check_four(f[6], (long double)f[6].rd * f[6].rd, fabsl(a),
                   (long double)f[6].ru * f[6].ru);
    }
}

__global__ void round_at_the_ends(float *f, double *d)
{
    f[0] = __fadd_rz(FLT_MAX, FLT_MAX);
    f[1] = __fadd_ru(FLT_MAX, FLT_MAX);
    f[2] = __fmul_ru(1e-30f, 1e-30f);
    f[3] = __fmul_rd(1e-30f, 1e-30f);
    f[4] = __int2float_rz(16777217);
    f[6] = __double2float_rd(-1e-60);
    f[5] = __fadd_ru(0.0f, __int2float_ru(16777217));
    volatile float even = 16777216.0f;
    f[7] = even + 1.0f;  // rounds to nearest again
    d[0] = __dadd_ru(1.0, 1e-30);
    d[1] = __dmul_rd(3.0, 1.0 / 3.0);
    d[2] = __fma_rz(1.0 + 1e-10, 1.0 - 1e-10, -1.0);
    d[3] = __ll2double_rd(9007199254740993ll);
}

Test(vgpu, simt_rounding_at_the_ends)
{
    const float tiny = ldexpf(1, -149);
    const float want[] = {FLT_MAX, INFINITY, tiny,  0,
                          16777216, 16777218, -tiny, 16777216};
    float *f = managed(8, 5.0f);
    double *d = managed(4, 5.0);
    round_at_the_ends<<<1, 1>>>(f, d);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 8; i++)
        cr_assert_eq(f[i], want[i], "%d: %g", i, (double)f[i]);
    cr_assert_eq(d[0], 1.0 + DBL_EPSILON);
    cr_assert_lt(d[1], 1.0);
    cr_assert_eq(d[2], fma(1.0 + 1e-10, 1.0 - 1e-10, -1.0));
    cr_assert_eq(d[3], 9007199254740992.0);
}
/* test conversions that saturate */
__global__ void convert(int *i, unsigned *u, long long *l)
{
    i[0] = __float2int_rz(3e9f);
    i[1] = __float2int_rd(-0.5f);
    i[2] = __double2int_ru(-2147483648.5);
    i[3] = __float2int_rn(-NAN);
    u[0] = __float2uint_rn(-1.0f);
    u[1] = __double2uint_rz(4294967295.9);
    u[2] = __float2uint_ru(0.25f);
    l[0] = __float2ll_rz(1e30f);
    l[1] = __double2ll_rn(-2.5);
    l[2] = (long long)__double2ull_rz(18446744073709551615.0);
    l[3] = (long long)__float2ull_rd(-3.0f);
}

Test(vgpu, simt_conversions)
{
    int *i = managed(4, 7);
    unsigned *u = managed(3, 7u);
    long long *l = managed(4, 7ll);
    convert<<<1, 1>>>(i, u, l);
    OK(cudaDeviceSynchronize());
    cr_assert(i[0] == 2147483647 && i[1] == -1 && i[2] == -2147483647 - 1 && i[3] == 0);
    cr_assert(u[0] == 0 && u[1] == 4294967295u && u[2] == 1);
    cr_assert(l[0] == 9223372036854775807ll && l[1] == -2 && l[2] == -1 && l[3] == 0);
}
/* test all types in warp operations */
template <class T> __device__ int differ(const T &a, const T &b)
{
    const char *p = (const char *)&a, *q = (const char *)&b;
    int differences = 0;
    for (unsigned i = 0; i < sizeof a; i++)
        differences += p[i] != q[i];
    return differences;
}

template <class T> __device__ int passes_around(T (*make)(int))
{
    int lane = threadIdx.x % 32, other = lane ^ 5, wrong = 0;
    T v = make(lane), w = make(other);
    T a = __shfl_xor_sync(~0u, v, 5), b = __shfl_sync(~0u, v, other);
    wrong += differ(a, w) + differ(b, w);
    T c = __shfl_down_sync(~0u, v, 3, 16), d = __shfl_up_sync(~0u, v, 3, 16);
    w = make(lane % 16 + 3 < 16 ? lane + 3 : lane);
    wrong += differ(c, w);
    w = make(lane % 16 >= 3 ? lane - 3 : lane);
    return wrong + differ(d, w);
}

__device__ int make_int(int i) { return i * -77777; }
__device__ double make_double(int i) { return i * 1e100; }
__device__ unsigned long long make_long(int i) { return i * 0x123456789abcull; }
__device__ __half make_half(int i) { return __float2half(i * 0.25f); }
__device__ __half2 make_half2(int i) { return __floats2half2_rn(i * 0.5f, -i); }
__device__ __nv_bfloat16 make_bf16(int i) { return __float2bfloat16(i * 4.0f); }
__device__ __nv_bfloat162 make_bf162(int i) { return __floats2bfloat162_rn(i, -i); }

__global__ void pass_all_types(int *out)
{
    out[threadIdx.x] = passes_around(make_int) + passes_around(make_double) +
                       passes_around(make_long) + passes_around(make_half) +
                       passes_around(make_half2) + passes_around(make_bf16) +
                       passes_around(make_bf162);
}

Test(vgpu, simt_shuffles_of_all_types)
{
    int *out = managed(64, -1);
    FOR_SEEDS(seed) {
        pass_all_types<<<1, 64>>>(out);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 64; i++)
            cr_assert_eq(out[i], 0, "thread %d", i);
    }
}
/* test all types in atomics */
struct __align__(16) sums {
    ulonglong2 wide;
    float4 f4;
    float2 f2;
    double d;
    __nv_bfloat162 b2;
    __half2 h2;
    unsigned short word[2];
    int scoped, swapped;
};

__global__ void add_everything(sums *s)
{
    atomicAdd(&s->b2, __floats2bfloat162_rn(1, -1));
    atomicAdd(&s->h2, __floats2half2_rn(2, 1));
    atomicAdd_block(&s->scoped, 1);
    atomicAdd_system(&s->d, 0.5);
    atomicMax_system(&s->swapped, (int)threadIdx.x);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    atomicAdd(&s->f2, make_float2(1, 2));
    atomicAdd(&s->f4, make_float4(1, 2, 3, 4));
#endif
    unsigned short seen = s->word[1], old;
    do
        old = seen;
    while ((seen = atomicCAS(&s->word[1], old, (unsigned short)(old + 1))) != old);
}

Test(vgpu, simt_atomics_of_all_types)
{
    FOR_SEEDS(seed) {
        sums *s = managed(1, sums());
        memset((void *)s, 0, sizeof *s);
        add_everything<<<4, 50>>>(s);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(__low2float(s->b2), 200.0f);
        cr_assert_eq(__high2float(s->b2), -200.0f);
        cr_assert_eq(__low2float(s->h2), 400.0f);
        cr_assert_eq(__high2float(s->h2), 200.0f);
        cr_assert(s->scoped == 200 && s->d == 100 && s->swapped == 49);
        cr_assert(s->word[0] == 0 && s->word[1] == 200, "%d", s->word[1]);
        cr_assert(s->f2.y == 400 && s->f4.x == 200 && s->f4.w == 800);
        OK(cudaFree(s));
    }
}

#ifdef DLS_VIRTUAL_GPU
__global__ void count_in_two_halves(ulonglong2 *p, int *torn)
{
    ulonglong2 seen = {0, 0}, old;
    do {
        old = seen;
        if (old.x != 3 * old.y)
            atomicAdd(torn, 1);
        seen = atomicCAS(p, old, make_ulonglong2(old.x + 3, old.y + 1));
    } while (seen.x != old.x || seen.y != old.y);
}

Test(vgpu, simt_atomics_of_16_bytes)
{
    int *torn = managed(1, 0);
    FOR_SEEDS(seed) {
        ulonglong2 *p = managed(1, make_ulonglong2(0, 0));
        count_in_two_halves<<<8, 40>>>(p, torn);
        OK(cudaDeviceSynchronize());
        cr_assert(p->x == 960 && p->y == 320 && *torn == 0);
        OK(cudaFree(p));
    }
}
#endif
/* test kernels that give up */
template <int N> __global__ void __launch_bounds__(N, 2) bounded(int *out);

template <int N> __global__ void __launch_bounds__(N, 2) bounded(int *out)
{
    if (threadIdx.x == 0)
        out[0] = N;
}

Test(vgpu, simt_launch_bounds)
{
    int *out = managed(1, 0);
    bounded<96><<<2, 96>>>(out);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[0], 96);
#ifdef DLS_VIRTUAL_GPU
    bounded<96><<<2, 97>>>(out);
    check_broken(cudaErrorInvalidValue, {"kernel bounded<96>", "97 threads",
                                         "__launch_bounds__(96)"});
#else
    bounded<96><<<2, 97>>>(out);
    cr_assert_neq((int)cudaGetLastError(), (int)cudaSuccess);
#endif
}

#ifdef DLS_VIRTUAL_GPU
__global__ void give_up(int who, int how)
{
    if (how == 0)
        assert((int)threadIdx.x != who);
    else if ((int)threadIdx.x == who)
        __trap();
}

Test(vgpu, simt_assert)
{
    give_up<<<1, 64>>>(40, 0);
    check_broken(cudaErrorAssert, {"thread (40,0,0)", ".md:", "give_up",
                                   "`(int)threadIdx.x != who` failed"});
}

Test(vgpu, simt_trap)
{
    give_up<<<1, 64>>>(33, 1);
    check_broken(cudaErrorLaunchFailure, {"thread (33,0,0) executed __trap", ".md:"});
}

Test(vgpu, simt_assert_outside_of_kernels, .signal = SIGABRT)
{
    assert(dls_simt_early_exits() == 12345);
}
#endif

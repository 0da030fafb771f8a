/* tests/vgpu/test_ptx.cu: from chapters/A-virtual-gpu-simt-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* cp.async, ldmatrix, mma.sync: every place of every fragment, and what arrives when. */
#include "simt_test.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "vgpu/ptx.cuh"

/* test who holds which element */
enum { BF16, FP16, TF32, S8, SHAPES };
static const int DEPTH[] = {16, 16, 8, 32}, PACKED[] = {2, 2, 1, 4};

struct place {
    int row, column;
};

/* The element e of register r of A in a lane, as the PTX manual has it. */
static place place_in_a(int shape, int lane, int r, int e)
{
    int group = lane >> 2, in_group = lane % 4;
    int row = r == 0 || r == 2 ? group : group + 8;
    if (shape == TF32)
        return {row, r == 0 || r == 1 ? in_group : in_group + 4};
    if (shape == S8)
        return {row, r < 2 ? in_group * 4 + e : in_group * 4 + e + 16};
    return {row, r < 2 ? in_group * 2 + e : in_group * 2 + e + 8};
}

static place place_in_b(int shape, int lane, int r, int e)
{
    int group = lane >> 2, in_group = lane % 4;
    if (shape == TF32)
        return {r == 0 ? in_group : in_group + 4, group};
    if (shape == S8)
        return {r == 0 ? in_group * 4 + e : in_group * 4 + e + 16, group};
    return {r == 0 ? in_group * 2 + e : in_group * 2 + e + 8, group};
}

static place place_in_c(int lane, int r)
{
    return {r < 2 ? lane >> 2 : (lane >> 2) + 8, lane % 4 * 2 + (r & 1)};
}

struct fragments {
    uint32_t a[32][4], b[32][2];
    float c[32][4], d[32][4];
    int ci[32][4], di[32][4];
};

__global__ void multiply(fragments *f, int shape)
{
    int lane = threadIdx.x % 32;
    f += threadIdx.x / 32;
    if (shape == BF16)
        dls_mma_m16n8k16_bf16(f->d[lane], f->a[lane], f->b[lane], f->c[lane]);
    else if (shape == FP16)
        dls_mma_m16n8k16_fp16(f->d[lane], f->a[lane], f->b[lane], f->c[lane]);
    else if (shape == TF32)
        dls_mma_m16n8k8_tf32(f->d[lane], f->a[lane], f->b[lane], f->c[lane]);
    else
        dls_mma_m16n8k32_s8(f->di[lane], f->a[lane], f->b[lane], f->ci[lane]);
}

/* The bits of x in the shape's format, and in *kept the value that they have. */
static uint32_t encode(int shape, double x, double *kept)
{
    uint32_t bits = 0;
    float f = (float)x;
    __nv_bfloat16 b = __float2bfloat16(f);
    __half h = __float2half(f);
    int8_t i = (int8_t)x;
    *kept = shape == BF16 ? (double)__bfloat162float(b)
            : shape == FP16 ? (double)__half2float(h) : shape == S8 ? i : 0;
    memcpy(&bits, shape == BF16 ? (void *)&b : shape == FP16 ? (void *)&h
                  : shape == S8 ? (void *)&i : (void *)&f, 4 / PACKED[shape]);
    if (shape == TF32) {
        uint32_t high = bits & 0xffffe000u;
        memcpy(&f, &high, sizeof f);
        *kept = f;
    }
    return bits;
}
/* test products of small integers */
struct matrices {
    double a[16][32], b[32][8], c[16][8], size[16][8];  // size: the sum of |products|
};

/* Draws matrices from `draw` and lays out their fragments. */
template <class F> static void lay_out(int shape, matrices *m, fragments *f, F draw)
{
    memset(f, 0, sizeof *f);
    for (int lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++) {
            for (int e = 0; e < PACKED[shape]; e++) {
                int shift = 32 / PACKED[shape] * e;
                place p = place_in_a(shape, lane, r, e);
                f->a[lane][r] |= encode(shape, draw(), &m->a[p.row][p.column]) << shift;
                p = place_in_b(shape, lane, r, e);
                if (r < 2)
                    f->b[lane][r] |= encode(shape, draw(), &m->b[p.row][p.column])
                                     << shift;
            }
            place p = place_in_c(lane, r);
            f->c[lane][r] = (float)draw();
            f->ci[lane][r] = (int)f->c[lane][r];
            m->c[p.row][p.column] = shape == S8 ? f->ci[lane][r] : (double)f->c[lane][r];
        }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            m->size[i][j] = fabs(m->c[i][j]);
            for (int k = 0; k < DEPTH[shape]; k++) {
                m->c[i][j] += m->a[i][k] * m->b[k][j];
                m->size[i][j] += fabs(m->a[i][k] * m->b[k][j]);
            }
        }
}

static uint32_t state = 1;

static double small_integer()
{
    state = state * 1664525u + 1013904223u;
    return (int)(state >> 24) % 9 - 4;
}

Test(vgpu, ptx_products_of_integers)
{
    fragments *f = managed(3, fragments());
    matrices m[3];
    FOR_SEEDS(seed)
        for (int shape = 0; shape < SHAPES; shape++) {
            for (int w = 0; w < 3; w++)
                lay_out(shape, &m[w], &f[w], small_integer);
            multiply<<<1, 96>>>(f, shape);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 3 * 128; i++) {
                int w = i / 128, lane = i / 4 % 32, r = i % 4;
                place p = place_in_c(lane, r);
                double got = shape == S8 ? f[w].di[lane][r] : (double)f[w].d[lane][r];
                cr_assert_eq(got, m[w].c[p.row][p.column], "shape %d, (%d, %d): %g",
                             shape, p.row, p.column, got);
            }
        }
}
/* test the rounding of products */
static double real_number()
{
    state = state * 1664525u + 1013904223u;
    return ldexp((double)(int32_t)state, -31 + (int)(state >> 3) % 4);
}

Test(vgpu, ptx_products_of_reals)
{
    fragments *f = managed(1, fragments());
    matrices m;
    FOR_SEEDS(seed)
        for (int shape = 0; shape < S8; shape++) {
            lay_out(shape, &m, f, real_number);
            multiply<<<1, 32>>>(f, shape);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 128; i++) {
                place p = place_in_c(i / 4, i % 4);
                double bound = ldexp(DEPTH[shape] / 4.0 * m.size[p.row][p.column], -23);
                double error = f->d[i / 4][i % 4] - m.c[p.row][p.column];
                cr_assert_leq(fabs(error), bound, "shape %d: %g > %g", shape, error,
                              bound);
            }
        }
}

__global__ void round_all(uint32_t *bits, const float *x)
{
    bits[threadIdx.x] = dls_to_tf32(x[threadIdx.x]);
}

Test(vgpu, ptx_rounds_to_tf32)
{
    const float one = 1.0f, unit = ldexpf(1.0f, -10), in[] = {
        one + unit / 2, one + unit * 0.4999f, -one - unit / 2, 2 - unit / 4, 3.4028e38f};
    const float want[] = {one + unit, one, -one - unit, 2.0f, INFINITY};
    float *x = managed(5, 0.0f);
    uint32_t *bits = managed(5, 0u);
    memcpy(x, in, sizeof in);
    round_all<<<1, 5>>>(bits, x);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 5; i++)
        cr_assert_arr_eq(&bits[i], &want[i], 4, "%d: %x", i, bits[i]);
}
/* test loads of matrices */
__global__ void load(uint32_t *out, int matrices, int transpose)
{
    __shared__ __align__(16) uint16_t scattered[32][8];
    int lane = threadIdx.x, at = lane * 11 % 32;
    for (int c = 0; c < 8; c++)
        scattered[at][c] = (uint16_t)(lane / 8 * 100 + lane % 8 * 10 + c);
    __syncwarp();
    const uint16_t *row = lane < 8 * matrices ? scattered[at] : NULL;
    uint32_t r[4] = {0, 0, 0, 0};
    if (matrices == 1)
        transpose ? dls_ldmatrix_x1_trans(r, row) : dls_ldmatrix_x1(r, row);
    else if (matrices == 2)
        transpose ? dls_ldmatrix_x2_trans(r, row) : dls_ldmatrix_x2(r, row);
    else
        transpose ? dls_ldmatrix_x4_trans(r, row) : dls_ldmatrix_x4(r, row);
    for (int i = 0; i < 4; i++)
        out[lane * 4 + i] = r[i];
}

Test(vgpu, ptx_loads_of_matrices)
{
    uint32_t *out = managed(128, 0u);
    FOR_SEEDS(seed)
        for (int matrices : {1, 2, 4})
            for (int transpose = 0; transpose < 2; transpose++) {
                load<<<1, 32>>>(out, matrices, transpose);
                OK(cudaDeviceSynchronize());
                for (int i = 0; i < 128; i++) {
                    int lane = i / 4, m = i % 4, group = lane / 4, two = lane % 4 * 2;
                    uint32_t low = transpose ? two * 10 + group : group * 10 + two;
                    uint32_t high = transpose ? low + 10 : low + 1;
                    uint32_t want = (low + 100 * m) | (high + 100 * m) << 16;
                    cr_assert_eq(out[i], m < matrices ? want : 0u, "lane %d: %x", lane,
                                 out[i]);
                }
            }
}
/* test copies that take their time */
__global__ void copy_in_groups(int *out, const int *in)
{
    __shared__ __align__(16) int s[5][32][4];
    int t = threadIdx.x;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 4; k++)
            s[i][t][k] = -1;
    for (int i = 0; i < 3; i++) {
        dls_cp_async_16(s[i][t], in + 4 * (32 * i + t));
        dls_cp_async_commit();
    }
    dls_cp_async_8(s[3][t], in + 4 * t);
    dls_cp_async_4(&s[3][t][2], in + 4 * t + 2);
    dls_cp_async_16_zfill(s[4][t], in + 4 * t, 4 * (t % 5));
#ifdef DLS_VIRTUAL_GPU
    out[0] |= s[0][t][0] != -1;
#endif
    dls_cp_async_wait<1>();
    out[0] |= s[0][t][0] != in[4 * t] || s[1][t][3] != in[4 * (32 + t) + 3];
#ifdef DLS_VIRTUAL_GPU
    out[0] |= s[2][t][0] != -1;
#endif
    dls_cp_async_wait<0>();
    out[0] |= s[2][t][1] != in[4 * (64 + t) + 1];
#ifdef DLS_VIRTUAL_GPU
    out[0] |= s[3][t][0] != -1;  // never committed
#endif
    dls_cp_async_wait_all();
    out[0] |= s[3][t][1] != in[4 * t + 1] || s[3][t][2] != in[4 * t + 2];
    out[0] |= s[3][t][3] != -1;
    for (int k = 0; k < 4; k++)
        out[0] |= s[4][t][k] != (k < t % 5 ? in[4 * t + k] : 0);
}

__global__ void double_buffer(int *out, const int *in, int tiles)
{
    __shared__ __align__(16) int s[2][64 * 4];
    int t = threadIdx.x, sum = 0;
    dls_cp_async_16(&s[0][4 * t], in + 4 * t);
    dls_cp_async_commit();
    for (int i = 0; i < tiles; i++) {
        if (i + 1 < tiles)
            dls_cp_async_16(&s[(i + 1) % 2][4 * t], in + 256 * (i + 1) + 4 * t);
        dls_cp_async_commit();
        dls_cp_async_wait<1>();
        __syncthreads();
        for (int k = 0; k < 4; k++)
            sum += s[i % 2][(4 * t + 4 + k) % 256];
        __syncthreads();
    }
    out[t] = sum;
}

Test(vgpu, ptx_copies)
{
    int *in = managed(7 * 256, 0), *out = managed(64, 0);
    for (int i = 0; i < 7 * 256; i++)
        in[i] = i * i % 1009;
    FOR_SEEDS(seed) {
        out[0] = 0;
        copy_in_groups<<<1, 32>>>(out, in);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(out[0], 0);
        double_buffer<<<1, 64>>>(out, in, 7);
        OK(cudaDeviceSynchronize());
        for (int t = 0; t < 64; t++) {
            int sum = 0;
            for (int i = 0; i < 28; i++)
                sum += in[i / 4 * 256 + (4 * t + 4 + i % 4) % 256];
            cr_assert_eq(out[t], sum, "thread %d", t);
        }
    }
}
/* test refused instructions */
#ifdef DLS_VIRTUAL_GPU
__global__ void misuse(int *x, int how)
{
    __shared__ __align__(16) int s[256];
    uint32_t r[4] = {0, 0, 0, 0};
    float d[4] = {0, 0, 0, 0};
    if (how == 0)
        dls_cp_async_16(&s[1], x);
    else if (how == 1)
        dls_cp_async_16(x, x + 4);
    else if (how == 2)
        dls_ldmatrix_x4(r, (char *)s + 8);
    else if (how == 3 && threadIdx.x < 31)
        dls_mma_m16n8k16_bf16(d, r, r, d);
    else if (how == 4 && threadIdx.x % 2)
        dls_mma_m16n8k16_bf16(d, r, r, d);
    else if (how == 4)
        dls_mma_m16n8k16_fp16(d, r, r, d);
}

#define MISUSE(name, how, error, ...)                                             \
    Test(vgpu, ptx_refuses_##name)                                                \
    {                                                                             \
        misuse<<<1, 32>>>(managed(64, 0), how);                                   \
        check_broken(error, {"kernel misuse", ".md:", __VA_ARGS__});              \
    }
MISUSE(misaligned_copy, 0, cudaErrorMisalignedAddress, "cp.async of 16 bytes",
       "multiples of 16")
MISUSE(copy_to_global, 1, cudaErrorIllegalAddress, "cp.async", "not in shared memory")
MISUSE(misaligned_row, 2, cudaErrorMisalignedAddress, "ldmatrix.x4", "multiple of 16")
MISUSE(missing_lane, 3, cudaErrorLaunchFailure, "mma.m16n8k16.bf16",
       "needs all 32 lanes of warp 0, and only 0x7fffffff are left")
MISUSE(two_shapes, 4, cudaErrorLaunchFailure, "different instructions",
       "mma.m16n8k16.bf16", "mma.m16n8k16.f16")
#endif

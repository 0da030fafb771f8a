/* tests/vgpu/test_hopper.cu: from chapters/A-virtual-gpu-simt-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* mbarrier, TMA, wgmma, named barriers: what they compute, and what mistakes lead to. */
#include "simt_test.h"

#include <cuda_bf16.h>
#include <math.h>
#include <stdint.h>

#include "vgpu/hopper.cuh"

/* multiply two tiles */
enum mistake { NONE, NO_WAIT, NO_FENCE, READ_EARLY, OVERWRITE, TOO_FEW_BYTES, NO_BARRIER,
               MISALIGNED, ALONE, TWO_COUNTS, TOO_MANY_ARRIVALS };

struct two_tiles {
    uint16_t a[64 * 64], b[128 * 64];  // b: 128 rows, or two panels of 64 rows
    uint64_t bar, never, rest[126];
};

/* Row `row`, channels 16k ... of tile a as the left operand in registers. */
static __device__ inline void load_rows(uint32_t r[4], const uint16_t *a, int k)
{
    int g = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = g + i % 2 * 8, piece = 2 * k + i / 2;
        memcpy(&r[i], &a[row * 64 + (piece ^ row % 8) * 8 + 2 * t], 4);
    }
}

template <int rows>
static __device__ inline void start_products(float d[16][4], const two_tiles *m,
                                             const uint32_t r[4][4])
{
    uint64_t a = dls_wgmma_tile(m->a, 16, 1024), b = dls_wgmma_tile(m->b, 8192, 1024);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (rows)
            dls_wgmma_m64n128k16_bf16_rows(d, r[k], dls_wgmma_step(b, 2048 * k), k > 0);
        else
            dls_wgmma_m64n128k16_bf16(d, dls_wgmma_step(a, 32 * k),
                                      dls_wgmma_step(b, 32 * k), k > 0);
    }
    dls_wgmma_commit();
}

static __device__ void copy_tiles(two_tiles *m, const dls_tensor_map *a,
                                  const dls_tensor_map *b, int rows, int how)
{
    uint64_t *bar = how == NO_BARRIER ? &m->never : &m->bar;
    dls_mbarrier_arrive_expect(bar, sizeof m->a +
                                        (how == TOO_FEW_BYTES ? 0 : sizeof m->b));
    dls_tma_load_4d(m->a + (how == MISALIGNED ? 8 : 0), a, bar, 0, 0, 0, 0);
    for (int panel = 0; panel <= rows; panel++)
        dls_tma_load_4d(m->b + panel * 64 * 64, b, bar, 64 * panel, 0, 0, 0);
    if (how == TOO_MANY_ARRIVALS)
        for (int i = 0; i < 2; i++)
            dls_mbarrier_arrive_expect(bar, 16);
}

/* out (64, 128) = A B^T, or A B with `rows`; A (50, 40); B (100, 40) or (40, 104). */
template <int rows>
__global__ void __launch_bounds__(128, 1)
multiply(const __grid_constant__ dls_tensor_map a,
         const __grid_constant__ dls_tensor_map b, float *out, int how)
{
#ifndef DLS_VIRTUAL_GPU
    how = NONE;
#endif
    extern __shared__ __align__(1024) unsigned char hopper_memory[];
    two_tiles *m = (two_tiles *)hopper_memory;
    float d[16][4], early = 0;
    if (threadIdx.x == 0) {
        dls_mbarrier_init(&m->bar, 1);
        dls_mbarrier_visible();
    }
    __syncthreads();
    if (threadIdx.x == 0)
        copy_tiles(m, &a, &b, rows, how);
    /* multiply the tiles that came */
    if (how == ALONE)
        dls_named_barrier_sync(3, 256);
    if (how == TWO_COUNTS)
        dls_named_barrier_arrive(3, threadIdx.x < 64 ? 128 : 256);
    if (how != NO_WAIT)
        dls_mbarrier_wait(&m->bar, 0);
    uint32_t r[4][4];
    #pragma unroll
    for (int k = 0; k < 4; k++)
        load_rows(r[k], m->a, k);
    if (how != NO_FENCE)
        dls_wgmma_fence();
    start_products<rows>(d, m, r);
    if (how == READ_EARLY)
        early = d[0][0];
    if (how == OVERWRITE) {
        __syncthreads();
        for (int i = threadIdx.x; i < 128 * 64; i += 128)
            m->b[i] = 0;
        __syncthreads();
    }
    dls_wgmma_wait<0>();
    dls_wgmma_arrived<16>(d);
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            out[(row + e / 2 * 8) * 128 + 8 * n + 2 * t + e % 2] = d[n][e];
    if (how == READ_EARLY)
        out[threadIdx.x] = early;
}

/* test the product of tiles */
static int value(int which, int row, int column)
{
    return (row * 7 + column * (5 + which) + which) % 9 - 4;
}

static uint16_t *tensor(int which, int rows, int columns)
{
    uint16_t *x = managed((size_t)rows * columns, (uint16_t)0);
    for (int i = 0; i < rows * columns; i++) {
        __nv_bfloat16 v = __float2bfloat16((float)value(which, i / columns, i % columns));
        memcpy(&x[i], &v, 2);
    }
    return x;
}

static dls_tensor_map map_of(const uint16_t *x, int rows, int columns, int box)
{
    dls_tensor_map map;
    const uint64_t size[4] = {(uint64_t)columns, 1, (uint64_t)rows, 1};
    const uint64_t step[4] = {2, 16, 2 * (uint64_t)columns, 16};
    const uint32_t boxes[4] = {64, 1, (uint32_t)box, 1};
    cr_assert_eq(dls_tensor_map_16bit(&map, x, 4, size, step, boxes), DLS_OK, "%s",
                 dls_status_message());
    return map;
}

/* Runs the kernel; false where there is no Hopper. */
static bool run_product(float *out, int rows, mistake how)
{
    struct cudaDeviceProp device;
    OK(cudaGetDeviceProperties(&device, 0));
    if (device.major != 9)
        return false;
    uint16_t *a = tensor(0, 50, 40), *b = rows ? tensor(1, 40, 104) : tensor(1, 100, 40);
    dls_tensor_map of_a = map_of(a, 50, 40, 64);
    dls_tensor_map of_b = rows ? map_of(b, 40, 104, 64) : map_of(b, 100, 40, 128);
    if (rows)
        multiply<1><<<1, 128, sizeof(two_tiles)>>>(of_a, of_b, out, how);
    else
        multiply<0><<<1, 128, sizeof(two_tiles)>>>(of_a, of_b, out, how);
    return true;
}

static float expected(int rows, int i, int n)
{
    int sum = 0;
    for (int k = 0; k < 40 && i < 50 && n < (rows ? 104 : 100); k++)
        sum += value(0, i, k) * (rows ? value(1, k, n) : value(1, n, k));
    return (float)sum;
}

Test(vgpu, hopper_products)
{
    float *out = managed(64 * 128, NAN);
    FOR_SEEDS(seed)
        for (int rows = 0; rows < 2; rows++) {
            if (!run_product(out, rows, NONE))
                return;
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 64 * 128; i++)
                cr_assert_eq(out[i], expected(rows, i / 128, i % 128), "form %d, (%d, %d)"
                             ": %g", rows, i / 128, i % 128, out[i]);
        }
}

/* test rounds of a pipeline */
/* sum[t] of what thread 0 put into the stages; turns: 0 1 0 1 ... */
__global__ void pipeline(int *sum, int *turns, int rounds)
{
    __shared__ uint64_t full[2], empty[2];
    __shared__ int stage[2], taken;
    int group = threadIdx.x / 64, mine = 0;
    if (threadIdx.x == 0) {
        taken = 0;
        for (int i = 0; i < 2; i++) {
            dls_mbarrier_init(&full[i], 1);
            dls_mbarrier_init(&empty[i], 127);
        }
        dls_mbarrier_visible();
    }
    __syncthreads();
    if (group == 1)
        dls_named_barrier_arrive(1, 128);
    for (int j = 0; j < rounds; j++) {
        int at = j % 2, parity = j / 2 % 2;
        /* pass a number through a stage */
        if (threadIdx.x == 0) {
            dls_mbarrier_wait(&empty[at], parity ^ 1);
            stage[at] = j * j;
            dls_mbarrier_arrive(&full[at]);
        } else {
            dls_mbarrier_wait(&full[at], parity);
            mine += stage[at];
            dls_mbarrier_arrive(&empty[at]);
        }
        dls_named_barrier_sync(1 + group, 128);
        if (threadIdx.x % 64 == 0)
            turns[taken++] = group;
        if (group == 0 || j + 1 < rounds)
            dls_named_barrier_arrive(2 - group, 128);
    }
    sum[threadIdx.x] = mine;
}

Test(vgpu, hopper_pipeline)
{
    int *sum = managed(128, -1), *turns = managed(18, -1);
    struct cudaDeviceProp device;
    OK(cudaGetDeviceProperties(&device, 0));
    FOR_SEEDS(seed) {
        if (device.major != 9)
            return;
        pipeline<<<1, 128>>>(sum, turns, 9);
        OK(cudaDeviceSynchronize());
        for (int t = 1; t < 128; t++)
            cr_assert_eq(sum[t], 204, "thread %d: %d", t, sum[t]);
        for (int i = 0; i < 18; i++)
            cr_assert_eq(turns[i], i % 2, "turn %d", i);
    }
}

/* test mistakes with hopper */
#ifdef DLS_VIRTUAL_GPU
Test(vgpu, hopper_mistakes_that_show)
{
    float *out = managed(64 * 128, 0.0f);
    for (int rows = 0; rows < 2; rows++) {
        run_product(out, rows, NO_WAIT);
        OK(cudaDeviceSynchronize());
        cr_expect(isnan(out[0]), "read a tile that had not come: %g", out[0]);
        run_product(out, rows, READ_EARLY);
        OK(cudaDeviceSynchronize());
        cr_expect(isnan(out[5]), "read an unfinished product: %g", out[5]);
        run_product(out, rows, OVERWRITE);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 128; i++)
            cr_expect_eq(out[i], 0, "a tile was overwritten too early and nobody saw it");
    }
}

#define MISTAKE(name, how, error, ...)                                            \
    Test(vgpu, hopper_refuses_##name)                                             \
    {                                                                             \
        run_product(managed(64 * 128, 0.0f), 0, how);                             \
        check_broken(error, {"kernel multiply<", ".md:", __VA_ARGS__});            \
    }
MISTAKE(a_product_without_a_fence, NO_FENCE, cudaErrorLaunchFailure,
        "wgmma without a wgmma.fence")
MISTAKE(too_few_bytes, TOO_FEW_BYTES, cudaErrorLaunchFailure, "waits for ever",
        "0 of 1 arrivals are missing, 24576 bytes of 8192")
MISTAKE(no_barrier, NO_BARRIER, cudaErrorLaunchFailure, "no mbarrier was initialised")
MISTAKE(misaligned_tile, MISALIGNED, cudaErrorMisalignedAddress, "multiple of 1024")
MISTAKE(a_turn_alone, ALONE, cudaErrorLaunchFailure, "waits for ever at barrier 3",
        "128 of 256 threads")
MISTAKE(two_counts, TWO_COUNTS, cudaErrorLaunchFailure, "barrier 3 for",
        "others came for")
MISTAKE(too_many_arrivals, TOO_MANY_ARRIVALS, cudaErrorLaunchFailure,
        "arrival 2 of 1", "0 bytes of 16")
#endif

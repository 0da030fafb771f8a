/* code/kernels/fp8.cu: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows in fp8 on the device, a warp per group of 128 columns; see fp8.h. */
#include "kernels/fp8.h"

#include <cuda_fp8.h>

#include "kernels/fp8_scale.h"
#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/fp8_host.h"
#include "kernels/host_pair.h"

constexpr int WARPS = 8; // groups of a block

/* pack on the device */
static __device__ inline unsigned code_of(float x, float inverse)
{
    return isfinite(x) ? __nv_cvt_float_to_fp8(x * inverse, __NV_SATFINITE, __NV_E4M3)
                       : 0x7fu;
}

// The group of this warp: of which row, and which of its groups. 0: none.
static __device__ inline int group_of_warp(int n, int groups, int *row, int *group)
{
    size_t i = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    *row = (int)(i / groups);
    *group = (int)(i % groups);
    return *row < n;
}

template <typename real>
__global__ void pack_kernel(unsigned *wire, const real *x, int n, int C, int groups)
{
    int row, group, lane = threadIdx.x % 32, words = groups + (C + 3) / 4;
    if (!group_of_warp(n, groups, &row, &group))
        return;
    int first = group * DLS_FP8_GROUP + 4 * lane;
    unsigned *out = wire + (size_t)row * words, word = 0;
    float each[4], most = 0;
    for (int k = 0; k < 4; k++) {
        each[k] = first + k < C ? float(x[(size_t)row * C + first + k]) : 0.0f;
        most = isfinite(each[k]) ? fmaxf(most, fabsf(each[k])) : most;
    }
    int q = dls_fp8_exponent(dls_warp_max(most));
    for (int k = 0; k < 4; k++)
        word |= code_of(each[k], ldexpf(1.0f, -q)) << 8 * k;
    if (first < C)
        out[groups + first / 4] = word;
    if (lane == 0)
        out[group] = __float_as_uint(ldexpf(1.0f, q));
}

/* unpack on the device */
template <typename real>
__global__ void unpack_kernel(real *x, const unsigned *wire, int n, int C, int groups)
{
    int row, group, lane = threadIdx.x % 32, words = groups + (C + 3) / 4;
    if (!group_of_warp(n, groups, &row, &group))
        return;
    int first = group * DLS_FP8_GROUP + 4 * lane;
    const unsigned *in = wire + (size_t)row * words;
    float scale = __uint_as_float(in[group]);
    unsigned word = first < C ? in[groups + first / 4] : 0;
    for (int k = 0; k < 4 && first + k < C; k++) {
        __nv_fp8_e4m3 code;
        code.__x = (__nv_fp8_storage_t)(word >> 8 * k & 0xff);
        x[(size_t)row * C + first + k] = real(float(code) * scale);
    }
}

/* launch fp8 */
template <typename real>
static dls_status pack(dls_ctx *ctx, void *wire, const real *x, int n, int C)
{
    int groups = (C + DLS_FP8_GROUP - 1) / DLS_FP8_GROUP;
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "pack fp8", 3.0 * n * C,
                    (double)n * (C * sizeof(real) + dls_fp8_row_bytes(C)));
    DLS_RUN_ON_HOST(ctx, dls_fp8_pack, wire, x, n, C);
    pack_kernel<<<dls_blocks((size_t)n * groups, WARPS), 32 * WARPS, 0, ctx->stream>>>(
        (unsigned *)wire, x, n, C, groups);
    return dls_launched();
}

template <typename real>
static dls_status unpack(dls_ctx *ctx, real *x, const void *wire, int n, int C)
{
    int groups = (C + DLS_FP8_GROUP - 1) / DLS_FP8_GROUP;
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "unpack fp8", 1.0 * n * C,
                    (double)n * (C * sizeof(real) + dls_fp8_row_bytes(C)));
    DLS_RUN_ON_HOST(ctx, dls_fp8_unpack, x, wire, n, C);
    unpack_kernel<<<dls_blocks((size_t)n * groups, WARPS), 32 * WARPS, 0, ctx->stream>>>(
        x, (const unsigned *)wire, n, C, groups);
    return dls_launched();
}

extern "C" dls_status dls_fp8_pack(dls_ctx *ctx, void *wire, const void *x, int n, int C)
{
    return DLS_BY_TYPE(ctx, pack(ctx, wire, (const real *)x, n, C));
}

extern "C" dls_status dls_fp8_unpack(dls_ctx *ctx, void *x, const void *wire, int n,
                                     int C)
{
    return DLS_BY_TYPE(ctx, unpack(ctx, (real *)x, wire, n, C));
}

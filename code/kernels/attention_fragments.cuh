/* code/kernels/attention_fragments.cuh: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax over the fragments in which tensor cores leave their sums.
 *
 * A warp's 16 rows of scores are float s[N][4], N pieces of 8 columns. A lane, with
 * g = lane / 4 and t = lane % 4, holds
 *
 *     s[n][0], s[n][1]    row g,     columns 8n + 2t and 8n + 2t + 1
 *     s[n][2], s[n][3]    row g + 8, the same columns
 *
 * so four lanes, a quad, share a row, and a lane has part of two rows, numbered 0 and 1
 * below. mma.sync and wgmma agree on this. FlashAttention-2, Dao 2023, section 3.
 */
#ifndef DLS_KERNELS_ATTENTION_FRAGMENTS_CUH
#define DLS_KERNELS_ATTENTION_FRAGMENTS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "vgpu/gpu.h"
#include "vgpu/ptx.cuh"

/* reduce over a quad */
static __device__ inline float attention_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

static __device__ inline float attention_quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* keep the state of rows */
struct attention_rows {
    float max[2];  // of the scores so far, before the scale
    float sum[2];  // of this lane's exponentials, relative to that maximum
};

static __device__ inline attention_rows attention_rows_begin()
{
    return {{-INFINITY, -INFINITY}, {0, 0}};
}

/* hide unseen columns */
/* Columns from sees[0] or sees[1] on become -inf. s begins at column `first`. */
template <int N>
static __device__ inline void attention_hide(float s[N][4], int first, const int sees[2])
{
    int column = first + threadIdx.x % 4 * 2;
DLS_UNROLL
    for (int n = 0; n < N; n++)
DLS_UNROLL
        for (int e = 0; e < 4; e++)
            if (column + 8 * n + e % 2 >= sees[e / 2])
                s[n][e] = -INFINITY;
}

/* exponentiate the fragments */
/* One step of the online softmax: replaces scores by exponentials relative to the new
 * maximum, and returns in shrink[] by what everything older has to be multiplied. */
template <int N>
static __device__ inline void attention_exponentiate(float s[N][4], attention_rows *rows,
                                                     float scale2, float shrink[2])
{
DLS_UNROLL
    for (int h = 0; h < 2; h++) {
        float top = rows->max[h];
DLS_UNROLL
        for (int n = 0; n < N; n++)
            top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        top = attention_quad_max(top);
        float base = top == -INFINITY ? 0 : top * scale2, sum = 0;
        shrink[h] = dls_ex2(rows->max[h] * scale2 - base);
        rows->max[h] = top;
        /* exponentiate one row */
        DLS_UNROLL
        for (int n = 0; n < N; n++)
        DLS_UNROLL
            for (int e = 2 * h; e < 2 * h + 2; e++) {
                s[n][e] = dls_ex2(s[n][e] * scale2 - base);
                sum += s[n][e];
            }
        rows->sum[h] = rows->sum[h] * shrink[h] + sum;
    }
}

/* drop weights of fragments */
/* Zeroes the weights that the gate drops; query[] are the positions of the two rows. */
template <int N>
static __device__ inline void attention_drop(float s[N][4], const dls_dropout_gate &gate,
                                             int first, const int query[2])
{
    int t = threadIdx.x % 4, odd = t % 2;
DLS_UNROLL
    for (int n = 0; n < N; n++) {
        uint64_t pair = dls_dropout_pair((uint32_t)(odd ? query[1] : query[0]),
                                         (uint32_t)(first + 8 * n + t / 2 * 4));
        unsigned drawn = dls_dropout_keeps4(&gate, pair / 4);
        unsigned other = __shfl_xor_sync(0xffffffffu, drawn, 1);
DLS_UNROLL
        for (int e = 0; e < 4; e++) {
            unsigned bits = e / 2 == odd ? drawn : other;
            if (!(bits >> (2 * odd + e % 2) & 1))
                s[n][e] = 0;
        }
    }
}

/* The same where rows are keys and columns are queries: bit e tells whether element e of
 * a piece is kept. `query` is the position of the lane's first column, `key` its row. */
static __device__ inline unsigned attention_keeps_columns(const dls_dropout_gate &gate,
                                                          int query, int key)
{
    int lane = threadIdx.x % 32, place = lane / 4 % 4;
    uint64_t pair = dls_dropout_pair((uint32_t)(query + place % 2),
                                     (uint32_t)(key / 4 * 4 + place / 2 * 8));
    unsigned drawn = dls_dropout_keeps4(&gate, pair / 4), keeps = 0;
DLS_UNROLL
    for (int e = 0; e < 4; e++) {
        unsigned bits = __shfl_sync(0xffffffffu, drawn, (lane & ~12) | e << 2);
        keeps |= (bits >> place & 1) << e;
    }
    return keeps;
}

/* pack weights as an operand */
struct attention_bf16 {
    static __device__ uint32_t pack(float low, float high)
    {
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        uint32_t bits;
        memcpy(&bits, &pair, sizeof bits);
        return bits;
    }
    static __device__ float2 unpack(uint32_t bits)
    {
        __nv_bfloat162 pair;
        memcpy(&pair, &bits, sizeof bits);
        return __bfloat1622float2(pair);
    }
    static __device__ void mma(float *d, const uint32_t *a, const uint32_t *b)
    {
        dls_mma_m16n8k16_bf16(d, a, b, d);
    }
};

struct attention_fp16 {
    static __device__ uint32_t pack(float low, float high)
    {
        __half2 pair = __floats2half2_rn(low, high);
        uint32_t bits;
        memcpy(&bits, &pair, sizeof bits);
        return bits;
    }
    static __device__ float2 unpack(uint32_t bits)
    {
        __half2 pair;
        memcpy(&pair, &bits, sizeof bits);
        return __half22float2(pair);
    }
    static __device__ void mma(float *d, const uint32_t *a, const uint32_t *b)
    {
        dls_mma_m16n8k16_fp16(d, a, b, d);
    }
};

/* Columns 16k ... 16k + 15 of the weights as the left operand of a product. */
template <class format>
static __device__ inline void attention_pack(uint32_t a[4], const float s[2][4])
{
    a[0] = format::pack(s[0][0], s[0][1]);
    a[1] = format::pack(s[0][2], s[0][3]);
    a[2] = format::pack(s[1][0], s[1][1]);
    a[3] = format::pack(s[1][2], s[1][3]);
}

/* finish the rows */
/* What the sums of the values are multiplied by, and the log-sum-exp of the two rows. */
static __device__ inline void attention_finish(const attention_rows &rows, float scale,
                                               float inverse[2], float lse[2])
{
DLS_UNROLL
    for (int h = 0; h < 2; h++) {
        float sum = attention_quad_sum(rows.sum[h]);
        inverse[h] = sum == 0 ? 0 : 1 / sum;
        lse[h] = sum == 0 ? -INFINITY : rows.max[h] * scale + logf(sum);
    }
}
/* announce an attention */
/* Each product takes two operations per channel of a visible pair. Moved are `arrays`
 * rows of channels per query, two per key, and `numbers` floats per query. */
static inline void attention_announce(const char *name, const dls_attention_shape &s,
                                      int products, int arrays, int numbers)
{
    double heads = arrays * s.tokens_q * s.H + 2 * s.tokens_k * s.Hk;
    dls_gpu_cost_of(DLS_WORK_ATTENTION_BF16, name, 2.0 * products * s.pairs * s.H * s.D,
                    2 * heads * s.D + 4.0 * numbers * s.tokens_q * s.H);
}

#endif

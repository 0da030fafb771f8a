/* code/kernels/attention_decode.cu: from chapters/10-flash-attention-decode.md. Edit the chapter, or edit here and run "make untangle". */
/* Split-KV decoding in two kernels.
 *
 *   block (sequence and key head, part, rows)    rows: queries x heads of the group
 *     warp w takes the tiles of 32 keys number w, w + 4, ... of the part
 *       a lane has one key:         scores of all rows, from a transposed tile
 *       a lane has some channels:   output of all rows, values straight from memory
 *     the four warps merge; the part's output and log-sum-exp go to memory
 *   warp (row)                                   merges the parts
 */
#include "kernels/attention_decode.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/attention_flash_host.h"
#include "kernels/host_pair.h"

enum { WARPS = 4, LARGEST_HEAD = 256, MOST_SPLITS = 64 };

/* describe a decoding */
template <typename real> struct decoding {
    dls_attention_shape s;  // completed
    int splits;
    real *out;              // of one part alone ...
    dls_acc<real> *lse;     // ... or NULL
    dls_acc<real> *part_out, *part_lse;  // (splits, B, H, Tq, D), (splits, B, H, Tq)
    const real *q, *k, *v;
};

/* What a block works on: the keys from ... to - 1 of a head. */
template <typename real> struct part {
    int b, kv, rows, queries, keys, from, to;
    const real *k, *v;

    __device__ explicit part(const decoding<real> &d)
    {
        const dls_attention_shape &s = d.s;
        b = blockIdx.x / s.Hk;
        kv = blockIdx.x % s.Hk;
        queries = dls_attention_queries(&s, b);
        keys = dls_attention_keys(&s, b);
        rows = s.Tq * (s.H / s.Hk);
        int length = (keys + d.splits - 1) / d.splits;
        from = min((int)blockIdx.y * length, keys);
        to = min(from + length, keys);
        k = d.k + dls_attention_at(s.starts_k, s.k_sequence, s.k_row, b) + kv * s.D;
        v = d.v + dls_attention_at(s.starts_k, s.v_sequence, s.v_row, b) + kv * s.D;
    }
};

/* score a tile of keys */
/* s[r] = the product of row r with key j0 + lane. */
template <typename real, typename acc, int R>
static __device__ inline void score(acc s[R], const part<real> &p, int j0, size_t row,
                                    int D, const acc *queries, acc *tile)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < R; r++)
        s[r] = 0;
    for (int d0 = 0; d0 < D; d0 += 32) {
#pragma unroll 32
        for (int j = 0; j < 32; j++)
            tile[33 * j + lane] = j0 + j < p.to && d0 + lane < D
                                      ? acc(p.k[(j0 + j) * row + d0 + lane]) : acc(0);
        __syncwarp();
        for (int d = 0; d < 32; d++) {
            acc x = tile[33 * lane + d];
#pragma unroll
            for (int r = 0; r < R; r++)
                s[r] += queries[r * LARGEST_HEAD + d0 + d] * x;
        }
        __syncwarp();
    }
}

/* weigh the scores of a lane */
template <typename acc, int R> struct decode_rows {
    acc most[R], sum[R];  // sum: this lane's
};

/* Scores become weights relative to the new maximum, in weights[r][lane]. */
template <typename acc, int R>
static __device__ inline void weigh(const acc s[R], int j, const int sees[R],
                                    decode_rows<acc, R> *state, acc shrink[R],
                                    acc *weights)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < R; r++) {
        acc own = j < sees[r] ? s[r] : acc(-INFINITY);
        acc most = dls_warp_max(own);
        most = most > state->most[r] ? most : state->most[r];
        acc base = most == acc(-INFINITY) ? acc(0) : most;
        shrink[r] = exp(state->most[r] - base);
        acc weight = exp(own - base);
        state->most[r] = most;
        state->sum[r] = state->sum[r] * shrink[r] + weight;
        weights[32 * r + lane] = weight;
    }
}

/* add weighted values */
template <typename real, typename acc, int R, int C>
static __device__ inline void add_values(acc o[R][C], const part<real> &p, int j0,
                                         size_t row, int D, const acc *weights)
{
    int lane = threadIdx.x % 32, count = min(32, p.to - j0);
#pragma unroll 8
    for (int j = 0; j < count; j++)
#pragma unroll
        for (int c = 0; c < C; c++) {
            int d = 32 * c + lane;
            acc x = d < D ? acc(p.v[(j0 + j) * row + d]) : acc(0);
#pragma unroll
            for (int r = 0; r < R; r++)
                o[r][c] += weights[32 * r + j] * x;
        }
}

/* merge the warps */
/* Adds the warps' outputs, in order, in out[r][d]; mosts[0], sums[0] are the block's. */
template <typename acc, int R, int C>
static __device__ inline void merge_warps(acc o[R][C], decode_rows<acc, R> *state,
                                          acc (*mosts)[R], acc (*sums)[R], acc *out)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < R; r++) {
        acc sum = dls_warp_sum(state->sum[r]);
        if (lane == 0) {
            mosts[warp][r] = state->most[r];
            sums[warp][r] = sum;
        }
    }
    __syncthreads();
    acc factor[R];
    /* find the factor of a warp */
    #pragma unroll
    for (int r = 0; r < R; r++) {
        acc most = mosts[0][r], sum = 0;
        for (int w = 1; w < WARPS; w++)
            most = mosts[w][r] > most ? mosts[w][r] : most;
        acc base = most == acc(-INFINITY) ? acc(0) : most;
        factor[r] = exp(state->most[r] - base);
        for (int w = 0; w < WARPS; w++)
            sum += sums[w][r] * exp(mosts[w][r] - base);
        state->most[r] = most;
        state->sum[r] = sum;
    }
    for (int turn = 0; turn < WARPS; turn++) {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int c = 0; c < C; c++)
                if (turn == warp) {
                    acc *to = &out[r * LARGEST_HEAD + 32 * c + lane];
                    *to = (turn ? *to : acc(0)) + o[r][c] * factor[r];
                }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < R; r++)
        if (threadIdx.x == 0) {
            mosts[0][r] = state->most[r];
            sums[0][r] = state->sum[r];
        }
    __syncthreads();
}

/* decode a part */
template <typename real, int R, int C>
__global__ void __launch_bounds__(32 * WARPS, 1) decode_part_kernel(decoding<real> d)
{
    using acc = dls_acc<real>;
    __shared__ acc queries[R * LARGEST_HEAD], tiles[WARPS][32 * 33];
    __shared__ acc weights[WARPS][R * 32], mosts[WARPS][R], sums[WARPS][R];
    const dls_attention_shape &s = d.s;
    part<real> p(d);
    int first = blockIdx.z * R, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (first >= p.rows)
        return;  // the whole block
    /* load the rows of a group */
    int group = s.H / s.Hk, sees[R];
    decode_rows<acc, R> state;
    #pragma unroll
    for (int r = 0; r < R; r++) {
        int row = first + r, i = row % s.Tq, h = p.kv * group + row / s.Tq;
        int exists = row < p.rows && i < p.queries;
        const real *from = d.q + dls_attention_at(s.starts_q, s.q_sequence, s.q_row, p.b) +
                           i * s.q_row + h * s.D;
        for (int c = threadIdx.x; c < LARGEST_HEAD; c += 32 * WARPS)
            queries[r * LARGEST_HEAD + c] = exists && c < s.D
                                                ? acc(from[c]) * acc(s.scale) : acc(0);
        sees[r] = exists ? min(dls_attention_seen(&s, i, p.queries, p.keys), p.to) : 0;
        state.most[r] = -INFINITY;
        state.sum[r] = 0;
    }
    __syncthreads();
    acc o[R][C] = {};
    for (int j0 = p.from + 32 * warp; j0 < p.to; j0 += 32 * WARPS) {
        acc score_of[R], shrink[R];
        score<real, acc, R>(score_of, p, j0, s.k_row, s.D, queries, tiles[warp]);
        weigh<acc, R>(score_of, j0 + lane, sees, &state, shrink, weights[warp]);
        __syncwarp();
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int c = 0; c < C; c++)
                o[r][c] *= shrink[r];
        add_values<real, acc, R, C>(o, p, j0, s.v_row, s.D, weights[warp]);
        __syncwarp();
    }
    __syncthreads();  // everybody is done with the queries, whose place is taken
    merge_warps<acc, R, C>(o, &state, mosts, sums, queries);
    /* write the part */
    for (int e = threadIdx.x; e < R * s.D; e += 32 * WARPS) {
        int r = e / s.D, c = e % s.D, row = first + r;
        if (row >= p.rows)
            break;
        int i = row % s.Tq, h = p.kv * group + row / s.Tq;
        size_t at = ((size_t)p.b * s.H + h) * s.Tq + i;
        size_t part_at = (size_t)blockIdx.y * s.B * s.H * s.Tq + at;
        acc sum = sums[0][r], most = mosts[0][r];
        acc y = sum == 0 ? acc(0) : queries[r * LARGEST_HEAD + c] / sum;
        acc log_sum = sum == 0 ? acc(-INFINITY) : most + log(sum);
        if (d.splits == 1 && i < p.queries)
            d.out[dls_attention_at(s.starts_q, s.o_sequence, s.o_row, p.b) + i * s.o_row +
                  h * s.D + c] = real(y);
        else if (d.splits > 1)
            d.part_out[part_at * s.D + c] = y;
        acc *lse = d.splits == 1 ? d.lse : d.part_lse;
        if (c == 0 && lse)
            lse[d.splits == 1 ? at : part_at] = log_sum;
    }
}

/* merge the parts */
template <typename real>
__global__ void decode_merge_kernel(decoding<real> d, size_t rows)
{
    using acc = dls_acc<real>;
    const dls_attention_shape &s = d.s;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32, i = n % s.Tq, h = n / s.Tq % s.H, b = n / s.Tq / s.H;
    if (n >= rows)
        return;  // the whole warp
    acc most = -INFINITY, sum = 0;
    for (int a = lane; a < d.splits; a += 32)
        most = d.part_lse[a * rows + n] > most ? d.part_lse[a * rows + n] : most;
    most = dls_warp_max(most);
    acc base = most == acc(-INFINITY) ? acc(0) : most;
    for (int a = lane; a < d.splits; a += 32)
        sum += exp(d.part_lse[a * rows + n] - base);
    sum = dls_warp_sum(sum);
    /* add the parts of a row */
    real *out = d.out + dls_attention_at(s.starts_q, s.o_sequence, s.o_row, b) +
                i * s.o_row + h * s.D;
    int exists = i < dls_attention_queries(&s, b);
    for (int c = lane; c < s.D && exists; c += 32) {
        acc y = 0;
        for (int a = 0; a < d.splits; a++)
            y += exp(d.part_lse[a * rows + n] - base) * d.part_out[(a * rows + n) * s.D + c];
        out[c] = real(sum == 0 ? acc(0) : y / sum);
    }
    if (lane == 0 && d.lse)
        d.lse[n] = sum == 0 ? acc(-INFINITY) : most + log(sum);
}

/* choose the number of parts */
/* Blocks that fill the device's memory system: two for each multiprocessor. */
static int wanted_blocks()
{
    int device = 0, processors = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    return 2 * processors;
}

static int row_tile(const dls_attention_shape *s, dls_dtype dtype)
{
    int rows = s->Tq * (s->H / s->Hk), most = dtype == DLS_F64 ? 4 : 8;
    return rows <= 1 ? 1 : rows <= 4 ? 4 : most;
}

static int row_tiles(const dls_attention_shape *s, dls_dtype dtype)
{
    int rows = s->Tq * (s->H / s->Hk), tile = row_tile(s, dtype);
    return (rows + tile - 1) / tile;
}

extern "C" int dls_attention_splits(const dls_attention_shape *s)
{
    int pairs = s->B * s->Hk * row_tiles(s, DLS_F32);
    int most = (s->Tk + 127) / 128;
    int splits = pairs > 0 ? (wanted_blocks() + pairs - 1) / pairs : 1;
    splits = splits < most ? splits : most;
    return splits < 1 ? 1 : splits < MOST_SPLITS ? splits : MOST_SPLITS;
}

extern "C" size_t dls_attention_decode_temporary(const dls_attention_shape *s,
                                                 dls_dtype dtype, int splits)
{
    size_t rows = (size_t)s->B * s->H * s->Tq;
    return splits <= 1 ? 0 : (size_t)splits * rows * (s->D + 1) *
                                 dls_dtype_size(dls_dtype_accumulator(dtype));
}

/* launch the decoding */
/* The bytes of the cache, as often as rows need several tiles. */
template <typename real> static void announce_parts(const decoding<real> &d, int tiles)
{
    const dls_attention_shape &s = d.s;
    double blocks = (double)s.B * s.Hk * d.splits * tiles, wanted = wanted_blocks();
    double bytes = 2.0 * s.tokens_k * s.Hk * s.D * tiles * sizeof(real);
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, "attention decode",
                    4 * s.pairs * s.H * s.D,
                    bytes * (blocks < wanted ? wanted / blocks : 1));
}

template <typename real> static void announce_merge(const decoding<real> &d)
{
    const dls_attention_shape &s = d.s;
    double elements = (double)s.B * s.H * s.Tq * s.D;
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, "attention decode merge",
                    2 * elements * d.splits,
                    elements * (d.splits * sizeof(dls_acc<real>) + sizeof(real)));
}

template <typename real, int R, int C>
static dls_status launch_part(dls_ctx *ctx, const decoding<real> &d, int tiles)
{
    dim3 grid((unsigned)d.s.B * d.s.Hk, (unsigned)d.splits, (unsigned)tiles);
    decode_part_kernel<real, R, C><<<grid, 32 * WARPS, 0, ctx->stream>>>(d);
    return dls_launched();
}

template <typename real, int R>
static dls_status launch_sized(dls_ctx *ctx, const decoding<real> &d, int tiles)
{
    if (d.s.D <= 64)
        return launch_part<real, R, 2>(ctx, d, tiles);
    return d.s.D <= 128 ? launch_part<real, R, 4>(ctx, d, tiles)
                        : launch_part<real, R, 8>(ctx, d, tiles);
}

template <typename real>
static dls_status decode(dls_ctx *ctx, decoding<real> d, void *temporary)
{
    size_t rows = (size_t)d.s.B * d.s.H * d.s.Tq;
    int tile = row_tile(&d.s, ctx->dtype), tiles = row_tiles(&d.s, ctx->dtype);
    d.part_out = (dls_acc<real> *)temporary;
    d.part_lse = d.part_out + d.splits * rows * d.s.D;
    announce_parts(d, tiles);
    if (d.splits > 1) {
        DLS_CHARGE_ON_HOST(ctx);
        announce_merge(d);
    }
    DLS_RUN_ON_HOST(ctx, dls_attention_flash_forward, d.s, d.out, d.lse, d.q, d.k, d.v);
    announce_parts(d, tiles);
    if (tile == 1)
        DLS_TRY((launch_sized<real, 1>(ctx, d, tiles)));
    else if (tile == 4)
        DLS_TRY((launch_sized<real, 4>(ctx, d, tiles)));
    else if constexpr (sizeof(dls_acc<real>) == 4)
        DLS_TRY((launch_sized<real, 8>(ctx, d, tiles)));
    if (d.splits == 1)
        return DLS_OK;
    announce_merge(d);
    decode_merge_kernel<real>
        <<<dls_blocks(rows, WARPS), 32 * WARPS, 0, ctx->stream>>>(d, rows);
    return dls_launched();
}

extern "C" dls_status dls_attention_decode(dls_ctx *ctx, const dls_attention_shape *shape,
                                           int splits, void *out, void *lse,
                                           void *temporary, const void *q, const void *k,
                                           const void *v)
{
    dls_attention_shape s = *shape;
    DLS_TRY(dls_attention_complete(&s));
    if (s.D > LARGEST_HEAD || s.dropout > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "attention decode: head size %d, dropout %g: "
                        "expected at most %d and none", s.D, s.dropout, LARGEST_HEAD);
    if (splits < 1 || splits > MOST_SPLITS)
        return DLS_FAIL(DLS_ERR_INPUT, "attention decode: %d parts: expected 1 to %d",
                        splits, MOST_SPLITS);
    if (s.B == 0 || s.Tq == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, decode(ctx, decoding<real>{s, splits, (real *)out, (acc *)lse,
                                                       nullptr, nullptr, (const real *)q,
                                                       (const real *)k, (const real *)v},
                                   temporary));
}

/* code/kernels/attention_tensor.cu: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash Attention, forward, on tensor cores: FlashAttention-2 (Dao 2023) by mma.sync and
 * cp.async.
 *
 *   block   64 query rows of one head; warp w owns the rows 16w ... 16w + 15
 *   shared  [ queries | stage 0: keys, values | stage 1: keys, values ]
 *
 *   for each tile of keys:   wait for its stage; start the copies of the next one;
 *       S = Q K^T            ldmatrix of the keys, mma
 *       P = exp(S - max)     on the fragments; the output shrinks where the max grew
 *       O += P V             P is its own operand; ldmatrix.trans of the values, mma
 *
 * The rows of a tile are swizzled in pieces of 16 bytes, so that neither the copies nor
 * ldmatrix have bank conflicts. Sizes are padded with zeros, which cp.async writes.
 */
#include "kernels/attention_tensor.h"

#include <stdint.h>

#include "kernels/attention_tiles.cuh"
#include "kernels/launch.cuh"

/* define the tile sizes */
template <int D> struct attention_tile {
    static constexpr int KEYS = D <= 128 ? 64 : 32;     // of a stage
    static constexpr int KEPT = D <= 128 ? D / 16 : 1;  // fragments of queries kept
    static constexpr int STAGE = 2 * KEYS * D;          // elements: keys, then values
    static constexpr int BYTES = (ROWS * D + 2 * STAGE) * 2;
};

/* describe the work of a block */
struct tensor_attention {
    dls_attention_shape s;  // completed
    uint16_t *out;
    float *lse;             // or NULL
    const uint16_t *q, *k, *v;
    dls_dropout_gate gate;
};

struct attention_work {
    int b, h, first;        // the sequence, the head, the first query row of the block
    int queries, keys;      // in the sequence
    const uint16_t *q, *k, *v;  // of this head, at row 0 of the sequence
    uint16_t *out;
};

static __device__ inline attention_work find_work(const tensor_attention &a)
{
    const dls_attention_shape &s = a.s;
    int b = blockIdx.x / s.H, h = blockIdx.x % s.H, kv = h / (s.H / s.Hk);
    return {b, h, (int)(gridDim.y - 1 - blockIdx.y) * ROWS,
            dls_attention_queries(&s, b), dls_attention_keys(&s, b),
            a.q + dls_attention_at(s.starts_q, s.q_sequence, s.q_row, b) + h * s.D,
            a.k + dls_attention_at(s.starts_k, s.k_sequence, s.k_row, b) + kv * s.D,
            a.v + dls_attention_at(s.starts_k, s.v_sequence, s.v_row, b) + kv * s.D,
            a.out + dls_attention_at(s.starts_q, s.o_sequence, s.o_row, b) + h * s.D};
}

/* How many keys row i of the sequence sees. */
static __device__ inline int seen(const tensor_attention &a, const attention_work &w,
                                  int i)
{
    return dls_attention_seen(&a.s, i, w.queries, w.keys);
}

static __device__ inline void leave_empty(const tensor_attention &a,
                                          const attention_work &w)
{
    int i = w.first + threadIdx.x;
    if (a.lse && threadIdx.x < ROWS && i < a.s.Tq)
        a.lse[((size_t)w.b * a.s.H + w.h) * a.s.Tq + i] = -INFINITY;
}

/* fetch a stage */
/* Keys and values of tile j, as one group. */
template <int D>
static __device__ inline void fetch_stage(uint16_t *stage, const tensor_attention &a,
                                          const attention_work &w, int j)
{
    constexpr int KEYS = attention_tile<D>::KEYS;
    int first = j * KEYS, rows = w.keys - first;
    fetch_rows<D>(stage, w.k + first * a.s.k_row, a.s.k_row, KEYS, rows, a.s.D / 8);
    fetch_rows<D>(stage + KEYS * D, w.v + first * a.s.v_row, a.s.v_row, KEYS, rows,
                  a.s.D / 8);
}

/* multiply queries by keys */
template <int D, class format>
static __device__ inline void multiply_scores(
    float s[][4], const uint32_t q[][4], const uint16_t *queries, const uint16_t *keys)
{
    using tile = attention_tile<D>;
    int lane = threadIdx.x % 32, key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        uint32_t again[4], b[4];
        if (tile::KEPT == 1)
            load_rows<D>(again, queries, threadIdx.x / 32 * 16, d);
        const uint32_t *a = tile::KEPT == 1 ? again : q[d % tile::KEPT];
#pragma unroll
        for (int n = 0; n < tile::KEYS / 16; n++) {
            dls_ldmatrix_x4(b, &keys[swizzled<D>(16 * n + key, 2 * d + half)]);
            format::mma(s[2 * n], a, b);
            format::mma(s[2 * n + 1], a, b + 2);
        }
    }
}

/* attend on tensor cores */
template <int D, class format, bool drops>
__global__ void __launch_bounds__(THREADS, 1) attention_tensor_kernel(tensor_attention a)
{
    using tile = attention_tile<D>;
    extern __shared__ __align__(128) uint16_t tensor_shared[];
    uint16_t *queries = tensor_shared, *stages = tensor_shared + ROWS * D;
    attention_work w = find_work(a);
    if (w.first >= w.queries) {
        leave_empty(a, w);
        return;  // the whole block
    }
    int row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
    int i = w.first + row + lane / 4;
    const int sees[2] = {seen(a, w, i), seen(a, w, i + 8)};
    int most = seen(a, w, w.first + ROWS - 1);
    float scale = (float)a.s.scale, scale2 = scale * 1.44269504f;
    const dls_dropout_gate gate = dls_dropout_of_head(
        a.gate, a.s.first_sequence + w.b, a.s.first_head + w.h);
    /* fetch the queries and the first tile */
    fetch_rows<D>(queries, w.q + (size_t)w.first * a.s.q_row, a.s.q_row, ROWS,
                  w.queries - w.first, a.s.D / 8);
    dls_cp_async_commit();
    if (most > 0)
        fetch_stage<D>(stages, a, w, 0);
    dls_cp_async_commit();
    dls_cp_async_wait<1>();
    __syncthreads();
    uint32_t q[tile::KEPT][4];
    #pragma unroll
    for (int d = 0; d < tile::KEPT; d++)
        load_rows<D>(q[d], queries, row, d);
    float o[D / 8][4] = {};
    attention_rows rows = attention_rows_begin();
    for (int j = 0; j * tile::KEYS < most; j++) {
        uint16_t *stage = stages + j % 2 * tile::STAGE;
        dls_cp_async_wait<0>();
        __syncthreads();
        if ((j + 1) * tile::KEYS < most)
            fetch_stage<D>(stages + (j + 1) % 2 * tile::STAGE, a, w, j + 1);
        dls_cp_async_commit();
        /* attend to one tile */
        float s[tile::KEYS / 8][4] = {}, shrink[2];
        multiply_scores<D, format>(s, q, queries, stage);
        if ((j + 1) * tile::KEYS > seen(a, w, w.first + row))
            attention_hide<tile::KEYS / 8>(s, j * tile::KEYS, sees);
        attention_exponentiate<tile::KEYS / 8>(s, &rows, scale2, shrink);
        #pragma unroll
        for (int n = 0; n < D / 8; n++)
        #pragma unroll
            for (int e = 0; e < 4; e++)
                o[n][e] *= shrink[e / 2];
        if (drops) {
            int at = dls_attention_position(&a.s, i, w.queries, w.keys), both[2] = {at, at + 8};
            attention_drop<tile::KEYS / 8>(s, gate, j * tile::KEYS, both);
        }
        multiply_values<D, tile::KEYS, format>(o, s, stage + tile::KEYS * D);
    }
    /* finish the block */
    float factor[2], lse[2];
    attention_finish(rows, scale, factor, lse);
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        if (drops)
            factor[h] *= (float)a.gate.scale;
        if (a.lse && lane % 4 == 0 && i + 8 * h < a.s.Tq)
            a.lse[((size_t)w.b * a.s.H + w.h) * a.s.Tq + i + 8 * h] =
                i + 8 * h < w.queries ? lse[h] : -INFINITY;
    }
    __syncwarp();
    gather_rows<D, format>(queries, row, o, factor);
    __syncwarp();
    store_rows<D>(w.out + w.first * a.s.o_row, a.s.o_row, queries, row, w.queries - w.first,
                  a.s.D / 8);
}

/* launch the tensor attention */
extern "C" int dls_attention_tensor_applies(const dls_attention_shape *given,
                                            const void *out, const void *q,
                                            const void *k, const void *v)
{
    dls_attention_shape s = *given;
    if (dls_attention_complete(&s) != DLS_OK)
        return 0;
    uintptr_t starts = (uintptr_t)out | (uintptr_t)q | (uintptr_t)k | (uintptr_t)v;
    size_t steps = (size_t)s.D | s.q_row | s.k_row | s.v_row | s.o_row | s.q_sequence |
                   s.k_sequence | s.v_sequence | s.o_sequence;
    return s.D <= 256 && s.scale > 0 && steps % 8 == 0 && starts % 16 == 0;
}

template <int D, class format, bool drops>
static dls_status launch(cudaStream_t stream, const tensor_attention &a)
{
    const dls_attention_shape &s = a.s;
    const int bytes = attention_tile<D>::BYTES;
    dim3 grid((unsigned)s.B * s.H, dls_blocks(s.Tq, ROWS));
    DLS_CUDA(cudaFuncSetAttribute(attention_tensor_kernel<D, format, drops>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    attention_announce("attention on tensor cores", s, 2, 2, a.lse ? 1 : 0);
    attention_tensor_kernel<D, format, drops><<<grid, THREADS, bytes, stream>>>(a);
    return dls_launched();
}

template <int D, class format>
static dls_status launch_dropping(cudaStream_t stream, const tensor_attention &a)
{
    return a.s.dropout > 0 ? launch<D, format, true>(stream, a)
                           : launch<D, format, false>(stream, a);
}

template <class format>
static dls_status launch_sized(cudaStream_t stream, const tensor_attention &a)
{
    if (a.s.D <= 32)
        return launch_dropping<32, format>(stream, a);
    if (a.s.D <= 64)
        return launch_dropping<64, format>(stream, a);
    if (a.s.D <= 96)
        return launch_dropping<96, format>(stream, a);
    return a.s.D <= 128 ? launch_dropping<128, format>(stream, a)
                        : launch_dropping<256, format>(stream, a);
}

extern "C" dls_status dls_attention_tensor_forward(
    cudaStream_t stream, dls_attention_format format, const dls_attention_shape *shape,
    void *out, float *lse, const void *q, const void *k, const void *v)
{
    if (!dls_attention_tensor_applies(shape, out, q, k, v))
        return DLS_FAIL(DLS_ERR_STATE, "attention on tensor cores: head size %d or a "
                        "stride is not a multiple of 8, or above 256", shape->D);
    tensor_attention a = {*shape, (uint16_t *)out, lse,
                          (const uint16_t *)q, (const uint16_t *)k, (const uint16_t *)v,
                          dls_dropout_gate_of(shape->dropout, shape->seed,
                                              shape->stream)};
    DLS_TRY(dls_attention_complete(&a.s));
    if ((size_t)a.s.B * a.s.Tq == 0)
        return DLS_OK;
    return format == DLS_ATTENTION_BF16 ? launch_sized<attention_bf16>(stream, a)
                                        : launch_sized<attention_fp16>(stream, a);
}

/* code/kernels/attention_tensor_backward.cu: from chapters/10-flash-attention-tensor-cores-backward.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash Attention, backward, on tensor cores, in two walks without atomic additions.
 *
 *   by query   64 queries; for each tile of keys:     S = Q K^T, dP = dO V^T, dQ += dS K
 *   by key     64 keys; for each tile of queries of each head of the group:
 *              S^T = K Q^T, dP^T = V dO^T, dV += P^T dO, dK += dS^T Q
 *
 * Each warp owns 16 rows; a result is the left operand of the next product.
 */
#include "kernels/attention_tensor.h"

#include <stdint.h>

#include "kernels/attention_tiles.cuh"
#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

/* describe the backward pass */
struct tensor_backward {
    dls_attention_shape s;  // completed
    uint16_t *dq, *dk, *dv;
    float *delta;           // (B, H, Tq)
    const uint16_t *dout, *q, *k, *v, *out;
    const float *lse;       // (B, H, Tq)
    dls_dropout_gate gate;
};

/* Tiles of the walk, and its bytes of shared memory: two own tiles, two stages of two. */
template <int D> struct backward_tile {
    static constexpr int N = D <= 64 ? 64 : D <= 128 ? 32 : 16;  // rows passing by
    static constexpr int STAGE = 2 * N * D;
    static constexpr int BYTES = (2 * ROWS * D + 2 * STAGE) * 2;
};

/* score rows against a tile */
/* s (16 x N) += rows row ... row + 15 of `left` times the N rows of `right`. */
template <int D, int N, class format>
static __device__ inline void multiply_rows(float s[][4], const uint16_t *left, int row,
                                            const uint16_t *right)
{
    int lane = threadIdx.x % 32, other = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4], b[4];
        load_rows<D>(a, left, row, d);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            dls_ldmatrix_x4(b, &right[swizzled<D>(16 * n + other, 2 * d + half)]);
            format::mma(s[2 * n], a, b);
            format::mma(s[2 * n + 1], a, b + 2);
        }
    }
}

/* sum the output gradients */
template <class format>
__global__ void tensor_delta_kernel(tensor_backward a, size_t rows)
{
    const dls_attention_shape &s = a.s;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= rows)
        return;
    int i = n % s.Tq, h = n / s.Tq % s.H, b = n / s.Tq / s.H, lane = threadIdx.x % 32;
    size_t at = dls_attention_at(s.starts_q, s.o_sequence, s.o_row, b) + i * s.o_row +
                (size_t)h * s.D;
    float sum = 0;
    for (int d = 2 * lane; d < s.D && i < dls_attention_queries(&s, b); d += 64) {
        float2 x = format::unpack(*(const uint32_t *)(a.dout + at + d));
        float2 y = format::unpack(*(const uint32_t *)(a.out + at + d));
        sum += x.x * y.x + x.y * y.y;
    }
    sum = dls_warp_sum(sum);
    if (lane == 0)
        a.delta[n] = sum;
}

/* fetch a pair of tiles */
/* `count` rows from `first` on of two arrays, of which rows before `end` exist. */
template <int D>
static __device__ inline void fetch_pair(uint16_t *tiles, int count, int first, int end,
                                         const uint16_t *one, size_t one_row,
                                         const uint16_t *two, size_t two_row, int pieces)
{
    fetch_rows<D>(tiles, one + first * one_row, one_row, count, end - first, pieces);
    fetch_rows<D>(tiles + count * D, two + first * two_row, two_row, count, end - first,
                  pieces);
}

/* walk back by query */
template <int D, class format, bool drops>
__global__ void __launch_bounds__(THREADS, 1) tensor_backward_by_query(tensor_backward a)
{
    constexpr int N = backward_tile<D>::N, STAGE = backward_tile<D>::STAGE;
    extern __shared__ __align__(128) uint16_t tensor_shared[];
    uint16_t *own = tensor_shared, *stages = own + 2 * ROWS * D;
    const dls_attention_shape &s = a.s;
    int b = blockIdx.x / s.H, h = blockIdx.x % s.H, kv = h / (s.H / s.Hk);
    int first = (gridDim.y - 1 - blockIdx.y) * ROWS, pieces = s.D / 8;
    int queries = dls_attention_queries(&s, b), keys = dls_attention_keys(&s, b);
    if (first >= queries)
        return;  // the whole block
    /* find the rows of a walk by query */
    const uint16_t *q = a.q + h * s.D +
                        dls_attention_at(s.starts_q, s.q_sequence, s.q_row, b);
    const uint16_t *d_o = a.dout + h * s.D +
                          dls_attention_at(s.starts_q, s.o_sequence, s.o_row, b);
    const uint16_t *k = a.k + dls_attention_at(s.starts_k, s.k_sequence, s.k_row, b) +
                        kv * s.D;
    const uint16_t *v = a.v + dls_attention_at(s.starts_k, s.v_sequence, s.v_row, b) +
                        kv * s.D;
    int row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32, sees[2], position[2];
    int most = dls_attention_seen(&s, first + ROWS - 1, queries, keys);
    float base[2], delta[2], scale2 = (float)s.scale * 1.44269504f;
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        int i = first + row + lane / 4 + 8 * e;
        size_t at = ((size_t)b * s.H + h) * s.Tq + i;
        float lse = i < queries ? a.lse[at] : -INFINITY;
        sees[e] = lse == -INFINITY ? 0 : dls_attention_seen(&s, i, queries, keys);
        base[e] = lse * 1.44269504f;
        delta[e] = i < queries ? a.delta[at] : 0;
        position[e] = dls_attention_position(&s, i, queries, keys);
    }
    const dls_dropout_gate gate =
        dls_dropout_of_head(a.gate, s.first_sequence + b, s.first_head + h);
    const float kept = drops ? (float)a.gate.scale : 1;
    fetch_pair<D>(own, ROWS, first, queries, q, s.q_row, d_o, s.o_row, pieces);
    if (most > 0)
        fetch_pair<D>(stages, N, 0, keys, k, s.k_row, v, s.v_row, pieces);
    dls_cp_async_commit();
    float dq[D / 8][4] = {};
    for (int j = 0; j * N < most; j++) {
        uint16_t *stage = stages + j % 2 * STAGE;
        dls_cp_async_wait<0>();
        __syncthreads();
        if ((j + 1) * N < most)
            fetch_pair<D>(stages + (j + 1) % 2 * STAGE, N, (j + 1) * N, keys, k, s.k_row,
                          v, s.v_row, pieces);
        dls_cp_async_commit();
        /* take the gradient of a tile of keys */
        float p[N / 8][4] = {}, ds[N / 8][4] = {};
        multiply_rows<D, N, format>(p, own, row, stage);
        multiply_rows<D, N, format>(ds, own + ROWS * D, row, stage + N * D);
        if (drops)
            attention_drop<N / 8>(ds, gate, j * N, position);
        #pragma unroll
        for (int n = 0; n < N / 8; n++)
        #pragma unroll
            for (int e = 0; e < 4; e++) {
                int column = j * N + 8 * n + lane % 4 * 2 + e % 2;
                float weight = dls_ex2(p[n][e] * scale2 - base[e / 2]);
                float own_part = kept * ds[n][e] - delta[e / 2];
                ds[n][e] = column < sees[e / 2] ? weight * own_part : 0;
            }
        multiply_values<D, N, format>(dq, ds, stage);
    }
    dls_cp_async_wait<0>();
    __syncthreads();
    const float factor[2] = {(float)s.scale, (float)s.scale};
    gather_rows<D, format>(own, row, dq, factor);
    __syncwarp();
    uint16_t *to = a.dq + h * s.D +
                   dls_attention_at(s.starts_q, s.q_sequence, s.q_row, b);
    store_rows<D>(to + first * s.q_row, s.q_row, own, row, queries - first, pieces);
}

/* walk back by key */
/* WHICH of the gradients: 1 for dK, 2 for dV, 3 for both. */
template <int D, class format, bool drops, int WHICH>
__global__ void __launch_bounds__(THREADS, 1) tensor_backward_by_key(tensor_backward a)
{
    constexpr int N = backward_tile<D>::N, STAGE = backward_tile<D>::STAGE;
    extern __shared__ __align__(128) uint16_t tensor_shared[];
    uint16_t *own = tensor_shared, *stages = own + 2 * ROWS * D;
    const dls_attention_shape &s = a.s;
    int b = blockIdx.x / s.Hk, kv = blockIdx.x % s.Hk, group = s.H / s.Hk;
    int first = blockIdx.y * ROWS, pieces = s.D / 8;
    int queries = dls_attention_queries(&s, b), keys = dls_attention_keys(&s, b);
    if (first >= keys)
        return;  // the whole block
    /* find the rows of a walk by key */
    const uint16_t *q = a.q + dls_attention_at(s.starts_q, s.q_sequence, s.q_row, b) +
                        kv * group * s.D;
    const uint16_t *d_o = a.dout + dls_attention_at(s.starts_q, s.o_sequence, s.o_row, b) +
                          kv * group * s.D;
    size_t k_at = dls_attention_at(s.starts_k, s.k_sequence, s.k_row, b) + kv * s.D;
    size_t v_at = dls_attention_at(s.starts_k, s.v_sequence, s.v_row, b) + kv * s.D;
    int row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
    int unseen = s.causal ? first - (keys - queries) : 0;  // queries before this one see none
    int from = unseen > 0 ? unseen / N : 0;
    int tiles = (queries + N - 1) / N - from;
    float scale2 = (float)s.scale * 1.44269504f, kept = drops ? (float)a.gate.scale : 1;
    tiles = tiles > 0 ? tiles : 0;
    fetch_pair<D>(own, ROWS, first, keys, a.k + k_at, s.k_row, a.v + v_at, s.v_row, pieces);
    if (tiles > 0)
        fetch_pair<D>(stages, N, from * N, queries, q, s.q_row, d_o, s.o_row, pieces);
    dls_cp_async_commit();
    float dk[WHICH & 1 ? D / 8 : 1][4] = {}, dv[WHICH & 2 ? D / 8 : 1][4] = {};
    for (int j = 0; j < tiles * group; j++) {
        uint16_t *stage = stages + j % 2 * STAGE;
        dls_cp_async_wait<0>();
        __syncthreads();
        if (j + 1 < tiles * group)
            fetch_pair<D>(stages + (j + 1) % 2 * STAGE, N, (from + (j + 1) % tiles) * N,
                          queries, q + (j + 1) / tiles * s.D, s.q_row,
                          d_o + (j + 1) / tiles * s.D, s.o_row, pieces);
        dls_cp_async_commit();
        /* take the gradients of a tile of queries */
        float p[N / 8][4] = {}, ds[N / 8][4] = {};
        multiply_rows<D, N, format>(p, own, row, stage);
        if (WHICH & 1)
            multiply_rows<D, N, format>(ds, own + ROWS * D, row, stage + N * D);
        int head = kv * group + j / tiles;
        size_t rows = ((size_t)b * s.H + head) * s.Tq;
        dls_dropout_gate gate = {};
        if (drops)
            gate = dls_dropout_of_head(a.gate, s.first_sequence + b, s.first_head + head);
        #pragma unroll
        for (int n = 0; n < N / 8; n++) {
            int column = (from + j % tiles) * N + 8 * n + lane % 4 * 2;
            /* weigh two columns of queries */
            unsigned keeps = 15;
            if (drops)
                keeps = attention_keeps_columns(gate,
                                                dls_attention_position(&s, column, queries, keys),
                                                first + row + lane / 4);
            #pragma unroll
            for (int c = 0; c < 2; c++) {
                int i = column + c;
                float lse = i < queries ? a.lse[rows + i] : -INFINITY;
                float delta = i < queries ? a.delta[rows + i] : 0;
                int sees = lse == -INFINITY ? 0 : dls_attention_seen(&s, i, queries, keys);
            #pragma unroll
                for (int e = c; e < 4; e += 2) {
                    int key = first + row + lane / 4 + e / 2 * 8;
                    float weight = dls_ex2(p[n][e] * scale2 - lse * 1.44269504f);
                    float factor = keeps >> e & 1 ? kept : 0;
                    p[n][e] = key < sees ? weight * factor : 0;
                    ds[n][e] = key < sees ? weight * (factor * ds[n][e] - delta) : 0;
                }
            }
        }
        if constexpr (WHICH & 2)
            multiply_values<D, N, format>(dv, p, stage + N * D);
        if constexpr (WHICH & 1)
            multiply_values<D, N, format>(dk, ds, stage);
    }
    /* store the gradients of keys and values */
    dls_cp_async_wait<0>();
    __syncthreads();
    const float scaled[2] = {(float)s.scale, (float)s.scale}, plain[2] = {1, 1};
    if constexpr (WHICH & 1)
        gather_rows<D, format>(own, row, dk, scaled);
    if constexpr (WHICH & 2)
        gather_rows<D, format>(own + ROWS * D, row, dv, plain);
    __syncwarp();
    if (WHICH & 1)
        store_rows<D>(a.dk + k_at + first * s.k_row, s.k_row, own, row, keys - first, pieces);
    if (WHICH & 2)
        store_rows<D>(a.dv + v_at + first * s.v_row, s.v_row, own + ROWS * D, row,
                      keys - first, pieces);
}

/* launch the backward walks */
extern "C" int dls_attention_tensor_backward_applies(
    const dls_attention_shape *s, const void *dq, const void *dk, const void *dv,
    const void *dout, const void *q, const void *k, const void *v, const void *out)
{
    return dls_attention_tensor_applies(s, out, q, k, v) &&
           dls_attention_tensor_applies(s, dout, dq, dk, dv);
}

/* Lets a kernel have the shared memory of its tiles, and starts it. */
static dls_status start(void (*kernel)(tensor_backward), dim3 grid, int bytes,
                        cudaStream_t stream, const tensor_backward &a)
{
    DLS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  bytes));
    kernel<<<grid, THREADS, bytes, stream>>>(a);
    return dls_launched();
}

template <int D, class format, bool drops>
static dls_status walk_by_key(cudaStream_t stream, const tensor_backward &a)
{
    const int bytes = backward_tile<D>::BYTES;
    dim3 grid((unsigned)a.s.B * a.s.Hk, dls_blocks(a.s.Tk, ROWS));
    if constexpr (D <= 128) {
        attention_announce("attention backward by key", a.s, 4, 3, 2);
        return start(tensor_backward_by_key<D, format, drops, 3>, grid, bytes, stream, a);
    } else {
        attention_announce("attention backward by key, values", a.s, 2, 3, 2);
        DLS_TRY(start(tensor_backward_by_key<D, format, drops, 2>, grid, bytes, stream,
                      a));
        attention_announce("attention backward by key, keys", a.s, 3, 3, 2);
        return start(tensor_backward_by_key<D, format, drops, 1>, grid, bytes, stream, a);
    }
}

template <int D, class format, bool drops>
static dls_status walk(cudaStream_t stream, const tensor_backward &a)
{
    const dls_attention_shape &s = a.s;
    size_t rows = (size_t)s.B * s.H * s.Tq;
    dim3 by_query((unsigned)s.B * s.H, dls_blocks(s.Tq, ROWS));
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, "attention delta", 2.0 * rows * s.D,
                    4.0 * rows * (s.D + 1));
    if (rows)
        tensor_delta_kernel<format>
            <<<dls_blocks(rows, 4), THREADS, 0, stream>>>(a, rows);
    if (s.Tk)
        DLS_TRY((walk_by_key<D, format, drops>(stream, a)));
    attention_announce("attention backward by query", s, 3, 3, 2);
    if (s.Tq)
        DLS_TRY(start(tensor_backward_by_query<D, format, drops>, by_query,
                      backward_tile<D>::BYTES, stream, a));
    return dls_launched();
}

template <int D, class format>
static dls_status walk_dropping(cudaStream_t stream, const tensor_backward &a)
{
    return a.s.dropout > 0 ? walk<D, format, true>(stream, a)
                           : walk<D, format, false>(stream, a);
}

template <class format>
static dls_status walk_sized(cudaStream_t stream, const tensor_backward &a)
{
    if (a.s.D <= 32)
        return walk_dropping<32, format>(stream, a);
    if (a.s.D <= 64)
        return walk_dropping<64, format>(stream, a);
    if (a.s.D <= 96)
        return walk_dropping<96, format>(stream, a);
    return a.s.D <= 128 ? walk_dropping<128, format>(stream, a)
                        : walk_dropping<256, format>(stream, a);
}

extern "C" dls_status dls_attention_tensor_backward(
    cudaStream_t stream, dls_attention_format format, const dls_attention_shape *shape,
    void *dq, void *dk, void *dv, float *delta, const void *dout, const void *q,
    const void *k, const void *v, const void *out, const float *lse)
{
    if (!dls_attention_tensor_backward_applies(shape, dq, dk, dv, dout, q, k, v, out))
        return DLS_FAIL(DLS_ERR_STATE, "attention on tensor cores, backward: head size "
                        "%d or a stride is not a multiple of 8, or above 256", shape->D);
    tensor_backward a = {*shape, (uint16_t *)dq, (uint16_t *)dk, (uint16_t *)dv, delta,
                         (const uint16_t *)dout, (const uint16_t *)q, (const uint16_t *)k,
                         (const uint16_t *)v, (const uint16_t *)out, lse,
                         dls_dropout_gate_of(shape->dropout, shape->seed, shape->stream)};
    DLS_TRY(dls_attention_complete(&a.s));
    if (a.s.B == 0)
        return DLS_OK;
    return format == DLS_ATTENTION_BF16 ? walk_sized<attention_bf16>(stream, a)
                                        : walk_sized<attention_fp16>(stream, a);
}

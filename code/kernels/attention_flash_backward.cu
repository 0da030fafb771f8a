/* code/kernels/attention_flash_backward.cu: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash attention, backward (Dao et al. 2022, algorithm 4), in two walks without atomic
 * additions: by key for dK and dV, by query for dQ. The weights are recomputed from the
 * log-sum-exp. */
#include "kernels/attention_flash.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/attention_flash_host.h"
#include "kernels/host_pair.h"

/* take the row sums of the output gradient */
template <typename real>
__global__ void flash_delta_kernel(dls_attention_shape s, dls_acc<real> *delta,
                                   const real *dout, const real *out)
{
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= (size_t)s.B * s.H * s.Tq)
        return;
    int b = (int)(n / s.Tq / s.H), h = (int)(n / s.Tq % s.H), i = (int)(n % s.Tq);
    int queries = dls_attention_queries(&s, b);
    auto of_do = flash_head(dout, s.starts_q, s.o_sequence, s.o_row, b, h, s.D, queries);
    auto of_o = flash_head(out, s.starts_q, s.o_sequence, s.o_row, b, h, s.D, queries);
    dls_acc<real> sum = 0;
    for (int d = lane; d < s.D && i < queries; d += 32)
        sum += dls_acc<real>(of_do.data[i * of_do.row + d])
               * dls_acc<real>(of_o.data[i * of_o.row + d]);
    sum = dls_warp_sum(sum);
    if (lane == 0)
        delta[n] = sum;
}

/* walk back over tiles */
template <typename real>
struct flash_backward_arguments {
    dls_attention_shape s;
    real *dq, *dk, *dv;
    const real *dout, *q, *k, *v;
    const dls_acc<real> *lse, *delta;  // (B, H, Tq)
};

template <typename real, int W, bool by_key>
__global__ void __launch_bounds__(FLASH_THREADS, 1)
flash_backward_kernel(flash_backward_arguments<real> a)
{
    typedef dls_acc<real> acc;
    typedef flash_tile<acc, W> tile;
    const dls_attention_shape &s = a.s;
    /* lay out the backward tiles */
    extern __shared__ __align__(16) char room[];
    const int own_size = tile::R * tile::PITCH, other_size = tile::C * tile::PITCH;
    acc *own_first = (acc *)room, *own_second = own_first + own_size;
    acc *other_first = own_second + own_size, *other_second = other_first + other_size;
    acc *P = other_second + other_size;
    acc *row_lse = P + tile::R * tile::WEIGHTS;          // of the queries, own or other
    acc *row_delta = row_lse + (by_key ? tile::C : tile::R);
    /* find the rows of a walk */
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, first = blockIdx.y * tile::R;
    const int group = by_key ? s.H / s.Hk : 1;
    const int b = blockIdx.x / (s.H / group), head = blockIdx.x % (s.H / group) * group;
    const int queries = dls_attention_queries(&s, b), keys = dls_attention_keys(&s, b);
    const int own_count = by_key ? keys : queries, before = keys - queries;
    const int position = dls_attention_position(&s, 0, queries, keys);  // of query 0
    if (first >= own_count)
        return;  // the whole block
    int begin = 0, end = queries, j0 = 0;  // other rows; the first of the present tile
    if (by_key && s.causal && first > before)
        begin = (first - before) / tile::C * tile::C;
    if (!by_key)
        end = dls_attention_seen(&s, min(first + tile::R, queries) - 1, queries, keys);
    acc for_first[tile::TR][W / 16] = {}, for_second[tile::TR][W / 16] = {};
    for (int h = head; h < head + group; h++) {
        /* find the heads of a walk */
        const int shared = h / (s.H / s.Hk);
        const dls_dropout_gate gate = dls_attention_gate(&s, b, h);
        auto of_q = flash_head(a.q, s.starts_q, s.q_sequence, s.q_row, b, h, s.D, queries);
        auto of_do = flash_head(a.dout, s.starts_q, s.o_sequence, s.o_row, b, h, s.D, queries);
        auto of_k = flash_head(a.k, s.starts_k, s.k_sequence, s.k_row, b, shared, s.D, keys);
        auto of_v = flash_head(a.v, s.starts_k, s.v_sequence, s.v_row, b, shared, s.D, keys);
        const acc *lse = a.lse + ((size_t)b * s.H + h) * s.Tq;
        const acc *delta = a.delta + ((size_t)b * s.H + h) * s.Tq;
        if (h == head) {
            flash_load<W, tile::R>(own_first, by_key ? of_k : of_q, first, s.D, (acc)s.scale);
            flash_load<W, tile::R>(own_second, by_key ? of_v : of_do, first, s.D, acc(1));
        }
        if (!by_key) {
            /* load the statistics of queries */
            for (int n = threadIdx.x; n < (by_key ? tile::C : tile::R); n += FLASH_THREADS) {
                int row = (by_key ? j0 : first) + n;
                row_lse[n] = row < queries ? lse[row] : acc(-INFINITY);
                row_delta[n] = row < queries ? delta[row] : acc(0);
            }
        }
        for (j0 = begin; j0 < end; j0 += tile::C) {
            __syncthreads();
            /* load the tiles of a step */
            flash_load<W, tile::C>(other_first, by_key ? of_q : of_k, j0, s.D, acc(1));
            flash_load<W, tile::C>(other_second, by_key ? of_do : of_v, j0, s.D, acc(1));
            if (by_key) {
                /* load the statistics of queries */
                for (int n = threadIdx.x; n < (by_key ? tile::C : tile::R); n += FLASH_THREADS) {
                    int row = (by_key ? j0 : first) + n;
                    row_lse[n] = row < queries ? lse[row] : acc(-INFINITY);
                    row_delta[n] = row < queries ? delta[row] : acc(0);
                }
            }
            __syncthreads();
            acc p[tile::TR][tile::TC] = {}, ds[tile::TR][tile::TC] = {};
            flash_multiply<W>(p, own_first, other_first);
            flash_multiply<W>(ds, own_second, other_second);
            /* make weights and score gradients */
            FLASH_UNROLL
            for (int i = 0; i < tile::TR; i++)
                for (int j = 0; j < tile::TC; j++) {
                    const int own = y + 16 * i, other = x + 16 * j, n = by_key ? other : own;
                    const int query = by_key ? j0 + other : first + own;
                    const int key = by_key ? first + own : j0 + other;
                    bool visible = query < queries && row_lse[n] != -INFINITY
                                   && key < dls_attention_seen(&s, query, queries, keys);
                    acc weight = visible ? exp(p[i][j] - row_lse[n]) : acc(0);
                    acc kept = s.dropout > 0 && visible
                                   ? (acc)dls_attention_kept(&gate, position + query, key) : acc(1);
                    ds[i][j] = visible ? weight * (ds[i][j] * kept - row_delta[n]) : acc(0);
                    p[i][j] = weight * kept;
                }
            /* add to the gradients */
            if (by_key) {
                flash_write_weights<W>(P, p);
                __syncwarp();
                flash_add_weighted<W>(for_second, P, other_second);
                __syncwarp();  // all have read before the next square is written
            }
            flash_write_weights<W>(P, ds);
            __syncwarp();
            flash_add_weighted<W>(for_first, P, other_first);
        }
    }
    /* store the gradients of a tile */
    const int shared = head / (s.H / s.Hk);
    auto to_first = by_key ? flash_head(a.dk, s.starts_k, s.k_sequence, s.k_row, b, shared,
                                        s.D, keys)
                           : flash_head(a.dq, s.starts_q, s.q_sequence, s.q_row, b, head,
                                        s.D, queries);
    flash_store<W>(to_first, for_first, first, s.D, (acc)s.scale);
    if (by_key)
        flash_store<W>(flash_head(a.dv, s.starts_k, s.v_sequence, s.v_row, b, shared, s.D,
                                  keys), for_second, first, s.D, acc(1));
}

/* launch the flash backward pass */
template <int W, bool by_key, typename real>
static dls_status flash_walk(dls_ctx *ctx, const flash_backward_arguments<real> &a)
{
    typedef flash_tile<dls_acc<real>, W> tile;
    DLS_CUDA(cudaFuncSetAttribute(flash_backward_kernel<real, W, by_key>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  (int)tile::backward_bytes));
    dim3 grid((unsigned)(a.s.B * (by_key ? a.s.Hk : a.s.H)),
              dls_blocks(by_key ? a.s.Tk : a.s.Tq, tile::R));
    if (grid.y == 0)
        return DLS_OK;
    flash_announce(by_key ? "flash backward by key" : "flash backward by query",
                   dls_flash_backward_cost(&a.s, ctx->dtype, tile::R, tile::C, by_key));
    flash_backward_kernel<real, W, by_key>
        <<<grid, FLASH_THREADS, tile::backward_bytes, ctx->stream>>>(a);
    return dls_launched();
}

template <int W, typename real>
static dls_status flash_backward(dls_ctx *ctx, const flash_backward_arguments<real> &a,
                                 dls_acc<real> *temporary, const real *out)
{
    size_t rows = (size_t)a.s.B * a.s.H * a.s.Tq;
    typedef flash_tile<dls_acc<real>, W> tile;
    /* walk back on the host when asked */
    flash_announce("flash delta", dls_flash_delta_cost(&a.s, ctx->dtype));
    DLS_CHARGE_ON_HOST(ctx);
    flash_announce("flash backward by key",
                   dls_flash_backward_cost(&a.s, ctx->dtype, tile::R, tile::C, 1));
    DLS_CHARGE_ON_HOST(ctx);
    flash_announce("flash backward by query",
                   dls_flash_backward_cost(&a.s, ctx->dtype, tile::R, tile::C, 0));
    DLS_RUN_ON_HOST(ctx, dls_attention_flash_backward, a.s, a.dq, a.dk, a.dv, temporary,
                    a.dout, a.q, a.k, a.v, out, a.lse);
    if (rows > 0) {
        flash_announce("flash delta", dls_flash_delta_cost(&a.s, ctx->dtype));
        flash_delta_kernel<real><<<dls_blocks(rows, 4), 128, 0, ctx->stream>>>(
            a.s, temporary, a.dout, out);
        DLS_TRY(dls_launched());
    }
    DLS_TRY((flash_walk<W, true>(ctx, a)));
    return flash_walk<W, false>(ctx, a);
}

extern "C" dls_status dls_attention_flash_backward(
    dls_ctx *ctx, const dls_attention_shape *s, void *dq, void *dk, void *dv,
    void *temporary, const void *dout, const void *q, const void *k, const void *v,
    const void *out, const void *lse)
{
    return DLS_BY_TYPE(ctx, FLASH_BY_WIDTH(
        s->D, flash_backward<W>(ctx,
                                flash_backward_arguments<real>{
                                    *s, (real *)dq, (real *)dk, (real *)dv,
                                    (const real *)dout, (const real *)q, (const real *)k,
                                    (const real *)v, (const dls_acc<real> *)lse,
                                    (const dls_acc<real> *)temporary},
                                (dls_acc<real> *)temporary, (const real *)out)));
}

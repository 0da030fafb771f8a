/* code/kernels/attention_flash.cu: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash attention, forward (Dao et al. 2022, algorithm 1; loops as in Dao 2023): one
 * block per tile of queries walks over the keys; nothing of size Tq x Tk is ever stored.
 * */
#include "kernels/attention_flash.cuh"

#define DLS_HOST_HEADER "kernels/attention_flash_host.h"
#include "kernels/host_pair.h"

/* attend to a tile of queries */
template <typename real, int W>
__global__ void __launch_bounds__(FLASH_THREADS, 1)
flash_forward_kernel(dls_attention_shape s, real *out, dls_acc<real> *lse, const real *q,
                     const real *k, const real *v)
{
    typedef dls_acc<real> acc;
    typedef flash_tile<acc, W> tile;
    extern __shared__ __align__(16) char room[];
    acc *Q = (acc *)room, *K = Q + tile::R * tile::PITCH, *V = K + tile::C * tile::PITCH;
    acc *P = V + tile::C * tile::PITCH;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, first = blockIdx.y * tile::R;
    const int b = blockIdx.x / s.H, h = blockIdx.x % s.H;
    /* find the heads of a query tile */
    const int queries = dls_attention_queries(&s, b), keys = dls_attention_keys(&s, b);
    const int shared = h / (s.H / s.Hk);
    const int before = dls_attention_position(&s, 0, queries, keys);
    const dls_dropout_gate gate = dls_attention_gate(&s, b, h);
    auto of_q = flash_head(q, s.starts_q, s.q_sequence, s.q_row, b, h, s.D, queries);
    auto of_k = flash_head(k, s.starts_k, s.k_sequence, s.k_row, b, shared, s.D, keys);
    auto of_v = flash_head(v, s.starts_k, s.v_sequence, s.v_row, b, shared, s.D, keys);
    auto of_o = flash_head(out, s.starts_q, s.o_sequence, s.o_row, b, h, s.D, queries);
    /* start the rows */
    acc sum[tile::TR][W / 16] = {}, largest[tile::TR], total[tile::TR];
    int seen[tile::TR], end = min(first + tile::R, queries);
    for (int i = 0; i < tile::TR; i++) {
        int row = first + y + 16 * i;
        largest[i] = -INFINITY;
        total[i] = 0;
        seen[i] = row < queries ? dls_attention_seen(&s, row, queries, keys) : 0;
    }
    int last = end > first ? dls_attention_seen(&s, end - 1, queries, keys) : 0;
    flash_load<W, tile::R>(Q, of_q, first, s.D, (acc)s.scale);
    for (int j0 = 0; j0 < last; j0 += tile::C) {
        __syncthreads();  // everybody is done with the last keys and values
        flash_load<W, tile::C>(K, of_k, j0, s.D, acc(1));
        flash_load<W, tile::C>(V, of_v, j0, s.D, acc(1));
        __syncthreads();
        acc p[tile::TR][tile::TC] = {};
        flash_multiply<W>(p, Q, K);
        /* replace scores by weights */
        FLASH_UNROLL
        for (int i = 0; i < tile::TR; i++) {
            acc most = largest[i];
            for (int j = 0; j < tile::TC; j++) {
                if (j0 + x + 16 * j >= seen[i])
                    p[i][j] = -INFINITY;
                most = p[i][j] > most ? p[i][j] : most;
            }
            most = dls_warp_max<16>(most);
            acc from = most == -INFINITY ? acc(0) : most, factor = exp(largest[i] - from);
            largest[i] = most;
            total[i] *= factor;
            for (int n = 0; n < W / 16; n++)
                sum[i][n] *= factor;
            /* write the weights of a row */
            for (int j = 0; j < tile::TC; j++) {
                acc weight = exp(p[i][j] - from);
                total[i] += weight;
                if (s.dropout > 0)
                    weight *= (acc)dls_attention_kept(&gate, before + first + y + 16 * i,
                                                      j0 + x + 16 * j);
                P[(y + 16 * i) * tile::WEIGHTS + x + 16 * j] = weight;
            }
        }
        __syncwarp();  // the weights of a row stay in its half of the warp
        flash_add_weighted<W>(sum, P, V);
    }
    /* store a tile of outputs */
    for (int i = 0; i < tile::TR; i++) {
        int row = first + y + 16 * i;
        acc all = dls_warp_sum<16>(total[i]), inverse = all == 0 ? acc(0) : 1 / all;
        if (lse && x == 0 && row < s.Tq)
            lse[((size_t)b * s.H + h) * s.Tq + row] =
                all == 0 ? -INFINITY : largest[i] + log(all);
        for (int n = 0; n < W / 16 && row < queries; n++)
            if (x + 16 * n < s.D)
                of_o.data[(size_t)row * of_o.row + x + 16 * n] = real(sum[i][n] * inverse);
    }
}

/* launch the flash forward pass */
template <int W, typename real, typename acc>
static dls_status flash_forward(dls_ctx *ctx, const dls_attention_shape &s, real *out,
                                acc *lse, const real *q, const real *k, const real *v)
{
    typedef flash_tile<acc, W> tile;
    flash_announce("flash attention",
                   dls_flash_forward_cost(&s, ctx->dtype, tile::R, tile::C));
    DLS_RUN_ON_HOST(ctx, dls_attention_flash_forward, s, out, lse, q, k, v);
    DLS_CUDA(cudaFuncSetAttribute(flash_forward_kernel<real, W>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  (int)tile::forward_bytes));
    dim3 grid((unsigned)(s.B * s.H), dls_blocks(s.Tq, tile::R));
    flash_forward_kernel<real, W>
        <<<grid, FLASH_THREADS, tile::forward_bytes, ctx->stream>>>(s, out, lse, q, k, v);
    return dls_launched();
}

extern "C" dls_status dls_attention_flash_forward(dls_ctx *ctx,
                                                  const dls_attention_shape *s, void *out,
                                                  void *lse, const void *q, const void *k,
                                                  const void *v)
{
    return DLS_BY_TYPE(ctx, FLASH_BY_WIDTH(
        s->D,
            flash_forward<W>(ctx, *s, (real *)out, (dls_acc<real> *)lse, (const real *)q,
                               (const real *)k, (const real *)v)));
}

template <int W, typename acc>
static dls_status flash_tiles(int *R, int *C)
{
    *R = flash_tile<acc, W>::R;
    *C = flash_tile<acc, W>::C;
    return DLS_OK;
}

extern "C" void dls_flash_tiles(dls_dtype dtype, int D, int *R, int *C)
{
    if (dtype == DLS_F64)
        (void)FLASH_BY_WIDTH(D, flash_tiles<W, double>(R, C));
    else
        (void)FLASH_BY_WIDTH(D, flash_tiles<W, float>(R, C));
}

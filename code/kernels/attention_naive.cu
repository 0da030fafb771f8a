/* code/kernels/attention_naive.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention on the device, materialised: scores, softmax, product, each a kernel of its
 * own with the (Tq, Tk) weights of every head in global memory between them. */
#include <math.h>

#include "kernels/attention.h"
#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/attention_naive_host.h"
#include "kernels/host_pair.h"

/* view an array as heads */
/* Row r of head h of sequence b begins at at(b, h) + r * row. */
template <typename real>
struct heads {
    real *data;
    size_t sequence, head, row;
    int group;           // so many query heads share one head of this array
    const int *starts;   // (B+1) of packed sequences, or NULL
    __device__ real *at(int b, int h) const
    {
        return data + dls_attention_at(starts, sequence, row, b) + h / group * head;
    }
    heads<const real> reading() const
    {
        return {data, sequence, head, row, group, starts};
    }
};

enum { SCORES, ALONG_ROWS, ALONG_COLUMNS };  // the three kinds of product

/* multiply heads in tiles */
template <int kind, typename out_t, typename left_t, typename right_t, typename acc>
__global__ void attention_product_kernel(heads<out_t> out, heads<const left_t> left,
                                         heads<const right_t> right,
                                         dls_attention_shape s, acc alpha)
{
    __shared__ acc a[16][17], b[16][17];
    int x = threadIdx.x, y = threadIdx.y, row = blockIdx.z * 16, column = blockIdx.y * 16;
    int group = kind == ALONG_COLUMNS ? s.H / s.Hk : 1;
    int sequence = blockIdx.x / (s.H / group), head = blockIdx.x % (s.H / group) * group;
    int queries = dls_attention_queries(&s, sequence);
    int keys = dls_attention_keys(&s, sequence);
    /* choose the lengths of the product */
    int M = kind == ALONG_COLUMNS ? keys : queries;
    int N = kind == SCORES ? keys : s.D;
    int K = kind == SCORES ? s.D : kind == ALONG_ROWS ? keys : queries;
    if (row >= M || column >= N)
        return;  // the whole block
    int first = 0, last = K, before = keys - queries;  // positions before the first query
    if (s.causal && kind == SCORES && column > row + 15 + before)
        return;
    if (s.causal && kind == ALONG_ROWS)
        last = min(K, row + 16 + before);
    if (s.causal && kind == ALONG_COLUMNS)
        first = max(0, row - before);
    acc sum = 0;
    for (int h = head; h < head + group; h++) {
        const left_t *from_left = left.at(sequence, h);
        const right_t *from_right = right.at(sequence, h);
        const dls_dropout_gate gate = dls_attention_gate(&s, sequence, h);
        for (int k = first; k < last; k += 16) {
            /* load both tiles */
            if (kind == ALONG_COLUMNS)  // stored (K, M)
                a[x][y] = k + y < last && row + x < M
                              ? acc(from_left[(k + y) * left.row + row + x]) : acc(0);
            else                        // stored (M, K)
                a[y][x] = row + y < M && k + x < last
                              ? acc(from_left[(row + y) * left.row + k + x]) : acc(0);
            if (s.dropout > 0) {
                /* drop weights of a tile */
                if (kind == ALONG_COLUMNS)
                    a[x][y] *= (acc)dls_attention_kept(
                        &gate, dls_attention_position(&s, k + y, queries, keys), row + x);
                else
                    a[y][x] *= (acc)dls_attention_kept(
                        &gate, dls_attention_position(&s, row + y, queries, keys), k + x);
            }
            if (kind == SCORES)         // stored (N, K)
                b[x][y] = column + y < N && k + x < last
                              ? acc(from_right[(column + y) * right.row + k + x]) : acc(0);
            else                        // stored (K, N)
                b[y][x] = k + y < last && column + x < N
                              ? acc(from_right[(k + y) * right.row + column + x]) : acc(0);
            __syncthreads();
            for (int i = 0; i < 16; i++)
                sum += a[y][i] * b[i][x];
            __syncthreads();
        }
    }
    if (row + y < M && column + x < N)
        out.at(sequence, head)[(row + y) * out.row + column + x] = out_t(alpha * sum);
}

/* take softmax of score rows */
/* The row of scores that this warp has; n is behind the last when there is none left. */
struct score_row { size_t n; int lane, sequence, head, i, queries, keys, seen; };

static __device__ inline score_row find_row(const dls_attention_shape &s)
{
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    score_row r = {n, (int)(threadIdx.x % 32), (int)(n / s.Tq / s.H),
                   (int)(n / s.Tq % s.H), (int)(n % s.Tq), 0, 0, 0};
    if (r.sequence >= s.B)
        return r;
    r.queries = dls_attention_queries(&s, r.sequence);
    r.keys = dls_attention_keys(&s, r.sequence);
    r.seen = r.i < r.queries ? dls_attention_seen(&s, r.i, r.queries, r.keys) : 0;
    return r;
}

template <typename acc>
__global__ void attention_softmax_kernel(acc *att, acc *lse, dls_attention_shape s)
{
    const score_row r = find_row(s);
    if (r.sequence >= s.B)
        return;
    acc *row = att + r.n * s.Tk, largest = -INFINITY, sum = 0;
    /* replace scores by exponentials */
    for (int j = r.lane; j < r.seen; j += 32)
        largest = row[j] > largest ? row[j] : largest;
    largest = dls_warp_max(largest);
    if (largest == -INFINITY)
        largest = 0;
    for (int j = r.lane; j < r.seen; j += 32) {
        row[j] = exp(row[j] - largest);
        sum += row[j];
    }
    sum = dls_warp_sum(sum);
    for (int j = r.lane; j < s.Tk; j += 32)
        row[j] = j < r.seen && sum != 0 ? row[j] / sum : acc(0);
    if (lse && r.lane == 0)
        lse[r.n] = sum == 0 ? -INFINITY : largest + log(sum);
}

/* pass the gradient through softmax rows */
template <typename acc>
__global__ void attention_softmax_backward_kernel(acc *dscores, const acc *att,
                                                  dls_attention_shape s)
{
    const score_row r = find_row(s);
    if (r.sequence >= s.B)
        return;
    acc *row = dscores + r.n * s.Tk, average = 0, scale = (acc)s.scale;
    const acc *weights = att + r.n * s.Tk;
    dls_dropout_gate gate = dls_attention_gate(&s, r.sequence, r.head);
    int position = dls_attention_position(&s, r.i, r.queries, r.keys);
    for (int j = r.lane; j < r.seen; j += 32) {
        if (s.dropout > 0)
            row[j] *= (acc)dls_attention_kept(&gate, position, j);
        average += weights[j] * row[j];
    }
    average = dls_warp_sum(average);
    for (int j = r.lane; j < s.Tk; j += 32)
        row[j] = j < r.seen ? scale * weights[j] * (row[j] - average) : acc(0);
}

/* announce the costs */
template <typename real, typename acc>
static void cost_of_product(const char *name, const dls_attention_shape &s)
{
    double rows = s.tokens_q * s.H + s.tokens_k * s.Hk;
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, name, 2 * s.pairs * s.H * s.D,
                    rows * s.D * sizeof(real) + s.pairs * s.H * sizeof(acc));
}

template <typename acc>
static void cost_of_softmax(const char *name, const dls_attention_shape &s, int squares)
{
    double square = (double)s.B * s.H * s.Tq * s.Tk;
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, name, 5 * s.pairs * s.H,
                    (squares * s.pairs * s.H + square) * sizeof(acc));
}

/* launch a product */
template <int kind, typename out_t, typename left_t, typename right_t>
static dls_status attention_product(dls_ctx *ctx, heads<out_t> out, heads<left_t> left,
                                    heads<right_t> right, const dls_attention_shape &s,
                                    double alpha)
{
    typedef dls_acc<out_t> acc;
    int M = kind == ALONG_COLUMNS ? s.Tk : s.Tq, N = kind == SCORES ? s.Tk : s.D;
    dim3 grid((unsigned)(s.B * (kind == ALONG_COLUMNS ? s.Hk : s.H)), dls_blocks(N, 16),
              dls_blocks(M, 16));
    if (grid.y == 0 || grid.z == 0)
        return DLS_OK;
    attention_product_kernel<kind, out_t, left_t, right_t, acc>
        <<<grid, dim3(16, 16), 0, ctx->stream>>>(out, left.reading(), right.reading(), s,
                                                 (acc)alpha);
    return dls_launched();
}

/* view the arguments */
/* What a token's row holds, seen from outside: per query, or shared by a group. */
template <typename real>
static heads<real> per_query(const dls_attention_shape &s, real *x, size_t sequence,
                             size_t row)
{
    return {x, sequence, (size_t)s.D, row, 1, s.starts_q};
}

template <typename real>
static heads<real> per_key(const dls_attention_shape &s, real *x, size_t sequence,
                           size_t row)
{
    return {x, sequence, (size_t)s.D, row, s.H / s.Hk, s.starts_k};
}

template <typename acc>
static heads<acc> as_square(const dls_attention_shape &s, acc *x)
{
    size_t square = (size_t)s.Tq * s.Tk;
    return {x, s.H * square, square, (size_t)s.Tk, 1, nullptr};
}

/* launch the attention */
template <typename real, typename acc>
static dls_status naive_forward(dls_ctx *ctx, const dls_attention_shape &s, real *out,
                                acc *lse, acc *att, const real *q, const real *k,
                                const real *v)
{
    /* run the forward pass on the host */
    cost_of_product<real, acc>("attention scores", s);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_softmax<acc>("attention softmax", s, 1);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real, acc>("attention values", s);
    DLS_RUN_ON_HOST(ctx, dls_attention_naive_forward, s, out, lse, att, q, k, v);
    /* describe the forward arrays */
    heads<const real> queries = per_query(s, q, s.q_sequence, s.q_row);
    heads<const real> keys = per_key(s, k, s.k_sequence, s.k_row);
    heads<const real> values = per_key(s, v, s.v_sequence, s.v_row);
    heads<real> outputs = per_query(s, out, s.o_sequence, s.o_row);
    heads<acc> weights = as_square(s, att);
    /* run the three forward kernels */
    dls_attention_shape plain = s;
    plain.dropout = 0;
    cost_of_product<real, acc>("attention scores", s);
    DLS_TRY(attention_product<SCORES>(ctx, weights, queries, keys, plain, s.scale));
    cost_of_softmax<acc>("attention softmax", s, 1);
    attention_softmax_kernel<acc>
        <<<dls_blocks((size_t)s.B * s.H * s.Tq, 4), 128, 0, ctx->stream>>>(att, lse, s);
    DLS_TRY(dls_launched());
    if (out == nullptr)
        return DLS_OK;
    cost_of_product<real, acc>("attention values", s);
    return attention_product<ALONG_ROWS>(ctx, outputs, weights, values, s, 1);
}

template <typename real, typename acc>
static dls_status naive_backward(dls_ctx *ctx, const dls_attention_shape &s, real *dq,
                                 real *dk, real *dv, acc *scratch, const real *dout,
                                 const real *q, const real *k, const real *v,
                                 const acc *att)
{
    /* run the backward pass on the host */
    cost_of_product<real, acc>("attention backward weights", s);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_softmax<acc>("attention backward softmax", s, 2);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real, acc>("attention backward queries", s);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real, acc>("attention backward keys", s);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real, acc>("attention backward values", s);
    DLS_RUN_ON_HOST(ctx, dls_attention_naive_backward, s, dq, dk, dv, scratch, dout, q, k, v,
                    att);
    /* describe the backward arrays */
    heads<const real> queries = per_query(s, q, s.q_sequence, s.q_row);
    heads<const real> keys = per_key(s, k, s.k_sequence, s.k_row);
    heads<const real> values = per_key(s, v, s.v_sequence, s.v_row);
    heads<const real> doutputs = per_query(s, dout, s.o_sequence, s.o_row);
    heads<real> dqueries = per_query(s, dq, s.q_sequence, s.q_row);
    heads<real> dkeys = per_key(s, dk, s.k_sequence, s.k_row);
    heads<real> dvalues = per_key(s, dv, s.v_sequence, s.v_row);
    heads<const acc> weights = as_square(s, att);
    heads<acc> dscores = as_square(s, scratch);
    /* make the gradient of the scores */
    dls_attention_shape plain = s;
    plain.dropout = 0;
    cost_of_product<real, acc>("attention backward weights", s);
    DLS_TRY(attention_product<SCORES>(ctx, dscores, doutputs, values, plain, 1));
    cost_of_softmax<acc>("attention backward softmax", s, 2);
    if (s.Tq > 0)
        attention_softmax_backward_kernel<acc>
            <<<dls_blocks((size_t)s.B * s.H * s.Tq, 4), 128, 0, ctx->stream>>>(
                scratch, att, s);
    DLS_TRY(dls_launched());
    /* multiply for the three gradients */
    cost_of_product<real, acc>("attention backward queries", s);
    DLS_TRY(attention_product<ALONG_ROWS>(ctx, dqueries, dscores, keys, plain, 1));
    cost_of_product<real, acc>("attention backward keys", s);
    DLS_TRY(attention_product<ALONG_COLUMNS>(ctx, dkeys, dscores, queries, plain, 1));
    cost_of_product<real, acc>("attention backward values", s);
    return attention_product<ALONG_COLUMNS>(ctx, dvalues, weights, doutputs, s, 1);
}

/* expose the attention */
extern "C" dls_status dls_attention_naive_forward(dls_ctx *ctx,
                                                  const dls_attention_shape *shape,
                                                  void *out, void *lse, void *att,
                                                  const void *q, const void *k,
                                                  const void *v)
{
    dls_attention_shape s = *shape;
    DLS_TRY(dls_attention_complete(&s));
    if (s.B == 0 || s.Tq == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, naive_forward(ctx, s, (real *)out, (dls_acc<real> *)lse,
                                          (dls_acc<real> *)att, (const real *)q,
                                          (const real *)k, (const real *)v));
}

extern "C" dls_status dls_attention_naive_backward(dls_ctx *ctx,
                                                   const dls_attention_shape *shape,
                                                   void *dq, void *dk, void *dv,
                                                   void *scratch, const void *dout,
                                                   const void *q, const void *k,
                                                   const void *v, const void *att)
{
    dls_attention_shape s = *shape;
    DLS_TRY(dls_attention_complete(&s));
    if (s.B == 0 || (s.Tq == 0 && s.Tk == 0))
        return DLS_OK;
    return DLS_BY_TYPE(ctx, naive_backward(ctx, s, (real *)dq, (real *)dk, (real *)dv,
                                           (dls_acc<real> *)scratch, (const real *)dout,
                                           (const real *)q, (const real *)k,
                                           (const real *)v, (const dls_acc<real> *)att));
}

/* code/kernels/attention.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Causal attention on the device, materialised: scores, softmax, product, each a kernel
 * of its own with the (T, T) weights of every head in global memory between them. */
#include "kernels/attention.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/attention_host.h"
#include "kernels/host_pair.h"

/* view an array as heads */
/* Element (b, h, r, c) lies at data[b * batch + h * head + r * row + c]. */
template <typename real>
struct heads {
    real *data;
    size_t batch, head, row;
    __device__ real *at(int b, int h) const { return data + b * batch + h * head; }
};

/* Which of the inner indices or tiles a product over the causal triangle can leave out.
 */
enum { SKIP_ABOVE_DIAGONAL, STOP_AT_ROW, START_AT_ROW };

/* multiply heads in tiles */
template <typename real, bool left_transposed, bool right_transposed, int range>
__global__ void attention_product_kernel(heads<real> out, heads<const real> left,
                                         heads<const real> right, int M, int N, int K,
                                         int H)
{
    __shared__ real a[16][17], b[16][17];
    int x = threadIdx.x, y = threadIdx.y, row = blockIdx.z * 16, column = blockIdx.y * 16;
    if (range == SKIP_ABOVE_DIAGONAL && column > row + 15)
        return;  // the whole block
    const real *from_left = left.at(blockIdx.x / H, blockIdx.x % H);
    const real *from_right = right.at(blockIdx.x / H, blockIdx.x % H);
    int first = range == START_AT_ROW ? row : 0;
    int last = range == STOP_AT_ROW && row + 16 < K ? row + 16 : K;
    real sum = 0;
    for (int k = first; k < last; k += 16) {
        /* load both tiles */
        if (left_transposed)   // stored (K, M)
            a[x][y] =
                k + y < K && row + x < M ? from_left[(k + y) * left.row + row + x] : real(0);
        else                   // stored (M, K)
            a[y][x] =
                row + y < M && k + x < K ? from_left[(row + y) * left.row + k + x] : real(0);
        if (right_transposed)  // stored (N, K)
            b[x][y] = column + y < N && k + x < K
                          ? from_right[(column + y) * right.row + k + x] : real(0);
        else                   // stored (K, N)
            b[y][x] = k + y < K && column + x < N
                          ? from_right[(k + y) * right.row + column + x] : real(0);
        __syncthreads();
        for (int i = 0; i < 16; i++)
            sum += a[y][i] * b[i][x];
        __syncthreads();
    }
    if (row + y < M && column + x < N)
        out.at(blockIdx.x / H, blockIdx.x % H)[(row + y) * out.row + column + x] = sum;
}

/* take softmax of score rows */
template <typename real>
__global__ void attention_softmax_kernel(real *att, real scale, int T, size_t rows)
{
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= rows)
        return;
    real *row = att + n * T, largest = -INFINITY, sum = 0;
    int seen = (int)(n % T) + 1;
    /* replace scores by exponentials */
    for (int j = lane; j < seen; j += 32)
        largest = row[j] > largest ? row[j] : largest;
    largest = dls_warp_max(largest);
    for (int j = lane; j < seen; j += 32) {
        row[j] = exp(scale * (row[j] - largest));
        sum += row[j];
    }
    sum = dls_warp_sum(sum);
    for (int j = lane; j < T; j += 32)
        row[j] = j < seen ? row[j] / sum : real(0);
}

/* pass the gradient through softmax rows */
template <typename real>
__global__ void attention_softmax_backward_kernel(real *dscores, const real *att,
                                                  real scale, int T, size_t rows)
{
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= rows)
        return;
    real *row = dscores + n * T, average = 0;
    const real *weights = att + n * T;
    int seen = (int)(n % T) + 1;
    for (int j = lane; j < seen; j += 32)
        average += weights[j] * row[j];
    average = dls_warp_sum(average);
    for (int j = lane; j < T; j += 32)
        row[j] = j < seen ? scale * weights[j] * (row[j] - average) : real(0);
}

/* refuse a width that heads do not divide */
static dls_status attention_check(int C, int H)
{
    if (H <= 0 || C % H != 0)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "attention: %d channels can not be shared by %d heads", C, H);
    return DLS_OK;
}

/* launch the attention */
/* Numbers the annotations are made of. */
struct attention_size {
    double pairs, square, rows;  // causal pairs, all pairs, elements of one (B, T, C)
    attention_size(int B, int T, int C, int H)
        : pairs((double)B * H * T * (T + 1.0) / 2), square((double)B * H * T * T),
          rows((double)B * T * C) {}
};

template <typename real>
static void cost_of_product(const char *name, const attention_size &s, int D)
{
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, name, 2 * s.pairs * D,
                    (2 * s.rows + s.pairs) * sizeof(real));
}

template <typename real>
static void cost_of_softmax(const char *name, const attention_size &s, int squares)
{
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, name, 5 * s.pairs,
                    (squares * s.pairs + s.square) * sizeof(real));
}
template <bool left_transposed, bool right_transposed, int range, typename real>
static dls_status attention_product(dls_ctx *ctx, heads<real> out, heads<const real> left,
                                    heads<const real> right, int B, int H, int M, int N,
                                    int K)
{
    dim3 grid((unsigned)B * H, dls_blocks(N, 16), dls_blocks(M, 16));
    attention_product_kernel<real, left_transposed, right_transposed, range>
        <<<grid, dim3(16, 16), 0, ctx->stream>>>(out, left, right, M, N, K, H);
    return dls_launched();
}

template <typename real>
static dls_status attention_forward(dls_ctx *ctx, real *out, real *att, const real *qkv,
                                    int B, int T, int C, int H)
{
    DLS_TRY(attention_check(C, H));
    if ((size_t)B * T * C == 0)
        return DLS_OK;
    int D = C / H;
    real scale = real(1 / sqrt((double)D));
    attention_size s(B, T, C, H);
    /* run the forward pass on the host */
    cost_of_product<real>("attention scores", s, D);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_softmax<real>("attention softmax", s, 1);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real>("attention values", s, D);
    DLS_RUN_ON_HOST(ctx, dls_attention_forward, out, att, qkv, B, T, C, H);
    /* describe the forward arrays */
    size_t width = 3 * (size_t)C, square = (size_t)T * T;
    heads<const real> q = {qkv, T * width, (size_t)D, width};
    heads<const real> k = {qkv + C, T * width, (size_t)D, width};
    heads<const real> v = {qkv + 2 * C, T * width, (size_t)D, width};
    heads<real> a = {att, H * square, square, (size_t)T};
    heads<const real> a_const = {att, H * square, square, (size_t)T};
    heads<real> o = {out, (size_t)T * C, (size_t)D, (size_t)C};
    /* run the three forward kernels */
    cost_of_product<real>("attention scores", s, D);
    DLS_TRY((attention_product<false, true, SKIP_ABOVE_DIAGONAL>(ctx, a, q, k, B, H, T, T,
                                                                 D)));
    size_t rows = (size_t)B * H * T;
    cost_of_softmax<real>("attention softmax", s, 1);
    attention_softmax_kernel<real>
        <<<dls_blocks(rows, 4), 128, 0, ctx->stream>>>(att, scale, T, rows);
    DLS_TRY(dls_launched());
    cost_of_product<real>("attention values", s, D);
    return attention_product<false, false, STOP_AT_ROW>(ctx, o, a_const, v, B, H, T, D,
                                                        T);
}

template <typename real>
static dls_status attention_backward(dls_ctx *ctx, real *dqkv, real *scratch,
                                     const real *dout, const real *qkv, const real *att,
                                     int B, int T, int C, int H)
{
    DLS_TRY(attention_check(C, H));
    if ((size_t)B * T * C == 0)
        return DLS_OK;
    int D = C / H;
    real scale = real(1 / sqrt((double)D));
    attention_size s(B, T, C, H);
    /* run the backward pass on the host */
    cost_of_product<real>("attention backward weights", s, D);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_softmax<real>("attention backward softmax", s, 2);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real>("attention backward queries", s, D);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real>("attention backward keys", s, D);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_product<real>("attention backward values", s, D);
    DLS_RUN_ON_HOST(ctx, dls_attention_backward, dqkv, scratch, dout, qkv, att, B, T, C, H);
    /* describe the backward arrays */
    size_t width = 3 * (size_t)C, square = (size_t)T * T;
    heads<const real> q = {qkv, T * width, (size_t)D, width};
    heads<const real> k = {qkv + C, T * width, (size_t)D, width};
    heads<const real> v = {qkv + 2 * C, T * width, (size_t)D, width};
    heads<const real> a = {att, H * square, square, (size_t)T};
    heads<const real> d_o = {dout, (size_t)T * C, (size_t)D, (size_t)C};
    heads<real> ds = {scratch, H * square, square, (size_t)T};
    heads<const real> ds_const = {scratch, H * square, square, (size_t)T};
    heads<real> dq = {dqkv, T * width, (size_t)D, width};
    heads<real> dk = {dqkv + C, T * width, (size_t)D, width};
    heads<real> dv = {dqkv + 2 * C, T * width, (size_t)D, width};
    /* make the gradient of the scores */
    cost_of_product<real>("attention backward weights", s, D);
    DLS_TRY((attention_product<false, true, SKIP_ABOVE_DIAGONAL>(ctx, ds, d_o, v, B, H, T,
                                                                 T, D)));
    size_t rows = (size_t)B * H * T;
    cost_of_softmax<real>("attention backward softmax", s, 2);
    attention_softmax_backward_kernel<real>
        <<<dls_blocks(rows, 4), 128, 0, ctx->stream>>>(scratch, att, scale, T, rows);
    DLS_TRY(dls_launched());
    /* multiply for the three gradients */
    cost_of_product<real>("attention backward queries", s, D);
    DLS_TRY((attention_product<false, false, STOP_AT_ROW>(ctx, dq, ds_const, k, B, H, T, D,
                                                          T)));
    cost_of_product<real>("attention backward keys", s, D);
    DLS_TRY((attention_product<true, false, START_AT_ROW>(ctx, dk, ds_const, q, B, H, T, D,
                                                          T)));
    cost_of_product<real>("attention backward values", s, D);
    return attention_product<true, false, START_AT_ROW>(ctx, dv, a, d_o, B, H, T, D, T);
}

/* expose the attention */
extern "C" dls_status dls_attention_forward(dls_ctx *ctx, void *out, void *att,
                                            const void *qkv, int B, int T, int C, int H)
{
    return DLS_BY_TYPE(ctx, attention_forward(ctx, (real *)out, (real *)att,
                                              (const real *)qkv, B, T, C, H));
}

extern "C" dls_status dls_attention_backward(dls_ctx *ctx, void *dqkv, void *scratch,
                                             const void *dout, const void *qkv,
                                             const void *att, int B, int T, int C, int H)
{
    return DLS_BY_TYPE(ctx, attention_backward(ctx, (real *)dqkv, (real *)scratch,
                                               (const real *)dout, (const real *)qkv,
                                               (const real *)att, B, T, C, H));
}

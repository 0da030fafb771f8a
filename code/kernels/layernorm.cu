/* code/kernels/layernorm.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Layer normalisation on the device. Rows: a warp each, two passes for the variance.
 * Columns (parameter gradients): 32 columns per block, eight rows at a time, fixed order.
 */
#include "kernels/layernorm.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/layernorm_host.h"
#include "kernels/host_pair.h"

/* normalise a row on the device */
template <int width, typename real, typename acc = dls_acc<real>>
__global__ void layernorm_forward_kernel(real *out, acc *mean, acc *rstd, const real *x,
                                         const real *weight, const real *bias, int N,
                                         int C)
{
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= (size_t)N)
        return;  // the whole warp
    const real *row = x + n * C;
    /* find mean and rstd on the device */
    acc sum = 0, squares = 0;
    for (int c = lane * width; c < C; c += 32 * width) {
        dls_pack<real, width> y = dls_load<width>(row + c);
        for (int i = 0; i < width; i++)
            sum += acc(y.at[i]);
    }
    acc m = dls_warp_sum(sum) / C;
    for (int c = lane * width; c < C; c += 32 * width) {
        dls_pack<real, width> y = dls_load<width>(row + c);
        for (int i = 0; i < width; i++)
            squares += (acc(y.at[i]) - m) * (acc(y.at[i]) - m);
    }
    acc r = acc(1) / sqrt(dls_warp_sum(squares) / C + acc(DLS_LAYERNORM_EPSILON));
    for (int c = lane * width; c < C; c += 32 * width) {
        dls_pack<real, width> y = dls_load<width>(row + c);
        dls_pack<real, width> w = dls_load<width>(weight + c);
        dls_pack<real, width> b = dls_load<width>(bias + c);
        for (int i = 0; i < width; i++)
            y.at[i] = real((acc(y.at[i]) - m) * r * acc(w.at[i]) + acc(b.at[i]));
        dls_store(out + n * C + c, y);
    }
    if (lane == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

/* pass the gradient through a row on the device */
template <int width, typename real, typename acc = dls_acc<real>>
__global__ void layernorm_backward_input_kernel(real *dx, const real *dout, const real *x,
                                                const real *weight, const acc *mean,
                                                const acc *rstd, int N, int C)
{
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= (size_t)N)
        return;
    const real *row = x + n * C, *drow = dout + n * C;
    acc m = mean[n], r = rstd[n], sum = 0, product = 0;
    /* find both means of the gradient */
    for (int c = lane * width; c < C; c += 32 * width) {
        dls_pack<real, width> y = dls_load<width>(row + c), w = dls_load<width>(weight + c);
        dls_pack<real, width> d = dls_load<width>(drow + c);
        for (int i = 0; i < width; i++) {
            acc g = acc(d.at[i]) * acc(w.at[i]);
            sum += g;
            product += g * (acc(y.at[i]) - m) * r;
        }
    }
    sum = dls_warp_sum(sum) / C;
    product = dls_warp_sum(product) / C;
    for (int c = lane * width; c < C; c += 32 * width) {
        dls_pack<real, width> y = dls_load<width>(row + c);
        dls_pack<real, width> w = dls_load<width>(weight + c);
        dls_pack<real, width> d = dls_load<width>(drow + c);
        for (int i = 0; i < width; i++) {
            acc xhat = (acc(y.at[i]) - m) * r, g = acc(d.at[i]) * acc(w.at[i]);
            d.at[i] = real(r * (g - sum - xhat * product));
        }
        dls_store(dx + n * C + c, d);
    }
}

/* sum weight gradients on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void layernorm_backward_weight_kernel(acc *dweight, acc *dbias,
                                                 const real *dout, const real *x,
                                                 const acc *mean, const acc *rstd,
                                                 int N, int C)
{
    __shared__ acc weights[8][32], biases[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    acc dw = 0, db = 0;
    /* sum every eighth row */
    for (size_t n = threadIdx.y; c < C && n < (size_t)N; n += 8) {
        acc g = acc(dout[n * C + c]);
        dw += g * (acc(x[n * C + c]) - mean[n]) * rstd[n];
        db += g;
    }
    weights[threadIdx.y][threadIdx.x] = dw;
    biases[threadIdx.y][threadIdx.x] = db;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C)
        return;
    /* add the eight partial sums */
    for (int y = 1; y < 8; y++) {
        dw += weights[y][threadIdx.x];
        db += biases[y][threadIdx.x];
    }
    dweight[c] += dw;
    dbias[c] += db;
}

/* launch the layer norm */
template <typename real, typename acc = dls_acc<real>>
static dls_status layernorm_forward(dls_ctx *ctx, real *out, acc *mean, acc *rstd,
                                    const real *x, const real *weight, const real *bias,
                                    int N, int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "layernorm forward", 8 * count,
                    (2 * count + 2.0 * C) * sizeof(real) + 2.0 * N * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_layernorm_forward, out, mean, rstd, x, weight, bias, N, C);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, C, out, x, weight, bias),
                 layernorm_forward_kernel<width, real>
                     <<<dls_blocks(N, 4), 128, 0, ctx->stream>>>(
                         out, mean, rstd, x, weight, bias, N, C));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status layernorm_backward_input(dls_ctx *ctx, real *dx, const real *dout,
                                           const real *x, const real *weight,
                                           const acc *mean, const acc *rstd, int N,
                                           int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "layernorm backward input", 12 * count,
                    (3 * count + C) * sizeof(real) + 2.0 * N * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_layernorm_backward_input, dx, dout, x, weight, mean, rstd, N,
                    C);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, C, dx, dout, x, weight),
                 layernorm_backward_input_kernel<width, real>
                     <<<dls_blocks(N, 4), 128, 0, ctx->stream>>>(
                         dx, dout, x, weight, mean, rstd, N, C));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status layernorm_backward_weight(dls_ctx *ctx, acc *dweight, acc *dbias,
                                            const real *dout, const real *x,
                                            const acc *mean, const acc *rstd, int N,
                                            int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "layernorm backward weight", 6 * count,
                    2 * count * sizeof(real) + (4.0 * C + 2.0 * N) * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_layernorm_backward_weight, dweight, dbias, dout, x, mean,
                    rstd, N, C);
    layernorm_backward_weight_kernel<real>
        <<<dls_blocks(C, 32), dim3(32, 8), 0, ctx->stream>>>(dweight, dbias, dout, x,
                                                             mean, rstd, N, C);
    return dls_launched();
}

/* expose the layer norm */
extern "C" dls_status dls_layernorm_forward(dls_ctx *ctx, void *out, void *mean,
                                            void *rstd, const void *x, const void *weight,
                                            const void *bias, int N, int C)
{
    return DLS_BY_TYPE(ctx,
                       layernorm_forward(ctx, (real *)out, (acc *)mean, (acc *)rstd,
                                         (const real *)x, (const real *)weight,
                                         (const real *)bias, N, C));
}

extern "C" dls_status dls_layernorm_backward_input(dls_ctx *ctx, void *dx,
                                                   const void *dout, const void *x,
                                                   const void *weight, const void *mean,
                                                   const void *rstd, int N, int C)
{
    return DLS_BY_TYPE(ctx, layernorm_backward_input(
                                ctx, (real *)dx, (const real *)dout, (const real *)x,
                                (const real *)weight, (const acc *)mean,
                                (const acc *)rstd, N, C));
}

extern "C" dls_status dls_layernorm_backward_weight(dls_ctx *ctx, void *dweight,
                                                    void *dbias, const void *dout,
                                                    const void *x, const void *mean,
                                                    const void *rstd, int N, int C)
{
    return DLS_BY_TYPE(ctx, layernorm_backward_weight(
                                ctx, (acc *)dweight, (acc *)dbias, (const real *)dout,
                                (const real *)x, (const acc *)mean, (const acc *)rstd,
                                N, C));
}

/* code/kernels/rmsnorm.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* RMSNorm on the device. Rows: a warp each, one sum. Columns (the weight's gradient): 32
 * per block, eight rows at a time, fixed order. */
#include "kernels/rmsnorm.h"

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/rmsnorm_host.h"
#include "kernels/host_pair.h"

/* normalise by the mean square */
template <typename real>
__global__ void rmsnorm_forward_kernel(real *out, dls_acc<real> *rstd, const real *x,
                                       const real *weight, int N, int C,
                                       dls_acc<real> epsilon)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= (size_t)N)
        return;  // the whole warp
    const real *row = x + n * C;
    acc squares = 0;
    for (int c = lane; c < C; c += 32)
        squares += acc(row[c]) * acc(row[c]);
    acc r = acc(1) / sqrt(dls_warp_sum(squares) / C + epsilon);
    for (int c = lane; c < C; c += 32)
        out[n * C + c] = real(acc(row[c]) * r * acc(weight[c]));
    if (lane == 0)
        rstd[n] = r;
}

/* pass the gradient through the mean square */
template <typename real>
__global__ void rmsnorm_backward_input_kernel(real *dx, const real *dout, const real *x,
                                              const real *weight,
                                              const dls_acc<real> *rstd, int N, int C)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= (size_t)N)
        return;
    const real *row = x + n * C, *drow = dout + n * C;
    acc r = rstd[n], product = 0;
    for (int c = lane; c < C; c += 32)
        product += acc(drow[c]) * acc(weight[c]) * acc(row[c]) * r;
    product = dls_warp_sum(product) / C;
    for (int c = lane; c < C; c += 32) {
        acc g = acc(drow[c]) * acc(weight[c]);
        dx[n * C + c] = real(r * (g - acc(row[c]) * r * product));
    }
}

/* sum the weight gradient of the mean square */
template <typename real>
__global__ void rmsnorm_backward_weight_kernel(dls_acc<real> *dweight, const real *dout,
                                               const real *x, const dls_acc<real> *rstd,
                                               int N, int C)
{
    using acc = dls_acc<real>;
    __shared__ acc partial[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    acc dw = 0;
    for (size_t n = threadIdx.y; c < C && n < (size_t)N; n += 8)
        dw += acc(dout[n * C + c]) * (acc(x[n * C + c]) * rstd[n]);
    partial[threadIdx.y][threadIdx.x] = dw;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C)
        return;
    for (int y = 1; y < 8; y++)
        dw += partial[y][threadIdx.x];
    dweight[c] += dw;
}

/* launch the rms norm */
template <typename real>
static dls_status rmsnorm_forward(dls_ctx *ctx, real *out, dls_acc<real> *rstd,
                                  const real *x, const real *weight, int N, int C,
                                  double epsilon)
{
    using acc = dls_acc<real>;
    double count = (double)N * C;
    if (!((acc)epsilon > 0))
        return DLS_FAIL(DLS_ERR_INPUT, "rmsnorm: epsilon %g must be positive", epsilon);
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "rmsnorm forward", 4 * count,
                    (2 * count + C) * sizeof(real) + (double)N * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_rmsnorm_forward, out, rstd, x, weight, N, C, (acc)epsilon);
    rmsnorm_forward_kernel<real><<<dls_blocks(N, 4), 128, 0, ctx->stream>>>(
        out, rstd, x, weight, N, C, (acc)epsilon);
    return dls_launched();
}

template <typename real>
static dls_status rmsnorm_backward_input(dls_ctx *ctx, real *dx, const real *dout,
                                         const real *x, const real *weight,
                                         const dls_acc<real> *rstd, int N, int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "rmsnorm backward input", 8 * count,
                    (3 * count + C) * sizeof(real) + (double)N * sizeof(*rstd));
    DLS_RUN_ON_HOST(ctx, dls_rmsnorm_backward_input, dx, dout, x, weight, rstd, N, C);
    rmsnorm_backward_input_kernel<real><<<dls_blocks(N, 4), 128, 0, ctx->stream>>>(
        dx, dout, x, weight, rstd, N, C);
    return dls_launched();
}

template <typename real>
static dls_status rmsnorm_backward_weight(dls_ctx *ctx, dls_acc<real> *dweight,
                                          const real *dout, const real *x,
                                          const dls_acc<real> *rstd, int N, int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "rmsnorm backward weight", 3 * count,
                    2 * count * sizeof(real) + (2.0 * C + N) * sizeof(*rstd));
    DLS_RUN_ON_HOST(ctx, dls_rmsnorm_backward_weight, dweight, dout, x, rstd, N, C);
    rmsnorm_backward_weight_kernel<real>
        <<<dls_blocks(C, 32), dim3(32, 8), 0, ctx->stream>>>(dweight, dout, x, rstd, N,
                                                             C);
    return dls_launched();
}

/* expose the rms norm */
extern "C" dls_status dls_rmsnorm_forward(dls_ctx *ctx, void *out, void *rstd,
                                          const void *x, const void *weight, int N, int C,
                                          double epsilon)
{
    return DLS_BY_TYPE(ctx, rmsnorm_forward(ctx, (real *)out, (acc *)rstd,
                                            (const real *)x, (const real *)weight, N, C,
                                            epsilon));
}

extern "C" dls_status dls_rmsnorm_backward_input(dls_ctx *ctx, void *dx, const void *dout,
                                                 const void *x, const void *weight,
                                                 const void *rstd, int N, int C)
{
    return DLS_BY_TYPE(ctx, rmsnorm_backward_input(
                                ctx, (real *)dx, (const real *)dout, (const real *)x,
                                (const real *)weight, (const acc *)rstd, N, C));
}

extern "C" dls_status dls_rmsnorm_backward_weight(dls_ctx *ctx, void *dweight,
                                                  const void *dout, const void *x,
                                                  const void *rstd, int N, int C)
{
    return DLS_BY_TYPE(ctx, rmsnorm_backward_weight(ctx, (acc *)dweight,
                                                    (const real *)dout, (const real *)x,
                                                    (const acc *)rstd, N, C));
}

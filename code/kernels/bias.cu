/* code/kernels/bias.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Adding a bias and summing its gradient on the device. */
#include "kernels/bias.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/bias_host.h"
#include "kernels/host_pair.h"

/* add the bias on the device */
template <int width, typename real, typename acc = dls_acc<real>>
__global__ void bias_add_kernel(real *x, const real *bias, int C, size_t count)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= count)
        return;
    dls_pack<real, width> y = dls_load<width>(x + i), b = dls_load<width>(bias + i % C);
    for (int j = 0; j < width; j++)
        y.at[j] = real(acc(y.at[j]) + acc(b.at[j]));
    dls_store(x + i, y);
}

template <typename real, typename acc = dls_acc<real>>
__global__ void bias_backward_kernel(acc *dbias, const real *dout, int N, int C)
{
    __shared__ acc partial[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    acc sum = 0;
    for (size_t n = threadIdx.y; c < C && n < (size_t)N; n += 8)
        sum += acc(dout[n * C + c]);
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C)
        return;
    for (int y = 1; y < 8; y++)
        sum += partial[y][threadIdx.x];
    dbias[c] += sum;
}

/* launch the bias */
template <typename real, typename acc = dls_acc<real>>
static dls_status bias_add(dls_ctx *ctx, real *x, const real *bias, int N, int C)
{
    size_t count = (size_t)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "bias add", (double)count,
                    (2.0 * count + C) * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_bias_add, x, bias, N, C);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, C, x, bias),
                 bias_add_kernel<width, real>
                     <<<dls_blocks(count, 256 * width), 256, 0, ctx->stream>>>(x, bias, C,
                                                                               count));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status bias_backward(dls_ctx *ctx, acc *dbias, const real *dout, int N, int C)
{
    double count = (double)N * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "bias backward", count,
                    count * sizeof(real) + 2.0 * C * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_bias_backward, dbias, dout, N, C);
    bias_backward_kernel<real>
        <<<dls_blocks(C, 32), dim3(32, 8), 0, ctx->stream>>>(dbias, dout, N, C);
    return dls_launched();
}

/* expose the bias */
extern "C" dls_status dls_bias_add(dls_ctx *ctx, void *x, const void *bias, int N, int C)
{
    return DLS_BY_TYPE(ctx, bias_add(ctx, (real *)x, (const real *)bias, N, C));
}

extern "C" dls_status dls_bias_backward(dls_ctx *ctx, void *dbias, const void *dout,
                                        int N, int C)
{
    return DLS_BY_TYPE(ctx, bias_backward(ctx, (acc *)dbias, (const real *)dout, N, C));
}

/* code/kernels/gelu.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU on the device, one thread per pack of elements, through the logistic function. */
#include "kernels/gelu.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/gelu_host.h"
#include "kernels/host_pair.h"

/* apply gelu on the device */
template <typename acc>
__device__ inline acc gelu_gate(acc x)
{
    acc u = acc(DLS_GELU_SCALE) * (x + acc(DLS_GELU_CUBIC) * x * x * x);
    return acc(1) / (acc(1) + exp(acc(-2) * u));
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_forward_kernel(real *out, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        v.at[j] = real(acc(v.at[j]) * gelu_gate(acc(v.at[j])));
    dls_store(out + i, v);
}

template <typename acc>
__device__ inline acc gelu_slope(acc v)
{
    acc s = gelu_gate(v);
    acc slope = acc(DLS_GELU_SCALE) * (acc(1) + acc(3 * DLS_GELU_CUBIC) * v * v);
    return s + acc(2) * v * slope * s * (acc(1) - s);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_backward_kernel(real *dx, const real *dout, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> d = dls_load<width>(dout + i), v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        d.at[j] = real(acc(d.at[j]) * gelu_slope(acc(v.at[j])));
    dls_store(dx + i, d);
}

/* launch gelu */
template <typename real>
static dls_status gelu_forward(dls_ctx *ctx, real *out, const real *x, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "gelu forward", 10.0 * n,
                    2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_gelu_forward, out, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, out, x),
                 gelu_forward_kernel<width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(out, x, n));
    return dls_launched();
}

template <typename real>
static dls_status gelu_backward(dls_ctx *ctx, real *dx, const real *dout, const real *x,
                                size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "gelu backward", 21.0 * n,
                    3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_gelu_backward, dx, dout, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, dx, dout, x),
                 gelu_backward_kernel<width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(
                         dx, dout, x, n));
    return dls_launched();
}

/* expose gelu */
extern "C" dls_status dls_gelu_forward(dls_ctx *ctx, void *out, const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_forward(ctx, (real *)out, (const real *)x, n));
}

extern "C" dls_status dls_gelu_backward(dls_ctx *ctx, void *dx, const void *dout,
                                        const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_backward(ctx, (real *)dx, (const real *)dout,
                                          (const real *)x, n));
}

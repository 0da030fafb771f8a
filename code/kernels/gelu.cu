/* code/kernels/gelu.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU on the device, one thread per element, through the logistic function. */
#include "kernels/gelu.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/gelu_host.h"
#include "kernels/host_pair.h"

/* apply gelu on the device */
template <typename acc>
__device__ inline acc gelu_gate(acc x)
{
    acc u = acc(DLS_GELU_SCALE) * (x + acc(DLS_GELU_CUBIC) * x * x * x);
    return acc(1) / (acc(1) + exp(acc(-2) * u));
}

template <typename real, typename acc = dls_acc<real>>
__global__ void gelu_forward_kernel(real *out, const real *x, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    acc v = acc(x[i]);
    out[i] = real(v * gelu_gate(v));
}

template <typename real, typename acc = dls_acc<real>>
__global__ void gelu_backward_kernel(real *dx, const real *dout, const real *x, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    acc v = acc(x[i]), s = gelu_gate(v);
    acc slope = acc(DLS_GELU_SCALE) * (acc(1) + acc(3 * DLS_GELU_CUBIC) * v * v);
    dx[i] = real(acc(dout[i]) * (s + acc(2) * v * slope * s * (acc(1) - s)));
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
    gelu_forward_kernel<real><<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, x, n);
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
    gelu_backward_kernel<real>
        <<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(dx, dout, x, n);
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

/* code/kernels/gelu.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU on the device, one thread per pack of elements, through the logistic function. */
#include "kernels/gelu.cuh"

#define DLS_HOST_HEADER "kernels/gelu_host.h"
#include "kernels/host_pair.h"

/* apply gelu on the device */
struct gelu_fit {
    template <typename acc> static __device__ acc gate(acc x)
    {
        acc u = acc(DLS_GELU_SCALE) * (x + acc(DLS_GELU_CUBIC) * x * x * x);
        return acc(1) / (acc(1) + exp(acc(-2) * u));
    }
    template <typename acc> static __device__ acc slope(acc v)
    {
        acc s = gate(v);
        acc du = acc(DLS_GELU_SCALE) * (acc(1) + acc(3 * DLS_GELU_CUBIC) * v * v);
        return s + acc(2) * v * du * s * (acc(1) - s);
    }
};

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
                 gelu_forward_kernel<gelu_fit, width, real>
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
                 gelu_backward_kernel<gelu_fit, width, real>
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

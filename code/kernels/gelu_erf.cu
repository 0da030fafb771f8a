/* code/kernels/gelu_erf.cu: from chapters/09-transformer-kernels-gelu-erf.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU with the error function, x Phi(x). */
#include "kernels/gelu.cuh"

#define DLS_HOST_HEADER "kernels/gelu_erf_host.h"
#include "kernels/host_pair.h"

/* apply the exact gelu */
struct gelu_exact {
    template <typename acc> static __device__ acc gate(acc x)
    {
        return acc(0.5) * erfc(x * acc(-0.70710678118654752));
    }
    template <typename acc> static __device__ acc slope(acc x)
    {
        acc density = acc(0.39894228040143268) * exp(acc(-0.5) * x * x);
        return gate(x) + x * density;
    }
};

/* launch the exact gelu */
template <typename real>
static dls_status gelu_erf_forward(dls_ctx *ctx, real *out, const real *x, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "exact gelu forward", 20.0 * n,
                    2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_gelu_erf_forward, out, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, out, x),
                 gelu_forward_kernel<gelu_exact, width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(out, x, n));
    return dls_launched();
}

template <typename real>
static dls_status gelu_erf_backward(dls_ctx *ctx, real *dx, const real *dout,
                                    const real *x, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "exact gelu backward", 30.0 * n,
                    3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_gelu_erf_backward, dx, dout, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, dx, dout, x),
                 gelu_backward_kernel<gelu_exact, width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(
                         dx, dout, x, n));
    return dls_launched();
}

extern "C" dls_status dls_gelu_erf_forward(dls_ctx *ctx, void *out, const void *x,
                                           size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_erf_forward(ctx, (real *)out, (const real *)x, n));
}

extern "C" dls_status dls_gelu_erf_backward(dls_ctx *ctx, void *dx, const void *dout,
                                            const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_erf_backward(ctx, (real *)dx, (const real *)dout,
                                              (const real *)x, n));
}

/* code/kernels/gelu.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* x gate(x) over an array and its derivative, one thread per pack of elements, for any
 * form with a gate and a slope. */
#include "kernels/gelu.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/gelu_host.h"
#include "kernels/host_pair.h"

/* apply a gate to an array */
template <class form, int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_forward_kernel(real *out, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        v.at[j] = real(acc(v.at[j]) * form::gate(acc(v.at[j])));
    dls_store(out + i, v);
}

template <class form, int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_backward_kernel(real *dx, const real *dout, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> d = dls_load<width>(dout + i), v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        d.at[j] = real(acc(d.at[j]) * form::slope(acc(v.at[j])));
    dls_store(dx + i, d);
}

/* launch gelu */
/* Within a form: the host's functions name_forward and name_backward. */
#define GELU_ON_HOST(name)                                      \
    static constexpr auto forward_f32 = name##_forward_f32;     \
    static constexpr auto forward_f64 = name##_forward_f64;     \
    static constexpr auto forward_bf16 = name##_forward_bf16;   \
    static constexpr auto backward_f32 = name##_backward_f32;   \
    static constexpr auto backward_f64 = name##_backward_f64;   \
    static constexpr auto backward_bf16 = name##_backward_bf16;

template <class form, typename real>
static dls_status gelu_forward(dls_ctx *ctx, real *out, const real *x, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, form::forward_name, form::forward_flops * n,
                    2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, form::forward, out, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, out, x),
                 gelu_forward_kernel<form, width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(out, x, n));
    return dls_launched();
}

template <class form, typename real>
static dls_status gelu_backward(dls_ctx *ctx, real *dx, const real *dout, const real *x,
                                size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, form::backward_name, form::backward_flops * n,
                    3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, form::backward, dx, dout, x, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, dx, dout, x),
                 gelu_backward_kernel<form, width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(
                         dx, dout, x, n));
    return dls_launched();
}

/* apply gelu on the device */
struct gelu_fit {
    static constexpr const char *forward_name = "gelu forward";
    static constexpr const char *backward_name = "gelu backward";
    static constexpr double forward_flops = 10, backward_flops = 21;
    GELU_ON_HOST(dls_gelu)
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

struct gelu_exact {
    static constexpr const char *forward_name = "exact gelu forward";
    static constexpr const char *backward_name = "exact gelu backward";
    static constexpr double forward_flops = 20, backward_flops = 30;
    GELU_ON_HOST(dls_gelu_erf)
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

/* expose gelu */
extern "C" dls_status dls_gelu_forward(dls_ctx *ctx, void *out, const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_forward<gelu_fit>(ctx, (real *)out, (const real *)x, n));
}

extern "C" dls_status dls_gelu_backward(dls_ctx *ctx, void *dx, const void *dout,
                                        const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_backward<gelu_fit>(ctx, (real *)dx, (const real *)dout,
                                                    (const real *)x, n));
}

extern "C" dls_status dls_gelu_erf_forward(dls_ctx *ctx, void *out, const void *x,
                                           size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_forward<gelu_exact>(ctx, (real *)out, (const real *)x,
                                                     n));
}

extern "C" dls_status dls_gelu_erf_backward(dls_ctx *ctx, void *dx, const void *dout,
                                            const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, gelu_backward<gelu_exact>(ctx, (real *)dx, (const real *)dout,
                                                      (const real *)x, n));
}

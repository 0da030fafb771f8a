/* code/kernels/swiglu.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* SwiGLU on the device, one thread per pair of gate and value. */
#include "kernels/swiglu.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/swiglu_host.h"
#include "kernels/host_pair.h"

/* apply swiglu */
/* the logistic function */
template <typename acc>
__device__ inline acc swiglu_sigmoid(acc g)
{
    return acc(1) / (acc(1) + exp(-g));
}

template <typename real>
__global__ void swiglu_forward_kernel(real *out, const real *gate_up, size_t n, int F)
{
    using acc = dls_acc<real>;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    const real *gate = gate_up + i + i / F * F;  // row i / F begins at 2F i / F
    acc g = acc(gate[0]);
    out[i] = real(g / (acc(1) + exp(-g)) * acc(gate[F]));
}

template <typename real>
__global__ void swiglu_backward_kernel(real *dgate_up, const real *dout,
                                       const real *gate_up, size_t n, int F)
{
    using acc = dls_acc<real>;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    size_t at = i + i / F * F;
    acc g = acc(gate_up[at]), u = acc(gate_up[at + F]), d = acc(dout[i]);
    acc s = swiglu_sigmoid(g);
    dgate_up[at] = real(d * u * (s + g * s * (acc(1) - s)));
    dgate_up[at + F] = real(d * g * s);
}

/* launch swiglu */
template <typename real>
static dls_status swiglu_forward(dls_ctx *ctx, real *out, const real *gate_up, int N,
                                 int F)
{
    size_t n = (size_t)N * F;
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "swiglu forward", 5.0 * n,
                    3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_swiglu_forward, out, gate_up, N, F);
    swiglu_forward_kernel<real>
        <<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, gate_up, n, F);
    return dls_launched();
}

template <typename real>
static dls_status swiglu_backward(dls_ctx *ctx, real *dgate_up, const real *dout,
                                  const real *gate_up, int N, int F)
{
    size_t n = (size_t)N * F;
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "swiglu backward", 12.0 * n,
                    5.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_swiglu_backward, dgate_up, dout, gate_up, N, F);
    swiglu_backward_kernel<real>
        <<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(dgate_up, dout, gate_up, n, F);
    return dls_launched();
}

extern "C" dls_status dls_swiglu_forward(dls_ctx *ctx, void *out, const void *gate_up,
                                         int N, int F)
{
    return DLS_BY_TYPE(ctx, swiglu_forward(ctx, (real *)out, (const real *)gate_up, N,
                                           F));
}

extern "C" dls_status dls_swiglu_backward(dls_ctx *ctx, void *dgate_up, const void *dout,
                                          const void *gate_up, int N, int F)
{
    return DLS_BY_TYPE(ctx, swiglu_backward(ctx, (real *)dgate_up, (const real *)dout,
                                            (const real *)gate_up, N, F));
}

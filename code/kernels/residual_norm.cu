/* code/kernels/residual_norm.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Residual addition and norm on the device: a warp per row. The row of h is written, and
 * read again out of the first-level cache. */
#include "kernels/residual_norm.h"

#include "kernels/dropout.cuh"
#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/residual_norm_host.h"
#include "kernels/host_pair.h"

/* add the branch to the row */
template <bool dropped, typename real>
__device__ inline void add_branch(real *h, const real *x, const real *f, int C,
                                  uint64_t start, const dls_dropout_gate *gate)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32, shift = dropped ? (int)(start % 4) : 0;
    for (int base = -shift; base < C; base += 128) {
        unsigned bits = dropped ? dls_dropout_warp(gate, (start + base) / 4) : 15;
        acc scale = dropped ? acc(gate->scale) : acc(1);
        for (int i = 0; i < 4; i++) {
            int c = base + 32 * i + lane;
            if (c >= 0 && c < C)
                h[c] = real(acc(x[c]) + (bits >> i & 1 ? scale * acc(f[c]) : acc(0)));
        }
    }
    __syncwarp();  // other lanes read these elements next
}

/* normalise the sum */
template <bool centred, typename real>
__device__ inline void normalise_sum(real *out, dls_acc<real> *mean, dls_acc<real> *rstd,
                                     const real *h, const real *weight, const real *bias,
                                     int C, dls_acc<real> epsilon)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32;
    acc m = 0, squares = 0;
    if (centred) {
        for (int c = lane; c < C; c += 32)
            m += acc(h[c]);
        m = dls_warp_sum(m) / C;
    }
    for (int c = lane; c < C; c += 32)
        squares += (acc(h[c]) - m) * (acc(h[c]) - m);
    acc r = acc(1) / sqrt(dls_warp_sum(squares) / C + epsilon);
    for (int c = lane; c < C; c += 32)
        out[c] = real((acc(h[c]) - m) * r * acc(weight[c])
                      + (centred ? acc(bias[c]) : acc(0)));
    if (lane == 0 && centred)
        *mean = m;
    if (lane == 0)
        *rstd = r;
}

template <bool centred, bool dropped, typename real>
__global__ void residual_norm_forward_kernel(real *h, real *out, dls_acc<real> *mean,
                                             dls_acc<real> *rstd, const real *x,
                                             const real *f, const real *weight,
                                             const real *bias, dls_residual_plan s)
{
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, at = n * s.C;
    if (n >= (size_t)s.N)
        return;  // the whole warp
    add_branch<dropped>(h + at, x + at, f + at, s.C, s.first + n * s.row, &s.gate);
    normalise_sum<centred>(out + at, mean + n, rstd + n, h + at, weight, bias, s.C,
                           (dls_acc<real>)s.epsilon);
}

/* pass the gradient through the sum */
template <bool centred, bool dropped, typename real>
__global__ void residual_norm_backward_kernel(real *dx, real *df, const real *dstream,
                                              const real *dout, const real *h,
                                              const real *weight,
                                              const dls_acc<real> *mean,
                                              const dls_acc<real> *rstd,
                                              dls_residual_plan s)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32;
    size_t n = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, at = n * s.C;
    if (n >= (size_t)s.N)
        return;
    acc m = centred ? mean[n] : acc(0), r = rstd[n], sum = 0, product = 0;
    for (int c = lane; c < s.C; c += 32) {
        acc g = acc(dout[at + c]) * acc(weight[c]);
        sum += g;
        product += g * (acc(h[at + c]) - m) * r;
    }
    sum = centred ? dls_warp_sum(sum) / s.C : acc(0);
    product = dls_warp_sum(product) / s.C;
    /* write both gradients of the sum */
    uint64_t start = s.first + n * s.row;
    int shift = dropped ? (int)(start % 4) : 0;
    for (int base = -shift; base < s.C; base += 128) {
        unsigned bits = dropped ? dls_dropout_warp(&s.gate, (start + base) / 4) : 0;
        for (int i = 0; i < 4; i++) {
            int c = base + 32 * i + lane;
            if (c < 0 || c >= s.C)
                continue;
            acc g = acc(dout[at + c]) * acc(weight[c]), xhat = (acc(h[at + c]) - m) * r;
            acc d = acc(dstream[at + c]) + r * (g - sum - xhat * product);
            real stored = real(d);
            dx[at + c] = stored;
            if (dropped)
                df[at + c] = bits >> i & 1 ? real(acc(stored) * acc(s.gate.scale))
                                           : real(acc(0));
        }
    }
}

/* plan the residual norm */
static dls_status plan_residual(const dls_residual_norm *shape, int positive,
                                dls_residual_plan *s)
{
    const dls_dropout *d = shape->dropout;
    *s = {shape->N, shape->C, shape->centred, d != NULL, shape->epsilon, 0, 0, {}};
    if (!positive)
        return DLS_FAIL(DLS_ERR_INPUT, "residual norm: epsilon %g must be positive",
                        shape->epsilon);
    if (d == NULL)
        return DLS_OK;
    DLS_TRY(dls_dropout_check(d->p));
    s->first = d->first;
    s->row = d->row > 0 ? d->row : (uint64_t)s->C;
    s->gate = dls_dropout_gate_of(d->p, d->seed, d->stream);
    return DLS_OK;
}

/* launch the residual norm */
template <bool centred, bool dropped, typename real, typename... Args>
static void launch_forward(dls_ctx *ctx, const dls_residual_plan &s, Args... args)
{
    residual_norm_forward_kernel<centred, dropped, real>
        <<<dls_blocks(s.N, 4), 128, 0, ctx->stream>>>(args..., s);
}

template <bool centred, bool dropped, typename real, typename... Args>
static void launch_backward(dls_ctx *ctx, const dls_residual_plan &s, Args... args)
{
    residual_norm_backward_kernel<centred, dropped, real>
        <<<dls_blocks(s.N, 4), 128, 0, ctx->stream>>>(args..., s);
}

/* One of four kernels: `launch` is the name of a function above. */
#define LAUNCH_NORM(launch, ctx, s, ...)                                                 \
    ((s).centred ? (s).dropped ? launch<true, true, real>(ctx, s, __VA_ARGS__)           \
                               : launch<true, false, real>(ctx, s, __VA_ARGS__)          \
                 : (s).dropped ? launch<false, true, real>(ctx, s, __VA_ARGS__)          \
                               : launch<false, false, real>(ctx, s, __VA_ARGS__))

template <typename real>
static dls_status residual_forward(dls_ctx *ctx, real *h, real *out, dls_acc<real> *mean,
                                   dls_acc<real> *rstd, const real *x, const real *f,
                                   const real *weight, const real *bias,
                                   const dls_residual_norm *shape)
{
    dls_residual_plan s;
    DLS_TRY(plan_residual(shape, (dls_acc<real>)shape->epsilon > 0, &s));
    double count = (double)s.N * s.C, vectors = s.centred ? 2 : 1;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "residual norm forward",
                    (s.centred ? 9 : 5) * count + (s.dropped ? count : 0),
                    (4 * count + vectors * s.C) * sizeof(real)
                        + vectors * s.N * sizeof(*rstd));
    DLS_RUN_ON_HOST(ctx, dls_residual_norm_forward, h, out, mean, rstd, x, f, weight,
                    bias, s);
    LAUNCH_NORM(launch_forward, ctx, s, h, out, mean, rstd, x, f, weight, bias);
    return dls_launched();
}

template <typename real>
static dls_status residual_backward(dls_ctx *ctx, real *dx, real *df, const real *dstream,
                                    const real *dout, const real *h, const real *weight,
                                    const dls_acc<real> *mean, const dls_acc<real> *rstd,
                                    const dls_residual_norm *shape)
{
    dls_residual_plan s;
    DLS_TRY(plan_residual(shape, (dls_acc<real>)shape->epsilon > 0, &s));
    double count = (double)s.N * s.C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "residual norm backward",
                    (s.centred ? 13 : 9) * count + (s.dropped ? count : 0),
                    ((s.dropped ? 5 : 4) * count + s.C) * sizeof(real)
                        + (s.centred ? 2.0 : 1.0) * s.N * sizeof(*rstd));
    DLS_RUN_ON_HOST(ctx, dls_residual_norm_backward, dx, df, dstream, dout, h, weight,
                    mean, rstd, s);
    LAUNCH_NORM(launch_backward, ctx, s, dx, df, dstream, dout, h, weight, mean, rstd);
    return dls_launched();
}

/* expose the residual norm */
extern "C" dls_status dls_residual_norm_forward(dls_ctx *ctx, void *h, void *out,
                                                void *mean, void *rstd, const void *x,
                                                const void *f, const void *weight,
                                                const void *bias,
                                                const dls_residual_norm *shape)
{
    return DLS_BY_TYPE(ctx, residual_forward(ctx, (real *)h, (real *)out, (acc *)mean,
                                             (acc *)rstd, (const real *)x,
                                             (const real *)f, (const real *)weight,
                                             (const real *)bias, shape));
}

extern "C" dls_status dls_residual_norm_backward(dls_ctx *ctx, void *dx, void *df,
                                                 const void *dstream, const void *dout,
                                                 const void *h, const void *weight,
                                                 const void *mean, const void *rstd,
                                                 const dls_residual_norm *shape)
{
    return DLS_BY_TYPE(ctx, residual_backward(
                                ctx, (real *)dx, (real *)df, (const real *)dstream,
                                (const real *)dout, (const real *)h,
                                (const real *)weight, (const acc *)mean,
                                (const acc *)rstd, shape));
}

/* code/kernels/convert.cu: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Between a type and its accumulator's, on the device. */
#include "kernels/convert.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/convert_host.h"
#include "kernels/host_pair.h"

/* round and widen on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void narrow_kernel(real *out, const acc *in, size_t n, int add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = real(add ? acc(out[i]) + in[i] : in[i]);
}

template <typename real, typename acc = dls_acc<real>>
__global__ void widen_kernel(acc *out, const real *in, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = acc(in[i]);
}

/* launch conversions */
template <typename real, typename acc = dls_acc<real>>
static dls_status launch_narrow(dls_ctx *ctx, real *out, const acc *in, size_t n, int add)
{
    double bytes = (1.0 + add) * sizeof(real) + sizeof(acc);
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "narrow", 1.0 * n, bytes * n);
    DLS_RUN_ON_HOST(ctx, dls_to_narrow, out, in, n, add);
    narrow_kernel<real><<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, in, n, add);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status launch_widen(dls_ctx *ctx, acc *out, const real *in, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "widen", 1.0 * n,
                    1.0 * n * (sizeof(real) + sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_to_wide, out, in, n);
    widen_kernel<real><<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, in, n);
    return dls_launched();
}

extern "C" dls_status dls_to_narrow(dls_ctx *ctx, void *out, const void *in, size_t n,
                                 int add)
{
    return DLS_BY_TYPE(ctx, launch_narrow(ctx, (real *)out, (const acc *)in, n, add));
}

extern "C" dls_status dls_to_wide(dls_ctx *ctx, void *out, const void *in, size_t n)
{
    return DLS_BY_TYPE(ctx, launch_widen(ctx, (acc *)out, (const real *)in, n));
}

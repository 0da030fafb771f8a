/* code/kernels/elementwise.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Elementwise sums and scales on the device, one thread per element. */
#include "kernels/elementwise.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/elementwise_host.h"
#include "kernels/host_pair.h"

/* add and scale on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void add_kernel(real *out, const real *a, const real *b, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = real(acc(a[i]) + acc(b[i]));
}

template <typename real, typename acc = dls_acc<real>>
__global__ void scale_kernel(real *x, acc alpha, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] = real(alpha * acc(x[i]));
}

/* launch additions and scales */
template <typename real, typename acc = dls_acc<real>>
static dls_status add(dls_ctx *ctx, real *out, const real *a, const real *b, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "add", 1.0 * n, 3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_add, out, a, b, n);
    add_kernel<real><<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, a, b, n);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status scale(dls_ctx *ctx, real *x, acc alpha, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "scale", 1.0 * n, 2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_scale, x, alpha, n);
    scale_kernel<real><<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(x, alpha, n);
    return dls_launched();
}

extern "C" dls_status dls_add(dls_ctx *ctx, void *out, const void *a, const void *b,
                              size_t n)
{
    return DLS_BY_TYPE(ctx, add(ctx, (real *)out, (const real *)a, (const real *)b, n));
}

extern "C" dls_status dls_scale(dls_ctx *ctx, void *x, double alpha, size_t n)
{
    return DLS_BY_TYPE(ctx, scale(ctx, (real *)x, (acc)alpha, n));
}

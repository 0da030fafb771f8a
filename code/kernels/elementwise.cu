/* code/kernels/elementwise.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Elementwise sums and scales on the device, one thread per pack of elements. */
#include "kernels/elementwise.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/elementwise_host.h"
#include "kernels/host_pair.h"

/* add and scale on the device */
template <int width, typename real, typename acc = dls_acc<real>>
__global__ void add_kernel(real *out, const real *a, const real *b, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> x = dls_load<width>(a + i), y = dls_load<width>(b + i);
    for (int j = 0; j < width; j++)
        x.at[j] = real(acc(x.at[j]) + acc(y.at[j]));
    dls_store(out + i, x);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void scale_kernel(real *x, acc alpha, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> y = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        y.at[j] = real(alpha * acc(y.at[j]));
    dls_store(x + i, y);
}

/* launch additions and scales */
template <typename real, typename acc = dls_acc<real>>
static dls_status add(dls_ctx *ctx, real *out, const real *a, const real *b, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "add", 1.0 * n, 3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_add, out, a, b, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, out, a, b),
                 add_kernel<width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(out, a, b, n));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status scale(dls_ctx *ctx, real *x, acc alpha, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "scale", 1.0 * n, 2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_scale, x, alpha, n);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, n, x),
                 scale_kernel<width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(x, alpha, n));
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

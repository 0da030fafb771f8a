/* code/kernels/rows.cu: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* Moving rows on the device, a block per row. */
#include "kernels/rows.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/rows_host.h"
#include "kernels/host_pair.h"

/* move rows on the device */
template <typename real>
__global__ void gather_rows_kernel(real *out, const real *x, const int *numbers, int C)
{
    const real *from = x + (size_t)numbers[blockIdx.x] * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        out[(size_t)blockIdx.x * C + i] = from[i];
}

template <typename real>
__global__ void scatter_rows_kernel(real *x, const real *from, const int *numbers, int C)
{
    real *to = x + (size_t)numbers[blockIdx.x] * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        to[i] = from[(size_t)blockIdx.x * C + i];
}

template <typename real>
__global__ void put_outside_kernel(real *x, const real *from, const unsigned char *kept,
                                   int C)
{
    size_t first = (size_t)blockIdx.x * C;
    if (kept[blockIdx.x])
        return;
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        x[first + i] = from[first + i];
}

/* launch the moves */
template <typename real>
static dls_status gather(dls_ctx *ctx, real *out, const real *x, const int *numbers,
                         int n, int C)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "gather rows", 0, 2.0 * n * C * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_rows_gather, out, x, numbers, n, C);
    gather_rows_kernel<<<(unsigned)n, 256, 0, ctx->stream>>>(out, x, numbers, C);
    return dls_launched();
}

template <typename real>
static dls_status scatter(dls_ctx *ctx, real *x, const real *from, const int *numbers,
                          int n, int C)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "scatter rows", 0, 2.0 * n * C * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_rows_scatter, x, from, numbers, n, C);
    scatter_rows_kernel<<<(unsigned)n, 256, 0, ctx->stream>>>(x, from, numbers, C);
    return dls_launched();
}

template <typename real>
static dls_status put_outside(dls_ctx *ctx, real *x, const real *from,
                              const unsigned char *kept, int V, int C)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "put rows", 0, 2.0 * V * C * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_rows_put_outside, x, from, kept, V, C);
    put_outside_kernel<<<(unsigned)V, 256, 0, ctx->stream>>>(x, from, kept, C);
    return dls_launched();
}

extern "C" dls_status dls_rows_gather(dls_ctx *ctx, void *out, const void *x,
                                      const int *numbers, int n, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, gather(ctx, (real *)out, (const real *)x, numbers, n, C));
}

extern "C" dls_status dls_rows_scatter(dls_ctx *ctx, void *x, const void *from,
                                       const int *numbers, int n, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, scatter(ctx, (real *)x, (const real *)from, numbers, n, C));
}

extern "C" dls_status dls_rows_put_outside(dls_ctx *ctx, void *x, const void *from,
                                           const unsigned char *kept, int V, int C)
{
    return DLS_BY_TYPE(ctx, put_outside(ctx, (real *)x, (const real *)from, kept, V, C));
}

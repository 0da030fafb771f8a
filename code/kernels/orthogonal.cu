/* code/kernels/orthogonal.cu: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Orthonormal columns on the device: one block, since r columns have an order. */
#include "kernels/orthogonal.h"

#include <float.h>
#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/orthogonal_host.h"
#include "kernels/host_pair.h"

/* orthogonalise on the device */
/* The inner product of columns a and b, the same in all threads. */
template <typename real>
__device__ inline double dot(const real *p, int rows, int columns, int a, int b,
                             double *partial)
{
    double sum = 0;
    for (int i = threadIdx.x; i < rows; i += blockDim.x)
        sum += (double)p[(size_t)i * columns + a] * (double)p[(size_t)i * columns + b];
    return dls_block_sum(sum, partial);
}

template <typename real>
__global__ void orthogonalise_kernel(real *p, int rows, int columns, double least)
{
    __shared__ double partial[32];
    for (int j = 0; j < columns; j++) {
        double before = sqrt(dot(p, rows, columns, j, j, partial));
        for (int k = 0; k < 2 * j; k++) { // twice over the columns before it
            double along = dot(p, rows, columns, k % j, j, partial);
            for (size_t i = threadIdx.x; i < (size_t)rows; i += blockDim.x)
                p[i * columns + j] -= real(along * p[i * columns + k % j]);
            __syncthreads();
        }
        double length = sqrt(dot(p, rows, columns, j, j, partial));
        double factor = length > least * before ? 1 / length : 0;
        for (int i = threadIdx.x; i < rows; i += blockDim.x)
            p[(size_t)i * columns + j] = real(factor * p[(size_t)i * columns + j]);
        __syncthreads();
    }
}

template <typename real>
__global__ void refill_kernel(real *q, const real *fresh, int rows, int columns)
{
    __shared__ double partial[32];
    int j = blockIdx.x;
    double most = 0;
    for (int i = threadIdx.x; i < rows; i += blockDim.x)
        most = fmax(most, fabs((double)q[(size_t)i * columns + j]));
    if (dls_block_max(most, partial) > 0)
        return;
    for (int i = threadIdx.x; i < rows; i += blockDim.x)
        q[(size_t)i * columns + j] = fresh[(size_t)i * columns + j];
}

/* launch the orthogonalisation */
template <typename real>
static dls_status orthogonalise(dls_ctx *ctx, real *p, int rows, int columns)
{
    const double least = 64 * (sizeof(real) == 8 ? DBL_EPSILON : FLT_EPSILON) / 2;
    double n = (double)rows * columns;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "orthogonalise", 8 * n * columns,
                    4 * n * columns * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_orthogonalise, p, rows, columns, least);
    orthogonalise_kernel<<<1, 256, 0, ctx->stream>>>(p, rows, columns, least);
    return dls_launched();
}

template <typename real>
static dls_status refill(dls_ctx *ctx, real *q, const real *fresh, int rows, int columns)
{
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "refill columns", 1.0 * rows * columns,
                    1.0 * rows * columns * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_refill_columns, q, fresh, rows, columns);
    refill_kernel<<<(unsigned)columns, 256, 0, ctx->stream>>>(q, fresh, rows, columns);
    return dls_launched();
}

#define BY_WIDE_TYPE(ctx, ...)                                                       \
    ((ctx)->dtype == DLS_F32   ? DLS_AS_TYPE(float, __VA_ARGS__)                     \
     : (ctx)->dtype == DLS_F64 ? DLS_AS_TYPE(double, __VA_ARGS__)                    \
                               : DLS_FAIL(DLS_ERR_INPUT, "orthogonalise: f32 or f64"))

extern "C" dls_status dls_orthogonalise(dls_ctx *ctx, void *p, int rows, int columns)
{
    if (rows < 1 || columns < 1)
        return DLS_OK;
    return BY_WIDE_TYPE(ctx, orthogonalise(ctx, (real *)p, rows, columns));
}

extern "C" dls_status dls_refill_columns(dls_ctx *ctx, void *q, const void *fresh,
                                         int rows, int columns)
{
    if (rows < 1 || columns < 1)
        return DLS_OK;
    return BY_WIDE_TYPE(ctx, refill(ctx, (real *)q, (const real *)fresh, rows, columns));
}

/* code/kernels/cache.cu: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* Appending rows to a cache: one block per row, its threads over the row. */
#include "kernels/cache.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/cache_host.h"
#include "kernels/host_pair.h"

/* append on the device */
template <typename real>
__global__ void cache_append_kernel(real *cache, const real *rows, size_t row,
                                    const int *positions, int T, int width, int length)
{
    size_t n = blockIdx.x;
    int at = positions[n];
    if (at < 0 || at >= length)
        return;
    real *to = cache + (n / T * length + at) * width;
    for (int c = threadIdx.x; c < width; c += blockDim.x)
        to[c] = rows[n * row + c];
}

/* launch the append */
template <typename real>
static dls_status cache_append(dls_ctx *ctx, real *cache, const real *rows, size_t row,
                               const int *positions, int N, int T, int width, int length)
{
    if (N < 0 || T < 1 || width < 1 || length < 1 || row < (size_t)width)
        return DLS_FAIL(DLS_ERR_INPUT, "cache: cannot append %d rows of %d from rows of "
                        "%zu", N, width, row);
    if (N == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "cache append", 0,
                    2.0 * N * width * sizeof(real) + 4.0 * N);
    DLS_RUN_ON_HOST(ctx, dls_cache_append, cache, rows, row, positions, N, T, width,
                    length);
    cache_append_kernel<real><<<N, 128, 0, ctx->stream>>>(cache, rows, row, positions, T,
                                                         width, length);
    return dls_launched();
}

extern "C" dls_status dls_cache_append(dls_ctx *ctx, void *cache, const void *rows,
                                       size_t row, const int *positions, int N, int T,
                                       int width, int length)
{
    return DLS_BY_TYPE(ctx, cache_append(ctx, (real *)cache, (const real *)rows, row,
                                         positions, N, T, width, length));
}

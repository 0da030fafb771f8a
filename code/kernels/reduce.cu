/* code/kernels/reduce.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums over whole arrays on the device: a partial sum per block, then one block that adds
 * the partial sums in order. No atomics, so the same bits on every run. */
#include "kernels/reduce.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/reduce_host.h"
#include "kernels/host_pair.h"

/* leave a partial sum per block */
constexpr unsigned SLOTS = 64, MOST_BLOCKS = 256;

static __device__ double partial_sums[SLOTS][MOST_BLOCKS];
static unsigned turn;  // the next slot: one counter for all types and kinds of sum

template <typename real, bool squared, typename acc = dls_acc<real>>
__global__ void partial_sum_kernel(const real *x, size_t n, int slot)
{
    __shared__ double partial[32];
    double sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        double term = (double)acc(x[i]);
        sum += squared ? term * term : term;
    }
    sum = dls_block_sum(sum, partial);
    if (threadIdx.x == 0)
        partial_sums[slot][blockIdx.x] = sum;
}

template <typename result, bool add>
__global__ void finish_sum_kernel(result *out, int slot, int blocks)
{
    __shared__ double partial[32];
    double sum = (int)threadIdx.x < blocks ? partial_sums[slot][threadIdx.x] : 0.0;
    sum = dls_block_sum(sum, partial);
    if (threadIdx.x == 0)
        *out = (result)(add ? (double)*out + sum : sum);
}

/* turn a square sum into a coefficient */
static __global__ void clip_coefficient_kernel(double *coef, double *norm,
                                               const double *square_sum, double max_norm)
{
    double length = sqrt(*square_sum);
    *norm = length;
    if (!isfinite(length))
        *coef = 0;
    else
        *coef = max_norm > 0 && length > max_norm ? max_norm / length : 1;
}

/* launch the reductions */
static unsigned blocks_for(size_t n)
{
    unsigned blocks = dls_blocks(n, 4096);
    return blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
}

template <typename real>
static void cost_of_partial_sums(const char *name, bool squared, size_t n)
{
    dls_gpu_cost_of(DLS_WORK_REDUCTION, name, (squared ? 2.0 : 1.0) * n,
                    (double)n * sizeof(real));
}

static void cost_of_finish(unsigned blocks)
{
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "add partial sums", blocks, 8.0 * blocks);
}

template <typename real, bool squared, typename result>
static dls_status reduce_on_device(dls_ctx *ctx, const char *name, result *out,
                                   const real *x, size_t n)
{
    int slot = (int)(__sync_fetch_and_add(&turn, 1u) % SLOTS);
    unsigned blocks = blocks_for(n);
    cost_of_partial_sums<real>(name, squared, n);
    partial_sum_kernel<real, squared><<<blocks, 256, 0, ctx->stream>>>(x, n, slot);
    DLS_TRY(dls_launched());
    cost_of_finish(blocks);
    finish_sum_kernel<result, squared>
        <<<1, 256, 0, ctx->stream>>>(out, slot, (int)blocks);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status sum(dls_ctx *ctx, acc *out, const real *x, size_t n)
{
    cost_of_partial_sums<real>("sum", false, n);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_finish(blocks_for(n));
    DLS_RUN_ON_HOST(ctx, dls_sum, out, x, n);
    return reduce_on_device<real, false>(ctx, "sum", out, x, n);
}

template <typename real>
static dls_status square_sum(dls_ctx *ctx, double *out, const real *x, size_t n)
{
    cost_of_partial_sums<real>("square sum", true, n);
    DLS_CHARGE_ON_HOST(ctx);
    cost_of_finish(blocks_for(n));
    DLS_RUN_ON_HOST(ctx, dls_square_sum, out, x, n);
    return reduce_on_device<real, true>(ctx, "square sum", out, x, n);
}

template <typename real>
static dls_status clip_coefficient(dls_ctx *ctx, double *coef, double *norm,
                                   const double *square_sum, double max_norm)
{
    dls_gpu_cost("clip coefficient", 2, 24);
    DLS_RUN_ON_HOST(ctx, dls_clip_coefficient, coef, norm, square_sum, max_norm);
    clip_coefficient_kernel<<<1, 1, 0, ctx->stream>>>(coef, norm, square_sum, max_norm);
    return dls_launched();
}

/* expose the reductions */
extern "C" dls_status dls_sum(dls_ctx *ctx, void *out, const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, sum(ctx, (acc *)out, (const real *)x, n));
}

extern "C" dls_status dls_square_sum(dls_ctx *ctx, double *out, const void *x, size_t n)
{
    return DLS_BY_TYPE(ctx, square_sum(ctx, out, (const real *)x, n));
}

extern "C" dls_status dls_clip_coefficient(dls_ctx *ctx, double *coef, double *norm,
                                           const double *square_sum, double max_norm)
{
    return DLS_BY_TYPE(ctx,
                       clip_coefficient<real>(ctx, coef, norm, square_sum, max_norm));
}

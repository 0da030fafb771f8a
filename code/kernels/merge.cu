/* code/kernels/merge.cu: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Merges on the device, a block of threads per row. */
#include "kernels/merge.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/merge_host.h"
#include "kernels/host_pair.h"

/* weigh a block on the device */
/* The share of a block in the mean. */
template <typename acc> __device__ inline acc weight_of(acc total, acc lse)
{
    if (lse == -INFINITY || total == -INFINITY)
        return lse == -INFINITY ? acc(0) : acc(1);
    acc small = exp(-fabs(lse - total));
    return (lse > total ? acc(1) : small) / (1 + small);
}

template <typename acc> __device__ inline acc join_totals(acc total, acc lse)
{
    if (lse == -INFINITY || total == -INFINITY)
        return lse == -INFINITY ? total : lse;
    return (lse > total ? lse : total) + log1p(exp(-fabs(lse - total)));
}

/* merge on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void merge_kernel(dls_merge_rows rows, int H, int D, acc *sum, acc *total,
                             const real *block, const acc *lse, int begin)
{
    int b = blockIdx.x / rows.most, i = blockIdx.x % rows.most;
    ptrdiff_t row = dls_merge_row(&rows, b, i);
    if (row < 0)
        return;
    for (int c = threadIdx.x; c < H * D; c += blockDim.x) {
        /* move a number towards the block */
        size_t at = row * H * D + c, h = c / D;
        acc x = acc(block[at]), old = begin ? acc(0) : sum[at];
        acc w = begin || !lse ? acc(1)
                : weight_of(total[row * H + h], lse[((size_t)b * H + h) * rows.most + i]);
        sum[at] = lse ? old + w * (x - old) : old + x;
    }
    __syncthreads();  // every weight has been found from the old totals
    for (int h = threadIdx.x; lse && h < H; h += blockDim.x) {
        acc now = lse[((size_t)b * H + h) * rows.most + i];
        total[row * H + h] = begin ? now : join_totals(total[row * H + h], now);
    }
}

/* select totals on the device */
template <typename acc>
__global__ void totals_kernel(dls_merge_rows rows, int H, acc *lse, const acc *total)
{
    int b = blockIdx.x / rows.most, i = blockIdx.x % rows.most;
    ptrdiff_t row = dls_merge_row(&rows, b, i);
    for (int h = threadIdx.x; h < H; h += blockDim.x)
        lse[((size_t)b * H + h) * rows.most + i] =
            row < 0 ? -INFINITY : total[row * H + h];
}

/* add rows on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void add_rows_kernel(dls_merge_rows rows, int C, acc *sum, size_t sum_row,
                                const real *x, size_t x_row, int begin)
{
    int b = blockIdx.x / rows.most, i = blockIdx.x % rows.most;
    ptrdiff_t row = dls_merge_row(&rows, b, i);
    for (int c = threadIdx.x; row >= 0 && c < C; c += blockDim.x)
        sum[row * sum_row + c] =
            (begin ? acc(0) : sum[row * sum_row + c]) + acc(x[row * x_row + c]);
}

template <typename real, typename acc = dls_acc<real>>
__global__ void store_rows_kernel(int C, real *out, size_t out_row, const acc *sum,
                                  size_t sum_row)
{
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        out[blockIdx.x * out_row + c] = real(sum[blockIdx.x * sum_row + c]);
}

/* launch the merges */
template <typename real, typename acc = dls_acc<real>>
static dls_status outputs(dls_ctx *ctx, const dls_merge_rows &rows, int H, int D,
                          acc *sum, acc *total, const real *block, const acc *lse,
                          int begin)
{
    double n = rows.count * H * D;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "merge", 3 * n,
                    n * (sizeof(real) + (begin ? 1 : 2) * sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_merge_outputs, rows, H, D, sum, total, block, lse, begin);
    merge_kernel<real><<<rows.B * rows.most, 128, 0, ctx->stream>>>(
        rows, H, D, sum, total, block, lse, begin);
    return dls_launched();
}

extern "C" dls_status dls_merge_outputs(dls_ctx *ctx, const dls_merge_rows *rows, int H,
                                        int D, void *sum, void *total, const void *block,
                                        const void *lse, int begin)
{
    if (rows->B * rows->most == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, outputs(ctx, *rows, H, D, (acc *)sum, (acc *)total,
                                    (const real *)block, (const acc *)lse, begin));
}

template <typename real, typename acc = dls_acc<real>>
static dls_status totals(dls_ctx *ctx, const dls_merge_rows &rows, int H, acc *lse,
                         const acc *total)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "select totals", 0,
                    2 * rows.count * H * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_merge_totals, rows, H, lse, total);
    totals_kernel<<<rows.B * rows.most, 32, 0, ctx->stream>>>(rows, H, lse, total);
    return dls_launched();
}

extern "C" dls_status dls_merge_totals(dls_ctx *ctx, const dls_merge_rows *rows, int H,
                                       void *lse, const void *total)
{
    if (rows->B * rows->most == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, totals<real>(ctx, *rows, H, (acc *)lse, (const acc *)total));
}

template <typename real, typename acc = dls_acc<real>>
static dls_status add_rows(dls_ctx *ctx, const dls_merge_rows &rows, int C, acc *sum,
                           size_t sum_row, const real *x, size_t x_row, int begin)
{
    double n = rows.count * C;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "add rows", n,
                    n * (sizeof(real) + (begin ? 1 : 2) * sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_merge_add, rows, C, sum, sum_row, x, x_row, begin);
    add_rows_kernel<real><<<rows.B * rows.most, 128, 0, ctx->stream>>>(
        rows, C, sum, sum_row, x, x_row, begin);
    return dls_launched();
}

extern "C" dls_status dls_merge_add(dls_ctx *ctx, const dls_merge_rows *rows, int C,
                                    void *sum, size_t sum_row, const void *x,
                                    size_t x_row, int begin)
{
    if (rows->B * rows->most == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, add_rows(ctx, *rows, C, (acc *)sum, sum_row, (const real *)x,
                                     x_row, begin));
}

template <typename real, typename acc = dls_acc<real>>
static dls_status store_rows(dls_ctx *ctx, int N, int C, real *out, size_t out_row,
                             const acc *sum, size_t sum_row)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "store rows", 0,
                    (double)N * C * (sizeof(real) + sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_merge_store, N, C, out, out_row, sum, sum_row);
    store_rows_kernel<real>
        <<<N, 128, 0, ctx->stream>>>(C, out, out_row, sum, sum_row);
    return dls_launched();
}

extern "C" dls_status dls_merge_store(dls_ctx *ctx, int N, int C, void *out,
                                      size_t out_row, const void *sum, size_t sum_row)
{
    if (N == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, store_rows(ctx, N, C, (real *)out, out_row, (const acc *)sum,
                                       sum_row));
}

/* code/kernels/node_rows.cu: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Selecting and adding rows on the device: a block per range; a block per row. */
#include "kernels/node_rows.h"

#include "kernels/launch.cuh"
#include "kernels/select_row.h"

#define DLS_HOST_HEADER "kernels/node_rows_host.h"
#include "kernels/host_pair.h"

/* scan a block */
enum { SELECTORS = 256 };

/* How many threads before this one say yes; *all: how many there are in the block. */
__device__ inline int count_before(int yes, int *totals, int *all)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, before = 0;
    unsigned bits = __ballot_sync(0xffffffffu, yes);
    if (lane == 0)
        totals[warp] = __popc(bits);
    __syncthreads();
    *all = 0;
    for (int w = 0; w < SELECTORS / 32; w++) {
        before += w < warp ? totals[w] : 0;
        *all += totals[w];
    }
    __syncthreads();  // the totals are written again
    return before + __popc(bits & ((1u << lane) - 1));
}

/* select rows on the device */
__global__ void select_rows_kernel(dls_select s, const int *index, const int *begin,
                                   int *list, int *place, int *entry)
{
    __shared__ int totals[SELECTORS / 32];
    int r = blockIdx.x, at = begin[r];
    for (int base = 0; base < s.rows; base += SELECTORS) {
        int row = base + threadIdx.x, earlier = 0, choice = -1, all;
        if (row < s.rows)
            choice = dls_select_row(&s, index + (size_t)row * s.k, r, &earlier);
        int to = at + count_before(choice >= 0, totals, &all);
        if (choice >= 0) {
            list[to] = row;
            place[(size_t)row * s.width + earlier] = to;
            if (entry)
                entry[to] = row * s.k + choice;
        }
        at += all;
    }
}

/* add the copies on the device */
template <typename real>
__global__ void add_rows_kernel(real *y, const real *x, const int *place,
                                const dls_acc<real> *weight, int width, int C)
{
    const int *at = place + (size_t)blockIdx.x * width;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        dls_acc<real> sum = 0;
        for (int j = 0; j < width; j++)
            if (at[j] >= 0)
                sum += (weight ? weight[at[j]] : dls_acc<real>(1)) *
                       dls_acc<real>(x[(size_t)at[j] * C + c]);
        y[(size_t)blockIdx.x * C + c] = real(sum);
    }
}

/* launch the selection */
extern "C" dls_status dls_node_select(dls_ctx *ctx, const dls_select *s, const int *index,
                                      const int *begin, int *list, int *place, int *entry)
{
    size_t cells = (size_t)s->rows * s->width;
    if (s->rows == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemsetAsync(place, 0xff, cells * sizeof *place, ctx->stream));  // -1
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "select rows", 0,
                    4.0 * s->ranges * s->rows * s->k);
#ifndef __CUDACC__
    if (dls_gpu_use_host_kernels()) {
        DLS_CUDA(dls_gpu_host_launch(ctx->stream, dls_select_rows_host, *s, index, begin,
                                     list, place, entry));
        return DLS_OK;
    }
#endif
    select_rows_kernel<<<(unsigned)s->ranges, SELECTORS, 0, ctx->stream>>>(
        *s, index, begin, list, place, entry);
    return dls_launched();
}

/* launch the sum */
template <typename real>
static dls_status add_rows(dls_ctx *ctx, real *y, const real *x, const int *place,
                           const dls_acc<real> *weight, int n, int width, int C)
{
    double moved = (double)n * C * (width + 1);
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "add rows", moved, moved * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_node_sum, y, x, place, weight, n, width, C);
    add_rows_kernel<<<(unsigned)n, 256, 0, ctx->stream>>>(y, x, place, weight, width, C);
    return dls_launched();
}

extern "C" dls_status dls_node_sum(dls_ctx *ctx, void *y, const void *x, const int *place,
                                   const void *weight, int n, int width, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, add_rows(ctx, (real *)y, (const real *)x, place,
                                     (const acc *)weight, n, width, C));
}

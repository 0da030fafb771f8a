/* code/kernels/node_rows.cu: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Selecting rows on the device: a block per range. */
#include "kernels/node_rows.h"

#include "kernels/launch.cuh"
#include "kernels/select_row.h"

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
                                   int *list, int *place)
{
    __shared__ int totals[SELECTORS / 32];
    int r = blockIdx.x, at = begin[r];
    for (int base = 0; base < s.rows; base += SELECTORS) {
        int row = base + threadIdx.x, earlier = 0, choice = -1, all;
        if (row < s.rows)
            choice = dls_select_row(&s, index + (size_t)row * s.k, r, &earlier);
        int to = at + count_before(choice >= 0, totals, &all);
        if (choice >= 0)
            dls_select_note(&s, row, choice, earlier, to, list, place);
        at += all;
    }
}

/* launch the selection */
extern "C" dls_status dls_node_select(dls_ctx *ctx, const dls_select *s, const int *index,
                                      const int *begin, int *list, int *place)
{
    size_t cells = (size_t)s->rows * (list ? s->width : s->k);
    if (s->rows == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemsetAsync(place, 0xff, cells * sizeof *place, ctx->stream));  // -1
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "select rows", 0,
                    4.0 * s->ranges * s->rows * s->k);
#ifndef __CUDACC__
    if (dls_gpu_use_host_kernels()) {
        DLS_CUDA(dls_gpu_host_launch(ctx->stream, dls_select_rows_host, *s, index, begin,
                                     list, place));
        return DLS_OK;
    }
#endif
    select_rows_kernel<<<(unsigned)s->ranges, SELECTORS, 0, ctx->stream>>>(
        *s, index, begin, list, place);
    return dls_launched();
}

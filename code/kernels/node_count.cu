/* code/kernels/node_count.cu: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Counting rows for ranges of experts on the device: a block per range. */
#include "kernels/launch.cuh"
#include "kernels/select_row.h"

enum { COUNTERS = 256 };

/* count on the device */
__global__ void tally_kernel(dls_select s, const int *index, int *copies)
{
    __shared__ int all;
    int mine = 0, earlier;
    if (threadIdx.x == 0)
        all = 0;
    __syncthreads();
    for (int row = threadIdx.x; row < s.rows; row += COUNTERS)
        mine += dls_select_row(&s, index + (size_t)row * s.k, blockIdx.x, &earlier) >= 0;
    atomicAdd(&all, mine);
    __syncthreads();
    if (threadIdx.x == 0)
        copies[blockIdx.x] = all;
}

__global__ void keep_kernel(int *kept, const int *index, const int *place, size_t n)
{
    size_t i = (size_t)blockIdx.x * COUNTERS + threadIdx.x;
    if (i < n)
        kept[i] = place[i] >= 0 ? index[i] : -1;
}

/* launch the counts */
extern "C" dls_status dls_node_tally(dls_ctx *ctx, const dls_select *s, const int *index,
                                     int *copies)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "count rows", 0,
                    4.0 * s->ranges * s->rows * s->k);
#ifndef __CUDACC__
    if (dls_gpu_use_host_kernels()) {
        DLS_CUDA(dls_gpu_host_launch(ctx->stream, dls_tally_rows_host, *s, index,
                                     copies));
        return DLS_OK;
    }
#endif
    tally_kernel<<<(unsigned)s->ranges, COUNTERS, 0, ctx->stream>>>(*s, index, copies);
    return dls_launched();
}

extern "C" dls_status dls_node_keep(dls_ctx *ctx, int *kept, const int *index,
                                    const int *place, int rows, int k)
{
    size_t n = (size_t)rows * k;
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "keep choices", 0, 12.0 * n);
#ifndef __CUDACC__
    if (dls_gpu_use_host_kernels()) {
        DLS_CUDA(dls_gpu_host_launch(ctx->stream, dls_keep_choices_host, kept, index,
                                     place, n));
        return DLS_OK;
    }
#endif
    keep_kernel<<<dls_blocks(n, COUNTERS), COUNTERS, 0, ctx->stream>>>(kept, index, place,
                                                                       n);
    return dls_launched();
}

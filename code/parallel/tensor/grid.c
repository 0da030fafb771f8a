/* code/parallel/tensor/grid.c: from chapters/06-tensor-2d.md. Edit the chapter, or edit here and run "make untangle". */
/* Places and groups of a grid. */
#include "parallel/tensor/grid.h"

#include "vgpu/gpu.h"

/* form the groups of a grid */
static dls_status form_groups(dls_grid *g, dls_comm *comm)
{
    int q = g->q, here = g->row * q + g->column;
    if (q > 1) {
        DLS_TRY(dls_comm_split(comm, g->layer * q + g->row, g->column, &g->in_row));
        DLS_TRY(dls_comm_split(comm, g->layer * q + g->column, g->row, &g->in_column));
    }
    return g->d > 1 ? dls_comm_split(comm, here, g->layer, &g->in_depth) : DLS_OK;
}

/* open a grid */
dls_status dls_grid_open(dls_grid *g, dls_comm *comm, int q, int d)
{
    int rank = dls_comm_rank(comm), size = dls_comm_size(comm);
    *g = (dls_grid){.q = q, .d = d};
    if (q < 1 || d < 1 || (int64_t)q * q * d != size)
        return DLS_FAIL(DLS_ERR_INPUT, "grid: expected q q d = %d ranks, got %d x %d x "
                        "%d", size, q, q, d);
    g->column = rank % q;
    g->row = rank / q % q;
    g->layer = rank / (q * q);
    DLS_TRY(form_groups(g, comm));
    DLS_CUDA(cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(g->stream, "grid"));
    for (int i = 0; i < 2; i++) {
        DLS_CUDA(cudaEventCreateWithFlags(&g->ready[i], cudaEventDisableTiming));
        DLS_CUDA(cudaEventCreateWithFlags(&g->used[i], cudaEventDisableTiming));
    }
    return DLS_OK;
}

void dls_grid_close(dls_grid *g)
{
    for (int i = 0; i < 2; i++) {
        if (g->ready[i])
            cudaEventDestroy(g->ready[i]);
        if (g->used[i])
            cudaEventDestroy(g->used[i]);
    }
    if (g->stream)
        cudaStreamDestroy(g->stream);
    dls_comm_destroy(g->in_row);
    dls_comm_destroy(g->in_column);
    dls_comm_destroy(g->in_depth);
    *g = (dls_grid){0};
}

dls_status dls_grid_sum_depth(const dls_grid *g, void *buf, size_t n, int dtype,
                              cudaStream_t stream)
{
    return g->in_depth && n
        ? dls_comm_all_reduce(g->in_depth, buf, n, dtype, DLS_SUM, stream) : DLS_OK;
}

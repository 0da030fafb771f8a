/* code/layers/tensor_ends.c: from chapters/06-tensor-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Columns of all ranks put side by side, and taken apart again. */
#include "layers/tensor_ends.h"

#include <cuda_runtime.h>

#include "layers/internal.h"

/* gather columns */
/* Copies the columns of a rank's band: into y (N, n) from a block (N, band) of its own,
 * or out of x (N, n) into such a block. */
static dls_status copy_band(const dls_pass *p, int n, int rank, int out, void *to,
                            const void *from)
{
    dls_sharding s = p->axes->sharding;
    s.tensor_rank = rank;
    dls_piece band = dls_tensor_units(&s, n);
    size_t size = dls_dtype_size(p->ctx->dtype), N = (size_t)p->B * p->T;
    size_t wide = (size_t)n * size, narrow = band.count * size, at = band.begin * size;
    DLS_CUDA(cudaMemcpy2DAsync((char *)to + (out ? 0 : at), out ? narrow : wide,
                               (const char *)from + (out ? at : 0), out ? wide : narrow,
                               narrow, N, cudaMemcpyDeviceToDevice, p->ctx->stream));
    return DLS_OK;
}

/* Elements of a block: as wide as the widest band. */
static size_t block_of(int t, size_t N, int n)
{
    return N * (size_t)((n + t - 1) / t);
}

static dls_status gather(const dls_pass *p, int n, void *y, const void *x)
{
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    int t = dls_comm_size(comm), rank = dls_comm_rank(comm);
    size_t N = (size_t)p->B * p->T, block = block_of(t, N, n);
    size_t size = dls_dtype_size(p->ctx->dtype);
    size_t mine = dls_tensor_units(&p->axes->sharding, n).count * N * size;
    char *blocks = p->temporary, *own = blocks + (size_t)rank * block * size;
    DLS_CUDA(cudaMemcpyAsync(own, x, mine, cudaMemcpyDeviceToDevice, p->ctx->stream));
    DLS_TRY(dls_comm_all_gather(comm, own, blocks, block, p->ctx->dtype,
                                p->ctx->stream));
    for (int r = 0; r < t; r++)
        DLS_TRY(copy_band(p, n, r, 0, y, blocks + (size_t)r * block * size));
    return DLS_OK;
}

static dls_status split(const dls_pass *p, int n, void *y, const void *x)
{
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    return copy_band(p, n, dls_comm_rank(comm), 1, y, x);
}

/* make the ends */
static dls_status gather_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    return y ? gather(p, l->out, y, x) : DLS_OK;
}

static dls_status gather_back(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                              const void *x, void *y)
{
    (void)x, (void)y;
    return split(p, l->out, dx, dy);
}

static dls_status split_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    return y ? split(p, l->in, y, x) : DLS_OK;
}

static dls_status split_back(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                             const void *x, void *y)
{
    (void)x, (void)y;
    return gather(p, l->in, dx, dy);
}

static void ends_plan(dls_layer *l, dls_plan *plan)
{
    int n = l->in > l->out ? l->in : l->out;
    size_t N = (size_t)plan->max_B * plan->max_T;
    dls_plan_temporary(plan, (size_t)l->ranks * block_of(l->ranks, N, n)
                             * dls_dtype_size(plan->dtype));
}

static const dls_layer_kind gather_kind = {
    .name = "gather columns", .plan = ends_plan, .forward = gather_forward,
    .backward_input = gather_back, .backward_weight = dls_layer_no_weights};
static const dls_layer_kind split_kind = {
    .name = "split columns", .plan = ends_plan, .forward = split_forward,
    .backward_input = split_back, .backward_weight = dls_layer_no_weights};

static dls_layer *make_end(dls_build *b, const dls_layer_kind *kind, int in, int out)
{
    dls_layer *l = dls_layer_make(b, kind, in, out);
    if (!l)
        return NULL;
    l->cut = 1;
    l->ignores_x = 1;
    l->ranks = b->sharding.tensor > 1 ? b->sharding.tensor : 1;
    return l;
}

dls_layer *dls_gather_columns(dls_build *b, int n)
{
    return make_end(b, &gather_kind, (int)dls_tensor_units(&b->sharding, n).count, n);
}

dls_layer *dls_split_columns(dls_build *b, int n)
{
    return make_end(b, &split_kind, n, (int)dls_tensor_units(&b->sharding, n).count);
}

/* code/parallel/data/zero_lent.c: from chapters/04-data-parallelism-zero-lent.md. Edit the chapter, or edit here and run "make untangle". */
/* All units of a set of parameters at once, in memory of somebody else's. */
#include "parallel/data/zero_lent.h"

#include "kernels/elementwise.h"
#include "parallel/data/zero_private.h"
#include "parallel/tensor/gradients.h"
#include "vgpu/gpu.h"

/* say what is cut */
int dls_zero_cuts(const dls_zero *z)
{
    return z->o.stage;
}

size_t dls_zero_whole(const dls_zero *z)
{
    return dls_shard_whole(z->units, z->nunits);
}

static char *unit_in(const dls_zero *z, const dls_loan *loan, int u, dls_dtype dtype)
{
    return (char *)loan->memory + z->units[u].whole * dls_dtype_size(dtype);
}

/* gather into a loan */
dls_status dls_zero_gather(dls_zero *z, dls_loan *loan)
{
    DLS_CUDA(cudaStreamWaitEvent(z->stream, loan->free, 0));
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    for (int u = 0; u < z->nunits; u++) {
        char *whole = unit_in(z, loan, u, z->ctx->dtype);
        DLS_TRY(dls_comm_all_gather(zero_unit_group(z, u), zero_value_slice(z, u), whole,
                                    z->units[u].slice, z->ctx->dtype, z->stream));
        zero_point_values(z, u, whole);
    }
    DLS_TRY(dls_spans_end(&z->sent, z->stream));
    DLS_CUDA(cudaEventRecord(z->states[0].arrived, z->stream));
    z->states[0].waited = 0;
    return DLS_OK;
}

dls_status dls_zero_arrive(dls_zero *z)
{
    if (!z->states[0].waited)
        DLS_TRY(zero_wait(z, z->states[0].arrived));
    z->states[0].waited = 1;
    return DLS_OK;
}

/* leave a loan */
dls_status dls_zero_leave(dls_zero *z, dls_loan *loan)
{
    DLS_TRY(dls_zero_arrive(z));
    DLS_CUDA(cudaEventRecord(loan->free, z->ctx->stream));
    for (int i = 0; i < z->params->n; i++)
        z->params->items[i].value = NULL;
    return DLS_OK;
}

/* open gradients in a loan */
dls_status dls_zero_open(dls_zero *z, dls_loan *loan)
{
    size_t bytes = dls_zero_whole(z) * dls_dtype_size(z->wide);
    DLS_TRY(zero_wait(z, loan->free));
    DLS_CUDA(cudaMemsetAsync(loan->memory, 0, bytes, z->ctx->stream));
    for (int u = 0; u < z->nunits; u++)
        zero_point_grads(z, u, unit_in(z, loan, u, z->wide));
    return DLS_OK;
}

/* scatter a loan */
dls_status dls_zero_scatter(dls_zero *z, dls_loan *loan)
{
    dls_ctx c = *z->ctx;
    c.stream = z->stream;
    c.dtype = z->wide;
    DLS_TRY(zero_let(z, z->stream, z->ctx->stream));
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    for (int u = 0; u < z->nunits; u++) {
        size_t slice = z->units[u].slice;
        char *whole = unit_in(z, loan, u, z->wide), *shard = zero_grad_slice(z, u);
        char *mine = whole
            + (size_t)zero_unit_rank(z, u) * slice * dls_dtype_size(z->wide);
        DLS_TRY(dls_tensor_finish(z->o.axes, z->params->items + z->units[u].param,
                                  z->units[u].params, z->wide, z->stream));
        DLS_TRY(dls_comm_reduce_scatter(zero_unit_group(z, u), whole, mine, slice,
                                        z->wide, DLS_SUM, z->stream));
        DLS_TRY(dls_add(&c, shard, shard, mine, slice));
    }
    DLS_TRY(dls_spans_end(&z->sent, z->stream));
    DLS_CUDA(cudaEventRecord(loan->free, z->stream));
    for (int i = 0; i < z->params->n; i++)
        z->params->items[i].grad = NULL;
    return DLS_OK;
}

/* code/parallel/data/ddp_hard.c: from chapters/04-data-parallelism-ddp-hard.md. Edit the chapter, or edit here and run "make untangle". */
/* What most steps do without: accumulation, unused parameters, ranks without data. */
#include <stdlib.h>
#include <string.h>

#include "kernels/elementwise.h"
#include "parallel/data/ddp_private.h"

/* settle hard cases */
void dls_ddp_no_sync(dls_ddp *d, int on)
{
    d->held = on;
}

/* Completes the buckets of a backward pass that is over. */
dls_status ddp_report_the_rest(dls_ddp *d)
{
    for (int i = d->nparams - 1; i >= 0; i--)
        if (!d->reported[i] && !d->params[i].frozen)
            DLS_TRY(ddp_report(d, i, 0));
    return DLS_OK;
}

int dls_ddp_used(const dls_ddp *d, int param_index)
{
    return d->finished && d->arrived_used[param_index];
}

void dls_ddp_examples(dls_ddp *d, int64_t count)
{
    d->examples = count;
}

int64_t dls_ddp_total(const dls_ddp *d)
{
    return d->total;
}

static dls_status gather_counts(dls_ddp *d)
{
    size_t bytes = sizeof d->examples + (size_t)d->nparams;
    int world = dls_comm_size(d->comm);
    char mine[bytes], *all = malloc((size_t)world * bytes);
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the counts of a step");
    memcpy(mine, &d->examples, sizeof d->examples);
    memcpy(mine + sizeof d->examples, d->used, (size_t)d->nparams);
    dls_status s = dls_comm_all_gather_host(d->comm, mine, bytes, all);
    memset(d->arrived_used, 0, (size_t)d->nparams);
    d->total = 0;
    for (int r = 0; s == DLS_OK && r < world; r++) {
        int64_t examples;
        memcpy(&examples, all + (size_t)r * bytes, sizeof examples);
        d->total += examples;
        for (int i = 0; i < d->nparams; i++)
            d->arrived_used[i] |= all[(size_t)r * bytes + sizeof examples + (size_t)i];
    }
    free(all);
    return s;
}

static dls_status divide_by_total(dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    dls_ctx typed = *d->ctx;
    typed.dtype = d->dtype;
    if (d->total == 0)
        return DLS_OK;
    return dls_scale(&typed, d->grads, 1.0 / (double)d->total,
                     last->offset + last->count);
}

/* follow the order of rank 0 */
static dls_status follow_rank_0(dls_ddp *d)
{
    size_t bytes = (size_t)d->nbuckets * sizeof *d->order;
    int *all = malloc((size_t)dls_comm_size(d->comm) * bytes);
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the order of buckets");
    dls_status s = dls_comm_all_gather_host(d->comm, d->arrived, bytes, all);
    if (s == DLS_OK)
        memcpy(d->order, all, bytes);
    free(all);
    return s == DLS_OK ? ddp_agree(d) : s;
}

dls_status ddp_settle(dls_ddp *d)
{
    if (d->options.find_unused || d->options.count_examples)
        DLS_TRY(gather_counts(d));
    if (d->options.count_examples)
        DLS_TRY(divide_by_total(d));
    memset(d->used, 0, (size_t)d->nparams);
    d->examples = 0;
    return d->options.reorder && !d->finished ? follow_rank_0(d) : DLS_OK;
}

static dls_status join_step(dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    size_t bytes = (last->offset + last->count) * dls_dtype_size(d->dtype);
    DLS_TRY(dls_ddp_begin(d));
    DLS_CUDA(cudaMemsetAsync(d->grads, 0, bytes, d->ctx->stream));
    DLS_TRY(ddp_report_the_rest(d));
    return dls_ddp_finish(d);
}

dls_status dls_ddp_join(dls_ddp *d, int *more)
{
    if (!d->options.count_examples)
        return DLS_FAIL(DLS_ERR_STATE, "joining needs count_examples: nobody would know "
                        "when the last rank is done");
    DLS_TRY(join_step(d));
    *more = d->total > 0;
    return DLS_OK;
}

dls_status dls_ddp_add_buffer(dls_ddp *d, void *buf, size_t count, int dtype)
{
    int most = (int)(sizeof d->shared / sizeof *d->shared);
    if (d->nshared == most)
        return DLS_FAIL(DLS_ERR_STATE, "more than %d buffers", most);
    d->shared[d->nshared].data = buf;
    d->shared[d->nshared].count = count;
    d->shared[d->nshared++].dtype = dtype;
    return DLS_OK;
}

dls_status dls_ddp_begin(dls_ddp *d)
{
    for (int i = 0; i < d->nshared && !d->held; i++)
        DLS_TRY(dls_comm_broadcast(d->comm, d->shared[i].data, d->shared[i].count,
                                   d->shared[i].dtype, 0, d->ctx->stream));
    return DLS_OK;
}

dls_status dls_ddp_touch(dls_ddp *d, const int *rows, size_t n)
{
    return d->rows ? dls_rows_touch(d->rows, rows, n) : DLS_OK;
}

dls_status dls_ddp_grad_partial(void *ddp, int param_index)
{
    dls_ddp *d = ddp;
    if (!d->rows || d->held || param_index != d->options.rows_of - 1)
        return DLS_OK;
    return dls_rows_partial(d->rows);
}

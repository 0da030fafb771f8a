/* code/parallel/pipeline/scratch.c: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The largest call of each group; a piece of scratch memory serves all of a stream's. */
#include "parallel/pipeline/scratch.h"

#include "comm/scratch.h"
#include "parallel/expert/copies.h"

/* keep the largest call */
static dls_status keep(size_t *most, dls_comm *comm, size_t count, int dtype, int exact)
{
    size_t bytes = 0;
    if (comm && count > 0)
        DLS_TRY((exact ? dls_comm_scratch_bytes : dls_comm_scratch_within)(
            comm, "all_reduce", count, dtype, &bytes));
    *most = bytes > *most ? bytes : *most;
    return DLS_OK;
}

dls_status dls_pipeline_scratch_begin(const dls_pipeline_groups *g,
                                      dls_pipeline_scratch *out)
{
    *out = (dls_pipeline_scratch){0};
    return keep(&out->pipe, g->pipe, 1, DLS_F64, 1);
}

size_t dls_pipeline_scratch_sum(const dls_pipeline_scratch *s)
{
    return s->data + s->experts + s->mirror + s->tensor + s->kv + s->tied + s->pipe
        + s->tally;
}

/* weigh the calls of a stage */
dls_status dls_pipeline_scratch_add(const dls_pipeline_groups *g, const dls_param *params,
                                    int n, int dtype, int zero,
                                    dls_pipeline_scratch *out)
{
    const dls_param *last = &params[n - 1];
    size_t elements = last->offset + last->count;
    DLS_TRY(keep(&out->mirror, g->mirror, elements, dtype, !zero));
    DLS_TRY(keep(&out->tally, g->mirror, g->tally, dtype, 0));
    DLS_TRY(keep(&out->tied, g->tied, g->table, dtype, !zero));
    if (zero)
        return DLS_OK;
    DLS_TRY(dls_copies_scratch(g->axes, g->data, params, n, dtype, &out->data,
                               &out->experts));
    return dls_tensor_finish_scratch(g->axes, params, n, dtype, &out->tensor, &out->kv);
}

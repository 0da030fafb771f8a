/* code/train/layout_experts.c: from chapters/08-expert-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* Which layouts a model with experts cannot have. */
#include "train/place.h"
#include "train/layout.h"

/* refuse what needs whole sequences */
/* Whoever comes first finds a place: that is decided where the sequence is. */
static dls_status check_sequences(const dls_train_config *c, int cp)
{
    const dls_moe *m = &c->model.moe;
    if (cp > 1 && m->capacity > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "model.moe.capacity: expected 0 with parallel.cp "
                        "%d, as a sequence's tokens are on several ranks, got %g", cp,
                        m->capacity);
    return DLS_OK;
}

/* refuse what knows one group of copies */
static dls_status check_copies(const dls_train_config *c)
{
    const dls_hook_options *h = &c->ddp.hook;
    if (!c->sharded && (h->choice != DLS_HOOK_NONE || h->sums_in))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected none, as the copies of an expert "
                        "are on other ranks than those of the rest",
                        h->sums_in ? "ddp.reduce_dtype" : "ddp.hook");
    if (c->sharded && (c->hybrid || c->zero.shard_size))
        return DLS_FAIL(DLS_ERR_INPUT, "data_parallel: expected zero1 to zero3 over all "
                        "replicas, as the copies of an expert are on other ranks than "
                        "those of the rest");
    return DLS_OK;
}

/* check the layout of experts */
dls_status dls_train_check_experts(const dls_train_config *c, const dls_mesh *mesh)
{
    if (c->model.moe.experts == 0)
        return DLS_OK;
    DLS_TRY(check_sequences(c, mesh->size[DLS_AXIS_CP]));
    return dls_train_experts_apart(c, mesh, 0) ? check_copies(c) : DLS_OK;
}

/* code/parallel/pipeline/update_sharded.c: from chapters/05-pipeline-runtime-sharded.md. Edit the chapter, or edit here and run "make untangle". */
/* A stage's optimizer in slices: what ZeRO is told, and when. */
#include "parallel/pipeline/update.h"

/* count the units of a stage */
void dls_stage_count_units(dls_params *set, int from)
{
    for (int i = 0; i < set->n; i++)
        set->items[i].unit -= from;
}

/* cut the gradients of a stage */
dls_status dls_stage_shard_values(dls_stage_update *u)
{
    const dls_unit_hook *hook = dls_zero_units(u->zero);
    for (int i = 0; i < dls_zero_slices(u->zero); i++)
        DLS_TRY(hook->before(hook->self, i, 0));
    return DLS_OK;
}

dls_status dls_stage_shard_begin(dls_stage_update *u)
{
    DLS_TRY(dls_zero_begin(u->zero));
    DLS_TRY(dls_zero_begin_pass(u->zero, 1));
    return dls_stage_shard_values(u);
}

dls_status dls_stage_shard_reduce(dls_stage_update *u)
{
    const dls_grad_hook *hook = dls_zero_hook(u->zero);
    for (int i = u->stage->model->params.n - 1; i >= 0; i--)
        DLS_TRY(hook->fn(hook->self, i));
    return DLS_OK;
}

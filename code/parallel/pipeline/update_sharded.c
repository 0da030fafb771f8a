/* code/parallel/pipeline/update_sharded.c: from chapters/05-pipeline-runtime-sharded.md. Edit the chapter, or edit here and run "make untangle". */
/* A stage's state in slices: what ZeRO is told, and when; and the memory in which stages
 * are whole, one after the other. */
#include "parallel/pipeline/update.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

/* count the units of a stage */
/* 1: the parameter is a tied table of which this part has one of two copies. */
static int is_table(const dls_param *a, const dls_transformer_config *part)
{
    int whole = part->from_unit == 0
        && (part->to_unit == 0 || part->to_unit == part->layers + 2);
    return part->tied_head && !whole && strcmp(a->name, "wte.weight") == 0;
}

void dls_stage_count_units(dls_params *set, const dls_transformer_config *part)
{
    int unit = -1, before = -1, alone = 0;
    for (int i = 0; i < set->n; i++) {
        int here = set->items[i].unit, table = is_table(&set->items[i], part);
        unit += i == 0 || here != before || table || alone;
        set->items[i].unit = unit;
        before = here;
        alone = table;
    }
    dls_shard_part_experts(set->items, set->n, NULL);
}

/* find the table of a stage */
void *dls_stage_table(const dls_stage_update *u, size_t *count)
{
    const dls_param *table = &u->stage->model->params.items[u->table];
    dls_dtype dtype;
    *count = table->count;
    if (!u->zero)
        return table->grad;
    *count = dls_zero_slice_at(u->zero, table->unit).count;
    return (void *)dls_zero_gradient(u->zero, table->unit, &dtype);
}

/* open a pool of loans */
dls_status dls_stage_pool_open(dls_stage_pool *pool, int n, size_t bytes,
                               dls_memory_purpose purpose)
{
    *pool = (dls_stage_pool){.loans = calloc((size_t)n + 1, sizeof *pool->loans)};
    if (!pool->loans)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d loans", n);
    for (; pool->n < n; pool->n++) {
        dls_loan *loan = &pool->loans[pool->n];
        DLS_CUDA(cudaEventCreateWithFlags(&loan->free, cudaEventDisableTiming));
        DLS_TRY(dls_flat_buffer(&loan->memory, bytes, purpose));
    }
    return DLS_OK;
}

void dls_stage_pool_close(dls_stage_pool *pool)
{
    for (int i = 0; i < pool->n; i++) {
        dls_device_free(pool->loans[i].memory);
        cudaEventDestroy(pool->loans[i].free);
    }
    free(pool->loans);
    *pool = (dls_stage_pool){0};
}

/* take and give a loan */
static dls_status take(dls_stage_pool *pool, dls_loan **loan)
{
    for (int i = 0; i < pool->n; i++)
        if (!pool->loans[i].taken) {
            *loan = &pool->loans[i];
            (*loan)->taken = 1;
            return DLS_OK;
        }
    return DLS_FAIL(DLS_ERR_STATE, "a stage is gathered while %d others are, and there "
                    "is room for %d", pool->n, pool->n);
}

static void give(dls_loan **loan)
{
    (*loan)->taken = 0;
    *loan = NULL;
}

/* run a stretch */
dls_status dls_stage_unshard(dls_stage_update *u, dls_stage_pool *values)
{
    if (!u->zero || dls_zero_cuts(u->zero) < 3)
        return DLS_OK;
    DLS_TRY(take(values, &u->values));
    return dls_zero_gather(u->zero, u->values);
}

dls_status dls_stage_use(dls_stage_update *u, dls_stage_pool *grads, int backward)
{
    if (u->values)
        DLS_TRY(dls_zero_arrive(u->zero));
    if (!backward || u->grads || !u->zero || dls_zero_cuts(u->zero) < 2)
        return DLS_OK;
    DLS_TRY(take(grads, &u->grads));
    return dls_zero_open(u->zero, u->grads);
}

static dls_status close_gradients(dls_stage_update *u)
{
    if (!u->grads)
        return DLS_OK;
    DLS_TRY(dls_zero_scatter(u->zero, u->grads));
    give(&u->grads);
    return DLS_OK;
}

dls_status dls_stage_reshard(dls_stage_update *u)
{
    DLS_TRY(close_gradients(u));
    if (!u->values)
        return DLS_OK;
    DLS_TRY(dls_zero_leave(u->zero, u->values));
    give(&u->values);
    return DLS_OK;
}

/* cut the gradients of a stage */
dls_status dls_stage_shard_values(dls_stage_update *u)
{
    const dls_unit_hook *hook = dls_zero_units(u->zero);
    for (int i = 0; dls_zero_cuts(u->zero) < 3 && i < dls_zero_slices(u->zero); i++)
        DLS_TRY(hook->before(hook->self, i, 0));
    return DLS_OK;
}

dls_status dls_stage_shard_begin(dls_stage_update *u)
{
    DLS_TRY(dls_zero_begin(u->zero));
    if (dls_zero_cuts(u->zero) < 2)
        DLS_TRY(dls_zero_begin_pass(u->zero, 1));
    return dls_stage_shard_values(u);
}

dls_status dls_stage_shard_reduce(dls_stage_update *u)
{
    const dls_grad_hook *hook = dls_zero_hook(u->zero);
    if (dls_zero_cuts(u->zero) >= 2)
        return close_gradients(u);
    for (int i = u->stage->model->params.n - 1; i >= 0; i--)
        DLS_TRY(hook->fn(hook->self, i));
    return DLS_OK;
}

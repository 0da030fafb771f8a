/* tests/parallel/mesh_stages.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A case of several stages: a pipeline. */
#include "mesh_rank.h"

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"

/* open the stages of a case */
static dls_status make_schedule(mesh_rank *r)
{
    const mesh_case *c = &r->p->c;
    int gathered = c->zero < 2 ? 0 : c->keep_forward ? 2 * MESH_MOST : c->prefetch + 1;
    dls_schedule_options o = dls_schedule_defaults(
        c->schedule, c->mesh.size[DLS_AXIS_PP], c->microbatches);
    dls_schedule plain;
    o.chunks = c->chunks;
    DLS_TRY(dls_schedule_make(&o, &plain));
    dls_status s = dls_lower(&plain, gathered, &r->schedule);
    dls_schedule_free(&plain);
    return s;
}

static dls_status put_values(mesh_rank *r)
{
    for (int s = 0; s < r->schedule.stages; s++) {
        if (!r->pipeline->stage[s])
            continue;
        void *values = mesh_rank_fill(r, &r->pipeline->stage[s]->model->params);
        DLS_TRY(dls_pipeline_put(r->pipeline, s, values));
        free(values);
    }
    return DLS_OK;
}


dls_status mesh_stages_open(mesh_rank *r)
{
    DLS_TRY(make_schedule(r));
    int first[r->schedule.stages + 1];
    DLS_TRY(dls_partition_by_count(r->place.model.layers, r->schedule.stages, first));
    dls_zero_options zero = {.stage = r->p->c.zero, .prefetch = r->p->c.prefetch,
                             .keep_forward = r->p->c.keep_forward, .axes = r->groups.cut};
    dls_pipeline_options o = {
        .model = &r->place.model, .schedule = &r->schedule, .partition = first,
        .make = mesh_rank_make, .max_B = r->p->c.micro, .T = r->place.T,
        .axes = r->groups.cut, .positions = r->positions, .T_whole = r->p->c.T,
        .adamw = mesh_proof_adamw(r->p), .zero = r->p->c.zero ? &zero : NULL};
    DLS_TRY(dls_pipeline_create(&r->pipeline, &r->ctx, r->groups.pipe, r->groups.data,
                                &o));
    if (r->p->mutant == MUTANT_TABLE_APART)
        r->pipeline->model.tied_head = 0;
    return put_values(r);
}

/* step the stages of a case */
static dls_status clear(dls_transformer *m, dls_comm *mirror)
{
    (void)mirror;
    return dls_balance_clear(&m->balance);
}

static dls_status settle(dls_transformer *m, dls_comm *mirror)
{
    return dls_train_balance_settle(m, mirror);
}

static dls_status for_all_models(mesh_rank *r, dls_status (*fn)(dls_transformer *,
                                                                dls_comm *))
{
    for (int s = 0; s < r->schedule.stages; s++)
        if (r->pipeline->stage[s])
            DLS_TRY(fn(r->pipeline->stage[s]->model, r->pipeline->mirror));
    return DLS_OK;
}

dls_status mesh_stages_step(mesh_rank *r)
{
    int n = r->rows * r->place.T;
    size_t size = dls_dtype_size(r->ctx.dtype);
    dls_pipeline_batch b = {
        .tokens = r->ids, .targets = r->ids + n, .rows = r->rows, .micro = r->p->c.micro,
        .loss_scale = mesh_rank_scale(r), .losses = r->losses, .drops = r->p->c.drops,
        .seed = dls_dropout_seed(7, (uint64_t)r->step), .first_row = (uint64_t)r->row};
    DLS_CUDA(cudaMemsetAsync(r->losses, 0, (size_t)n * size, r->ctx.stream));
    DLS_TRY(for_all_models(r, clear));
    DLS_TRY(dls_pipeline_step(r->pipeline, &b, mesh_proof_rate(r->p), r->step));
    return for_all_models(r, settle);
}

/* show the stages of a case */

dls_status mesh_stages_visit(mesh_rank *r)
{
    for (int s = 0; s < r->schedule.stages; s++) {
        const dls_stage_update *u = &r->pipeline->update[s];
        const dls_params *set = r->pipeline->stage[s]
            ? &r->pipeline->stage[s]->model->params : NULL;
        if (set && u->zero)
            DLS_TRY(mesh_show_slices(r, u->zero, set));
        else if (set)
            DLS_TRY(mesh_compare(r->p, &r->whole, set, r->step, 0, set->elements,
                                 set->grads, set->values));
        if (set)
            DLS_TRY(mesh_compare_loads(r->p, r->step,
                                       r->pipeline->stage[s]->model->config.from_unit,
                                       &r->pipeline->stage[s]->model->balance));
    }
    return mesh_compare_norm(r->p, r->step, dls_pipeline_norm(r->pipeline));
}

void mesh_stages_close(mesh_rank *r)
{
    dls_pipeline_free(r->pipeline);
    dls_schedule_free(&r->schedule);
}

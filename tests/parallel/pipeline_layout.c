/* tests/parallel/pipeline_layout.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Splits the world into replicas of a pipeline, fills the stages by name, steps. */
#include "pipeline_layout.h"

#include "exact_model.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"

/* make the schedule of a setup */
dls_status pipeline_schedule(const pipeline_setup *setup, dls_schedule *out)
{
    dls_schedule_options o = dls_schedule_defaults(setup->schedule, setup->ranks,
                                                   setup->microbatches);
    dls_schedule plain;
    o.chunks = setup->chunks;
    DLS_TRY(dls_schedule_make(&o, &plain));
    if (setup->change)
        setup->change(&plain);
    dls_status s = dls_lower(&plain, setup->gathered, out);
    dls_schedule_free(&plain);
    DLS_TRY(s);
    return dls_schedule_check(out, NULL);
}

dls_status pipeline_partition(const pipeline_setup *setup, int layers, int stages,
                              int *first)
{
    return setup->units ? dls_partition_by_hand(setup->units, layers, stages, first)
                        : dls_partition_by_count(layers, stages, first);
}

/* open a pipeline for a proof */
static const dls_zero_options zero_stages[4] = {{0}, {.stage = 1}, {.stage = 2},
                                                {.stage = 3}};

typedef struct pipeline_run {
    const pipeline_setup *setup;
    dls_transformer *whole;     /* of the proof: names and offsets */
    dls_comm *pipe, *data;
    dls_schedule schedule;
    dls_pipeline *pipeline;
    dls_transformer_config config;
} pipeline_run;

/* The values of a stage, picked by name from those of the whole model. */
static dls_status fill_stage(pipeline_run *r, int stage, const char *values)
{
    const dls_params *set = &r->pipeline->stage[stage]->model->params;
    size_t size = dls_dtype_size(set->dtype);
    char *host = malloc(set->elements * size + 1);
    EXPECT(host, "no memory");
    for (int i = 0; i < set->n; i++) {
        const dls_param *from = dls_params_find(&r->whole->params, set->items[i].name);
        EXPECT(from && from->count == set->items[i].count, "the whole model has no %s",
               set->items[i].name);
        memcpy(host + set->items[i].offset * size, values + from->offset * size,
               from->count * size);
    }
    dls_status s = dls_pipeline_put(r->pipeline, stage, host);
    free(host);
    return s;
}

dls_status pipeline_groups(dls_comm *comm, int p, dls_comm **pipe, dls_comm **data)
{
    int rank = dls_comm_rank(comm);
    DLS_TRY(dls_comm_split(comm, rank / p, rank, pipe));
    return dls_comm_split(comm, rank % p, rank, data);
}

static dls_status open_layout(void **self, const layout *l, dls_transformer *model,
                              dls_comm *comm, const void *values,
                              const dls_adamw_options *adamw)
{
    const pipeline_setup *setup = l->options;
    pipeline_run *r = calloc(1, sizeof *r);
    EXPECT(r, "no memory");
    r->setup = setup;
    r->whole = model;
    r->config = layout_config(&setup->proof);
    r->pipe = setup->pipe;
    r->data = setup->data;
    if (!r->pipe)
        DLS_TRY(pipeline_groups(comm, setup->ranks, &r->pipe, &r->data));
    DLS_TRY(pipeline_schedule(setup, &r->schedule));
    int first[r->schedule.stages + 1];
    DLS_TRY(pipeline_partition(setup, r->config.layers, r->schedule.stages, first));
    dls_pipeline_options o = {
        .model = &r->config, .schedule = &r->schedule, .partition = first,
        .make = setup->make ? setup->make : setup->proof.exact ? exact_model_make : NULL,
        .pair_order = setup->order,
        .max_B = setup->proof.micro, .T = r->config.context, .adamw = *adamw,
        .validate = setup->validate,
        .zero = setup->zero ? &zero_stages[setup->zero] : NULL};
    DLS_TRY(dls_pipeline_create(&r->pipeline, model->ctx, r->pipe, r->data, &o));
    for (int s = 0; s < r->schedule.stages; s++)
        if (r->pipeline->stage[s])
            DLS_TRY(fill_stage(r, s, values));
    *self = r;
    return DLS_OK;
}

/* step and show the pipeline */
static dls_status step_layout(void *self, const layout_rows *rows, double lr,
                              int64_t step)
{
    pipeline_run *r = self;
    size_t size = dls_dtype_size(dls_dtype_accumulator(r->whole->ctx->dtype));
    dls_pipeline_batch b = {.tokens = rows->tokens, .targets = rows->targets,
                            .rows = rows->rows, .micro = rows->micro,
                            .loss_scale = rows->loss_scale, .losses = rows->losses};
    DLS_CUDA(cudaMemsetAsync(rows->losses, 0, (size_t)rows->rows * rows->T * size,
                             r->whole->ctx->stream));
    return dls_pipeline_step(r->pipeline, &b, lr, step);
}


/* This rank's slices of a stage's gradients and, if they are all that it has, values. */
static dls_status see_slices(pipeline_run *r, const dls_stage_update *u,
                             const char *values, layout_see *see, void *to)
{
    const dls_params *set = &u->stage->model->params;
    dls_dtype dtype;
    for (int k = 0; k < dls_zero_slices(u->zero); k++)
        for (int i = 0; i < set->n; i++) {
            const dls_param *p = &set->items[i];
            const dls_param *of = dls_params_find(&r->whole->params, p->name);
            dls_zero_slice s = dls_zero_slice_at(u->zero, k);
            const char *grads = dls_zero_gradient(u->zero, k, &dtype);
            size_t from = p->offset > s.first ? p->offset : s.first;
            size_t last = p->offset + p->count, end = s.first + s.count;
            end = end < last ? end : last;
            size_t size = dls_dtype_size(set->dtype);
            if (from < end)
                DLS_TRY(see(to, of->offset + from - p->offset, end - from,
                            grads + (from - s.first) * size,
                            values ? values + (s.at + from - s.first) * size : NULL));
        }
    return DLS_OK;
}

static dls_status see_cut(pipeline_run *r, const dls_stage_update *u, layout_see *see,
                          void *to)
{
    DLS_TRY(dls_zero_sync(u->zero));
    if (dls_zero_cuts(u->zero) < 3)
        return see_slices(r, u, NULL, see, to);
    char *values = calloc(dls_zero_elements(u->zero) + 1, sizeof(double));
    EXPECT(values, "no memory");
    dls_status s = dls_zero_fetch(u->zero, values, NULL, NULL);
    if (s == DLS_OK)
        s = see_slices(r, u, values, see, to);
    free(values);
    return s;
}

static dls_status visit_layout(void *self, layout_see *see, void *to)
{
    pipeline_run *r = self;
    DLS_TRY(dls_pipeline_settle(r->pipeline));
    DLS_TRY(dls_ctx_sync(r->whole->ctx));
    for (int s = 0; s < r->schedule.stages; s++) {
        const dls_stage *stage = r->pipeline->stage[s];
        const dls_stage_update *u = &r->pipeline->update[s];
        if (u->zero)
            DLS_TRY(see_cut(r, u, see, to));
        int whole = stage && !(u->zero && dls_zero_cuts(u->zero) == 3);
        for (int i = 0; whole && i < stage->model->params.n; i++) {
            const dls_param *p = &stage->model->params.items[i];
            const dls_param *of = dls_params_find(&r->whole->params, p->name);
            DLS_TRY(see(to, of->offset, p->count, u->zero ? NULL : p->grad,
                        p->value));
        }
    }
    return DLS_OK;
}

static void close_layout(void *self)
{
    pipeline_run *r = self;
    dls_pipeline_free(r->pipeline);
    dls_schedule_free(&r->schedule);
    if (!r->setup->pipe) {
        dls_comm_destroy(r->pipe);
        dls_comm_destroy(r->data);
    }
    free(r);
}

layout pipeline_layout(const pipeline_setup *setup)
{
    return (layout){.name = setup->schedule, .unplaced = 1, .options = setup,
                    .open = open_layout, .step = step_layout, .visit = visit_layout,
                    .close = close_layout};
}

/* code/train/pipelined.c: from chapters/05-pipeline-runtime-trainer.md. Edit the chapter, or edit here and run "make untangle". */
/* The trainer's parts for pipelines: settings, groups, steps, and the state in slices. */
#include "train/pipelined.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dropout.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"
#include "parallel/pipeline/versions.h"
#include "train/layout.h"
#include "vgpu/gpu.h"

/* define what is pipelined */
struct dls_pipelined {
    dls_schedule schedule;
    dls_pipeline *pipeline;
    void *losses;               /* (rows, T) device, accumulator type */
    size_t loss_bytes;
    int rows;                   /* room */
};

/* read the pipeline */
static dls_status read_partition(dls_config *cfg, dls_train_pipeline *p, int layers)
{
    const char *key = "pipeline.units";
    char item[64];
    DLS_TRY(dls_config_choice_or(cfg, "pipeline.partition", "count|cost", 1,
                                 &p->by_cost));
    DLS_TRY(dls_config_count(cfg, key, &p->given));
    if (p->given > DLS_PIPELINE_UNITS)
        return dls_config_fail(cfg, key, "expected at most %d stages, got %d",
                               DLS_PIPELINE_UNITS, p->given);
    for (int i = 0; i < p->given; i++) {
        snprintf(item, sizeof item, "%s.%d", key, i);
        DLS_TRY(dls_config_int(cfg, item, 1, layers + 2, &p->units[i]));
    }
    return DLS_OK;
}

static dls_status check_company(dls_config *cfg, const dls_train_config *c)
{
    if (c->hybrid)
        return dls_config_fail(cfg, "data_parallel", "expected ddp or zero1 to zero3 "
                               "beside a pipeline");
    if (c->ddp.hook.choice != DLS_HOOK_NONE)
        return dls_config_fail(cfg, "ddp.hook", "expected none beside a pipeline");
    if (!dls_schedule_find(c->pipeline.schedule))
        return dls_config_fail(cfg, "pipeline.schedule", "expected a schedule's name "
                               "(dls schedule --help lists them), got %s",
                               c->pipeline.schedule);
    dls_pair_order order;
    if (dls_pair_order_read("", c->pipeline.pair_order, &order) != DLS_OK)
        return dls_config_fail(cfg, "pipeline.pair_order", "expected up to %d letters b "
                               "and f, as in \"b f b f\", got \"%.80s\"", DLS_PAIR_TURNS,
                               c->pipeline.pair_order);
    if (c->pipeline.post_validation
        && dls_schedule_find(c->pipeline.schedule)->step_every != 0)
        return dls_config_fail(cfg, "pipeline.post_validation", "expected false: the "
                               "steps of %s wait for nobody", c->pipeline.schedule);
    return DLS_OK;
}

dls_status dls_train_read_pipeline(dls_config *cfg, dls_train_config *c)
{
    dls_train_pipeline *p = &c->pipeline;
    int64_t microbatches, chunks;
    if (c->mesh.size[DLS_AXIS_PP] == 1 && !dls_config_has(cfg, "pipeline.schedule"))
        return DLS_OK;
    DLS_TRY(dls_config_string_or(cfg, "pipeline.schedule", "1f1b", &p->schedule));
    DLS_TRY(dls_config_int_or(cfg, "pipeline.microbatches", 1, 1 << 14, 0,
                              &microbatches));
    DLS_TRY(dls_config_int_or(cfg, "pipeline.chunks", 1, 1 << 8, 0, &chunks));
    DLS_TRY(dls_config_bool_or(cfg, "pipeline.post_validation", 0,
                               &p->post_validation));
    DLS_TRY(dls_config_string_or(cfg, "pipeline.pair_order", "b f", &p->pair_order));
    DLS_TRY(read_partition(cfg, p, c->model.layers));
    p->microbatches = (int)microbatches;
    p->chunks = (int)chunks;
    return check_company(cfg, c);
}

/* plan the pipeline */
/* How many stages of a rank may be whole at the same time; 0: all, always. */
static int gathered_stages(const dls_train_config *c, const dls_schedule *s)
{
    if (!c->sharded || c->zero.stage < 2)
        return 0;
    return c->zero.keep_forward ? s->stages : c->zero.prefetch + 1;
}

dls_status dls_pipelined_schedule(const dls_train_config *c, int replicas,
                                  dls_schedule *out)
{
    const dls_train_pipeline *p = &c->pipeline;
    dls_schedule_options o = dls_schedule_defaults(p->schedule,
                                                   c->mesh.size[DLS_AXIS_PP],
                                                   dls_train_microbatches(c, replicas));
    dls_schedule plain;
    o.chunks = p->chunks;
    DLS_TRY(dls_schedule_make(&o, &plain));
    dls_status s = dls_lower(&plain, gathered_stages(c, &plain), out);
    dls_schedule_free(&plain);
    DLS_TRY(s);
    return dls_schedule_check(out, NULL);
}

dls_status dls_pipelined_partition(const dls_train_config *c, int stages, int *first)
{
    const dls_train_pipeline *p = &c->pipeline;
    int64_t cost[c->model.layers + 2];
    dls_partition_flops(&c->model, c->model.context, cost);
    dls_status s = p->given
        ? dls_partition_by_hand(p->units, c->model.layers, stages, first)
        : p->by_cost ? dls_partition_by_cost(cost, c->model.layers, stages, first)
                     : dls_partition_by_count(c->model.layers, stages, first);
    return s == DLS_OK ? DLS_OK : DLS_FAIL(s, "pipeline: %s", dls_status_message());
}

/* make the pipeline */
static dls_status fill_stage(const dls_trainer *t, dls_pipeline *p, int stage)
{
    const dls_params *set = &p->stage[stage]->model->params;
    void *host = malloc(set->elements *
                        dls_dtype_size(dls_dtype_accumulator(set->dtype)));
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu initial values",
                        set->elements);
    dls_params_fill(set, t->config->seed, host);
    dls_status s = dls_pipeline_put(p, stage, host);
    free(host);
    return s;
}

static dls_status fill_stages(const dls_trainer *t, dls_pipeline *p)
{
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(fill_stage(t, p, s));
    return DLS_OK;
}

static dls_status make_pipeline(dls_trainer *t, dls_pipelined *p)
{
    const dls_train_config *c = t->config;
    DLS_TRY(dls_pipelined_schedule(c, t->place.replicas, &p->schedule));
    int first[p->schedule.stages + 1];
    DLS_TRY(dls_pipelined_partition(c, p->schedule.stages, first));
    dls_pipeline_options o = {.model = &t->place.model, .schedule = &p->schedule,
                              .partition = first, .max_B = c->micro_batch,
                              .T = t->place.T, .axes = t->groups.cut,
                              .positions = t->batch.positions,
                              .T_whole = c->model.context, .adamw = c->adamw,
                              .validate = c->pipeline.post_validation,
                              .pair_order = c->pipeline.pair_order,
                              .zero = c->sharded ? &c->zero : NULL};
    DLS_TRY(dls_pipeline_create(&p->pipeline, &t->ctx, t->groups.pipe, t->groups.data,
                                &o));
    DLS_TRY(fill_stages(t, p->pipeline));
    p->rows = t->rows > c->micro_batch ? t->rows : c->micro_batch;
    size_t count = (size_t)p->rows * t->place.T;
    p->loss_bytes = count * dls_dtype_size(dls_dtype_accumulator(c->dtype));
    return dls_device_alloc(&p->losses, count, dls_dtype_accumulator(c->dtype),
                            DLS_MEM_ACTIVATIONS);
}

dls_status dls_pipelined_create(dls_trainer *t)
{
    t->pipelined = calloc(1, sizeof *t->pipelined);
    return t->pipelined ? make_pipeline(t, t->pipelined)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a pipeline");
}

dls_transformer *dls_pipelined_model(const dls_trainer *t, int i)
{
    const dls_pipeline *p = t->pipelined->pipeline;
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s] && i-- == 0)
            return p->stage[s]->model;
    return NULL;
}

dls_comm *dls_pipelined_mirror(const dls_trainer *t)
{
    return t->pipelined->pipeline->mirror;
}

void dls_pipelined_free(dls_pipelined *p)
{
    if (!p)
        return;
    dls_pipeline_free(p->pipeline);
    dls_schedule_free(&p->schedule);
    dls_device_free(p->losses);
    free(p);
}

/* step with the pipeline */
static dls_pipeline_batch batch_of(dls_trainer *t, int rows)
{
    const dls_train_config *c = t->config;
    return (dls_pipeline_batch){
        .tokens = dls_batch_tokens(&t->batch, 0),
        .targets = dls_batch_targets(&t->batch, 0), .rows = rows,
        .micro = c->micro_batch, .losses = t->pipelined->losses,
        .loss_scale = dls_trainer_loss_scale(t)};
}

/* Optimizer steps in one step of the trainer. */
static int steps_inside(const dls_schedule *s)
{
    return s->step_every ? s->options.microbatches / s->step_every : 1;
}

dls_status dls_pipelined_step(dls_trainer *t, int64_t step)
{
    dls_pipelined *p = t->pipelined;
    int inside = steps_inside(&p->schedule);
    double lr = dls_lr_schedule_at(&t->config->schedule, step);
    dls_pipeline_batch b = batch_of(t, t->rows);
    b.loss_scale *= inside;
    b.drops = 1;
    b.seed = dls_dropout_seed(t->config->seed, (uint64_t)step);
    b.first_row = (uint64_t)t->first_row;
    DLS_CUDA(cudaMemsetAsync(p->losses, 0, p->loss_bytes, t->ctx.stream));
    int pending = p->pipeline->validation.pending;
    DLS_TRY(dls_pipeline_step(p->pipeline, &b, lr, (step - 1) * inside + 1));
    if (pending)        // the step before this one is settled now
        DLS_TRY(dls_meter_correct(&t->meter, dls_pipelined_norm(t)));
    size_t count = (size_t)t->rows * t->place.T;
    return count ? dls_trainer_count(t, p->losses, count) : DLS_OK;
}

const double *dls_pipelined_norm(const dls_trainer *t)
{
    return dls_pipeline_norm(t->pipelined->pipeline);
}

dls_status dls_pipelined_settle(dls_trainer *t)
{
    dls_pipeline *p = t->pipelined->pipeline;
    if (!p->validation.pending)
        return DLS_OK;
    DLS_TRY(dls_pipeline_settle(p));
    return dls_meter_correct(&t->meter, dls_pipeline_norm(p));
}

/* evaluate with the pipeline */
dls_status dls_pipelined_evaluate(dls_trainer *t, int B)
{
    dls_pipelined *p = t->pipelined;
    dls_pipeline_batch b = batch_of(t, B);
    DLS_TRY(dls_pipelined_settle(t));
    DLS_CUDA(cudaMemsetAsync(p->losses, 0, p->loss_bytes, t->ctx.stream));
    DLS_TRY(dls_pipeline_forward(p->pipeline, &b));
    size_t count = (size_t)B * t->place.T;
    return count ? dls_trainer_count_evaluation(t, p->losses, count) : DLS_OK;
}

/* cut the state by stages */
/* Elements of a stage in this rank's arrays, padding included. */
static size_t elements_of(const dls_stage_update *u)
{
    return u->zero ? dls_zero_elements(u->zero) : u->stage->model->params.elements;
}

size_t dls_pipelined_elements(const dls_trainer *t)
{
    const dls_pipeline *p = t->pipelined->pipeline;
    size_t sum = 0;
    for (int s = 0; s < p->stages; s++)
        sum += p->stage[s] ? elements_of(&p->update[s]) : 0;
    return sum;
}

int dls_pipelined_counts(const dls_trainer *t, int i)
{
    const dls_pipeline *p = t->pipelined->pipeline;
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s] && i-- == 0)
            return p->update[s].counted;
    return 0;
}

dls_status dls_pipelined_slices(const dls_trainer *t, int saved, dls_slices *out,
                                size_t *elements)
{
    const dls_pipeline *p = t->pipelined->pipeline;
    *elements = 0;
    for (int s = 0; s < p->stages; s++) {
        const dls_stage_update *u = &p->update[s];
        if (!p->stage[s])
            continue;
        const dls_params *set = &p->stage[s]->model->params;
        dls_holding h = {.set = set, .zero = u->zero, .at = *elements, .saved = saved,
                         .who = dls_trainer_counter(t, u->zero),
                         .skip = u->copy < 0 ? NULL : &set->items[u->copy]};
        if (!saved || u->counted)
            DLS_TRY(dls_slices_add(out, &t->whole, &h));
        *elements += elements_of(u);
    }
    return DLS_OK;
}

/* Copies a stage's values and moments to the host's arrays, or back. */
static dls_status move_stage(dls_pipeline *p, int stage, char *const host[3], int back)
{
    const dls_stage_update *u = &p->update[stage];
    size_t bytes = elements_of(u) * dls_dtype_size(dls_dtype_accumulator(p->ctx->dtype));
    void *device[] = {dls_stage_update_values(u), u->m, u->v};
    if (u->zero)
        return back ? dls_zero_put(u->zero, host[0], host[1], host[2])
                    : dls_zero_fetch(u->zero, host[0], host[1], host[2]);
    if (back)
        DLS_TRY(dls_pipeline_put(p, stage, host[0]));
    for (int k = back; k < 3; k++)
        DLS_CUDA(cudaMemcpy(back ? device[k] : host[k], back ? host[k] : device[k], bytes,
                            cudaMemcpyDefault));
    return DLS_OK;
}


static dls_status move_state(dls_trainer *t, const dls_shard_state *h, int back)
{
    dls_pipeline *p = t->pipelined->pipeline;
    size_t size = dls_dtype_size(dls_dtype_accumulator(t->ctx.dtype)), at = 0;
    DLS_TRY(dls_ctx_sync(&t->ctx));
    for (int s = 0; s < p->stages; s++) {
        char *host[] = {(char *)h->values + at, (char *)h->m + at, (char *)h->v + at};
        if (!p->stage[s])
            continue;
        DLS_TRY(move_stage(p, s, host, back));
        at += elements_of(&p->update[s]) * size;
    }
    return DLS_OK;
}

dls_status dls_pipelined_fetch(dls_trainer *t, const dls_shard_state *s)
{
    DLS_TRY(dls_pipelined_settle(t));
    return move_state(t, s, 0);
}

dls_status dls_pipelined_put(dls_trainer *t, const dls_shard_state *s)
{
    return move_state(t, s, 1);
}

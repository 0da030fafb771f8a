/* code/train/stages_memory.c: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* What the stages of a rank take, in any layout: before the run, without a device. */
#include <stdlib.h>

#include "comm/scratch.h"
#include "model/expert_block.h"
#include "parallel/expert/copies.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/scratch.h"
#include "parallel/pipeline/versions.h"
#include "train/pipelined.h"

/* hold the load of a ranks stages */
/* A rank's stages while they are added up. */
typedef struct stages_load {
    const dls_train_config *c;
    const dls_train_place *p;
    const dls_train_imagined *g;
    dls_pipeline_groups groups;
    dls_pipeline_scratch scratch;
    dls_schedule schedule;
    dls_stage_bytes *blocks;    /* [stages] */
    size_t most;                /* elements of the largest stage, when it is whole */
    size_t norm;                /* scratch memory of ZeRO on the compute stream */
    size_t window;              /* of one-sided dispatch */
    size_t *bytes;              /* [DLS_MEM_PURPOSES] */
} stages_load;

/* add a stage that is cut */
/* Where ZeRO cuts the state of `set` over the ranks that have it. */
static dls_status add_cut_stage(stages_load *l, dls_params *set)
{
    dls_dtype dtype = l->c->dtype;
    dls_zero_sizes is = {0}, whole = {0};
    dls_zero_scratch scratch;
    dls_zero_options o = l->c->zero, first = {.stage = 1};
    o.lent = 1;
    o.axes = first.axes = l->groups.axes;
    DLS_TRY(dls_zero_predict(set->items, set->n, dtype, l->p->holders, &o, &is));
    DLS_TRY(dls_zero_predict(set->items, set->n, dtype, l->p->holders, &first, &whole));
    DLS_TRY(dls_zero_predict_scratch(set->items, set->n, dtype, l->g->data, &o,
                                     &scratch));
    l->bytes[DLS_MEM_PARAMETERS] += is.parameters;
    l->bytes[DLS_MEM_GRADIENTS] += is.gradients;
    l->bytes[DLS_MEM_OPTIMIZER] += is.optimizer;
    l->bytes[DLS_MEM_COMMUNICATION] += scratch.shard + scratch.experts + scratch.tensor
        + scratch.kv;
    l->norm = scratch.norm;
    size_t elements = whole.parameters / dls_dtype_size(dtype);
    l->most = elements > l->most ? elements : l->most;
    return DLS_OK;
}

/* The stages that are whole for a while. */
static void add_whole(stages_load *l)
{
    const dls_train_config *c = l->c;
    size_t n = (size_t)dls_schedule_gathered(&l->schedule, l->p->stage_rank) * l->most;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(c->dtype));
    int experts = dls_copies_expert_ways(l->groups.axes);
    if (!c->sharded || (l->p->holders == 1 && experts <= 1))
        return;
    if (c->zero.stage == 3)
        l->bytes[DLS_MEM_PARAMETERS] += n * dls_dtype_size(c->dtype);
    if (c->zero.stage >= 2)
        l->bytes[DLS_MEM_GRADIENTS] += n * wide;
}

/* add a stage */
static void add_kept_stage(stages_load *l, const dls_params *set, int stage)
{
    const dls_train_config *c = l->c;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(c->dtype)), n = set->elements;
    l->bytes[DLS_MEM_PARAMETERS] += n * dls_dtype_size(c->dtype)
        * dls_schedule_versions_held(&l->schedule, stage);
    l->bytes[DLS_MEM_GRADIENTS] += n * wide;
    l->bytes[DLS_MEM_OPTIMIZER] += dls_optimizer_predict_memory(n, c->dtype)
        - 3 * sizeof(double);
    if (c->pipeline.post_validation)
        l->bytes[DLS_MEM_OPTIMIZER] += dls_pipeline_validation_bytes(
            &(dls_params){.elements = n, .dtype = c->dtype});
}

/* Unit 0 is the table, unit i block i - 1, and the last one the head. */
static int has_experts(const dls_transformer_config *part)
{
    for (int i = part->from_unit; i < part->to_unit; i++)
        if (i >= 1 && i <= part->layers && dls_block_has_experts(part, i - 1))
            return 1;
    return 0;
}

static dls_status add_stage(stages_load *l, int stage, const int *first)
{
    const dls_train_config *c = l->c;
    dls_transformer_config part = l->p->model;
    dls_params set = {0};
    size_t fixed;
    part.from_unit = first[stage];
    part.to_unit = first[stage + 1];
    part.unplaced = 0;
    if (has_experts(&part))
        l->window = dls_train_window_bytes(c, l->p);
    part.split_backward = dls_schedule_splits(&l->schedule);
    DLS_TRY(dls_stage_predict(&part, c->micro_batch, l->p->T, c->dtype,
                              &l->blocks[stage], &fixed));
    l->bytes[DLS_MEM_ACTIVATIONS] += fixed;
    dls_status s = dls_transformer_list(&part, &set);
    dls_stage_count_units(&set, &part);
    if (s == DLS_OK)
        s = dls_pipeline_scratch_add(&l->groups, set.items, set.n,
                                     (int)dls_dtype_accumulator(c->dtype), c->sharded,
                                     &l->scratch);
    if (s == DLS_OK && c->sharded)
        s = add_cut_stage(l, &set);
    else if (s == DLS_OK)
        add_kept_stage(l, &set, stage);
    dls_params_free(&set);
    return s;
}

/* add the micro batches of stages */
static dls_status add_micro_batches(stages_load *l)
{
    const dls_train_config *c = l->c;
    const dls_sharding *s = &l->p->model.sharding;
    int rows = dls_train_rows_of(c, l->p->replica, l->p->replicas), first, n;
    dls_sampler windows = {.batch = c->evaluate_windows};
    dls_sampler_share(&windows, l->p->replica, l->p->replicas, &first, &n);
    dls_replay r = {.schedule = &l->schedule, .bytes = l->blocks,
                    .rank = l->p->stage_rank,
                    .cut = dls_transformer_travels(&l->p->model),
                    .rows = rows, .micro = c->micro_batch,
                    .together = l->p->model.moe.experts > 0,
                    .steps = c->steps < 3 ? (int)c->steps : 3,
                    .evaluates = c->evaluate_every > 0
                        && (n > 0 || l->p->model.moe.experts > 0)};
    dls_replayed is;
    DLS_TRY(dls_pipeline_replay(&r, &is));
    size_t tokens = (size_t)c->micro_batch * l->p->T;
    size_t message = tokens / dls_sharding_slices(s) * c->model.channels
        * dls_dtype_size(c->dtype);
    rows = rows > c->micro_batch ? rows : c->micro_batch;
    l->bytes[DLS_MEM_ACTIVATIONS] += is.activations
        + (size_t)rows * l->p->T * dls_dtype_size(dls_dtype_accumulator(c->dtype));
    l->bytes[DLS_MEM_COMMUNICATION] += (size_t)is.messages * message;
    return DLS_OK;
}

/* imagine the groups of a pipeline */
/* Members a and b (less than 0: nobody) of the pipeline, if this rank is one of them. */
static dls_status imagine_pair(const stages_load *l, int a, int b, dls_comm **out)
{
    int me = l->p->stage_rank, low = a < b ? a : b, high = a < b ? b : a;
    if (me != low && me != high)
        return DLS_OK;
    int member[] = {dls_comm_world_rank(l->g->pipe, low),
                    dls_comm_world_rank(l->g->pipe, high)};
    return low == high ? DLS_OK : dls_comm_imagine_ranks(out, me == high, member, 2);
}

static dls_status imagine_groups(stages_load *l)
{
    const dls_schedule *s = &l->schedule;
    int me = l->p->stage_rank, other = s->options.ranks - 1 - me;
    int a = dls_schedule_rank(s, 0, 0), b = dls_schedule_rank(s, s->stages - 1, 0);
    const dls_param *table = NULL;
    dls_params set = {0};
    l->groups.pipe = l->g->pipe;
    l->groups.data = l->g->data;
    l->groups.tally = dls_model_tally(&l->p->model);
    DLS_TRY(dls_transformer_list(&l->p->model, &set));
    table = dls_params_find(&set, "wte.weight");
    l->groups.table = table ? table->count : 0;
    dls_params_free(&set);
    if (!l->g->pipe)
        return DLS_OK;
    if (s->placement == DLS_PLACE_BOTH)
        return imagine_pair(l, me, other, &l->groups.mirror);
    return l->c->model.tied_head && s->stages > 1
        ? imagine_pair(l, a, b, &l->groups.tied) : DLS_OK;
}

/* add all stages */
/* The trainer's list of the whole model takes nothing but a rotation of its own. */
static dls_status add_list(stages_load *l)
{
    dls_transformer_config list = l->p->model;
    dls_stage_bytes unused;
    size_t fixed;
    list.to_unit = list.layers + 2;
    DLS_TRY(dls_stage_predict(&list, l->c->micro_batch, l->p->T, l->c->dtype, &unused,
                              &fixed));
    l->bytes[DLS_MEM_ACTIVATIONS] += fixed;
    return DLS_OK;
}

static dls_status add_stages(stages_load *l)
{
    const dls_train_config *c = l->c;
    int here = l->p->stage_rank, stages = l->schedule.stages, first[stages + 1];
    DLS_TRY(dls_pipelined_partition(c, stages, first));
    DLS_TRY(imagine_groups(l));
    DLS_TRY(dls_pipeline_scratch_begin(&l->groups, &l->scratch));
    l->bytes[DLS_MEM_OPTIMIZER] = 3 * sizeof(double)
        + (c->pipeline.post_validation ? dls_pipeline_validation_state() : 0);
    for (int i = 0; i < stages; i++)
        if (dls_schedule_rank(&l->schedule, i, 0) == here
            || dls_schedule_rank(&l->schedule, i, 1) == here)
            DLS_TRY(add_stage(l, i, first));
    add_whole(l);
    DLS_TRY(add_list(l));
    l->bytes[DLS_MEM_COMMUNICATION] += l->norm + l->window
        + dls_pipeline_scratch_sum(&l->scratch);
    return add_micro_batches(l);
}

dls_status dls_pipelined_predict_memory(const dls_train_config *c,
                                        const dls_train_place *p,
                                        const dls_train_imagined *g,
                                        size_t bytes[DLS_MEM_PURPOSES])
{
    dls_axes axes;
    stages_load l = {.c = c, .p = p, .g = g, .bytes = bytes};
    l.groups.axes = dls_train_imagined_axes(p, g, &axes) ? &axes : NULL;
    DLS_TRY(dls_pipelined_schedule(c, p->replicas, &l.schedule));
    l.blocks = calloc((size_t)l.schedule.stages, sizeof *l.blocks);
    dls_status s = l.blocks ? add_stages(&l)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", l.schedule.stages);
    dls_comm_destroy(l.groups.mirror);
    dls_comm_destroy(l.groups.tied);
    dls_schedule_free(&l.schedule);
    free(l.blocks);
    return s;
}

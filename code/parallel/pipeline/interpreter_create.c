/* code/parallel/pipeline/interpreter_create.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* Making and freeing a pipeline: its stages, its communicators, its tables. */
#include "parallel/pipeline/interpreter_private.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/lower.h"
#include "comm/scratch.h"
#include "parallel/pipeline/scratch.h"
#include "parallel/pipeline/versions.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* check the pieces */
static dls_status check_cut(const dls_pipeline_options *o, const dls_comm *pipe)
{
    const dls_schedule *s = o->schedule;
    const dls_zero_options *z = o->zero;
    if (z->shard_size || z->offload || z->narrow_gradients || o->validate
        || s->step_every != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s with ZeRO: expected slices over all replicas, "
                        "on the device, of a schedule with one step and no "
                        "post-validation", s->options.name);
    if (z->stage >= 2 && dls_schedule_gathered(s, dls_comm_rank(pipe)) == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s with ZeRO's stage %d: expected a schedule "
                        "that says when its stages are gathered", s->options.name,
                        z->stage);
    return DLS_OK;
}

static dls_status check_pieces(const dls_pipeline_options *o, const dls_comm *pipe)
{
    const dls_schedule *s = o->schedule;
    int units = o->model->layers + 2;
    if (dls_comm_size(pipe) != s->options.ranks)
        return DLS_FAIL(DLS_ERR_INPUT, "%s is for %d ranks, the pipeline has %d",
                        s->options.name, s->options.ranks, dls_comm_size(pipe));
    for (int i = 0; i < s->stages; i++)
        if (o->partition[0] != 0 || o->partition[i] >= o->partition[i + 1])
            return DLS_FAIL(DLS_ERR_INPUT, "stage %d has units %d ... %d", i,
                            o->partition[i], o->partition[i + 1] - 1);
    if (s->step_every > 0 && o->model->tied_head && s->stages > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected model.tied_head: false, since the "
                        "copies of a tied table would step at different times",
                        s->options.name);
    DLS_TRY(o->zero ? check_cut(o, pipe) : DLS_OK);
    if (o->partition[s->stages] != units)
        return DLS_FAIL(DLS_ERR_INPUT, "the stages have %d units, the model %d",
                        o->partition[s->stages], units);
    return DLS_OK;
}

/* make the stages */
int dls_schedule_splits(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            if (s->order[r].list[i].kind == DLS_DO_I)
                return 1;
    return 0;
}

static int is_here(const dls_pipeline *p, int stage)
{
    const dls_schedule *s = p->o.schedule;
    return dls_schedule_rank(s, stage, 0) == p->rank
        || dls_schedule_rank(s, stage, 1) == p->rank;
}

static dls_status make_stages(dls_pipeline *p)
{
    dls_zero_options zero = p->o.zero ? *p->o.zero : (dls_zero_options){0};
    zero.adamw = p->o.adamw;
    zero.lent = 1;
    zero.axes = p->o.axes;
    p->model.split_backward = dls_schedule_splits(p->o.schedule);
    for (int s = 0; s < p->stages; s++) {
        dls_transformer_config c = p->model;
        c.from_unit = p->o.partition[s];
        c.to_unit = p->o.partition[s + 1];
        c.unplaced = p->o.zero != NULL;
        if (!is_here(p, s))
            continue;
        DLS_TRY(dls_stage_create(&p->stage[s], p->ctx, &c, p->o.make, p->o.max_B, p->o.T,
                                 p->microbatches));
        dls_transformer_connect(p->stage[s]->model, p->o.axes);
        p->stage[s]->model->pass.positions = p->o.positions;
        p->stage[s]->model->pass.T_whole = p->o.T_whole;
        DLS_TRY(dls_stage_update_open(&p->update[s], p->stage[s], p->data,
                                      p->o.zero ? &zero : NULL));
        DLS_TRY(dls_weights_open(&p->weights[s], p->stage[s],
                                 dls_schedule_versions_held(p->o.schedule, s)));
    }
    return DLS_OK;
}

/* make the groups */
static int is_tied(const dls_pipeline *p)
{
    return p->model.tied_head && p->stages > 1;
}

static dls_status make_groups(dls_pipeline *p)
{
    const dls_schedule *s = p->o.schedule;
    int other = s->options.ranks - 1 - p->rank, last = p->stages - 1;
    int apart = dls_schedule_rank(s, 0, 0) != dls_schedule_rank(s, last, 0);
    if (s->placement == DLS_PLACE_BOTH)
        return dls_comm_split(p->pipe, p->rank < other ? p->rank : other, p->rank,
                              &p->mirror);
    if (is_tied(p) && apart)
        return dls_comm_split(p->pipe, p->stage[0] || p->stage[last] ? 0 : -1, p->rank,
                              &p->tied);
    return DLS_OK;
}

/* Which parameters somebody else counts: this stage's place in the norm. */
static void divide_the_norm(dls_pipeline *p)
{
    dls_stage *first = p->stage[0], *last = p->stage[p->stages - 1];
    for (int s = 0; s < p->stages; s++)
        p->update[s].counted = dls_schedule_rank(p->o.schedule, s, 0) == p->rank;
    for (int i = 0; is_tied(p) && first && i < first->model->params.n; i++)
        if (strcmp(first->model->params.items[i].name, "wte.weight") == 0)
            p->update[0].table = i;
    if (is_tied(p) && last)
        p->update[p->stages - 1].copy = p->update[p->stages - 1].table
            = last->model->head->weight;
}

/* make the pools */
/* Room for the stages of this rank that are whole at the same time. */
static dls_status make_pools(dls_pipeline *p)
{
    size_t most = 0, narrow = dls_dtype_size(p->ctx->dtype);
    size_t wide = dls_dtype_size(dls_dtype_accumulator(p->ctx->dtype));
    int n = dls_schedule_gathered(p->o.schedule, p->rank), cuts = 0;
    for (int s = 0; s < p->stages; s++) {
        const dls_zero *z = p->update[s].zero;
        cuts = z ? dls_zero_cuts(z) : cuts;
        most = z && dls_zero_whole(z) > most ? dls_zero_whole(z) : most;
    }
    DLS_TRY(dls_stage_pool_open(&p->values, cuts == 3 ? n : 0, most * narrow,
                                DLS_MEM_PARAMETERS));
    return dls_stage_pool_open(&p->grads, cuts >= 2 ? n : 0, most * wide,
                               DLS_MEM_GRADIENTS);
}

/* make the tables */
static dls_status make_tables(dls_pipeline *p)
{
    size_t n = (size_t)p->stages * p->microbatches;
    p->stage = calloc((size_t)p->stages, sizeof(dls_stage *));
    p->update = calloc((size_t)p->stages, sizeof *p->update);
    p->weights = calloc((size_t)p->stages, sizeof *p->weights);
    int ok = p->stage && p->update && p->weights;
    for (int way = 0; way < 2; way++) {
        p->in[way] = calloc(n, sizeof(dls_p2p_buffer *));
        p->out[way] = calloc(n, sizeof(dls_p2p_buffer *));
        ok = ok && p->in[way] && p->out[way];
    }
    return ok ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu micro-batches", n);
}

static dls_status make_marks(dls_pipeline *p)
{
    size_t n = 2 * p->o.schedule->order[p->rank].n;
    if (!p->o.measured)
        return DLS_OK;
    p->mark = calloc(n + 1, sizeof *p->mark);
    if (!p->mark)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu events", n);
    DLS_CUDA(cudaEventCreate(&p->base));
    for (size_t i = 0; i < n; i++)
        DLS_CUDA(cudaEventCreate(&p->mark[i]));
    return DLS_OK;
}

static dls_status make_device_parts(dls_pipeline *p)
{
    size_t rows = (size_t)p->o.max_B * p->o.T / dls_sharding_slices(&p->model.sharding);
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_OPTIMIZER);
    cudaError_t e = dls_gpu_alloc_shared((void **)&p->scalars, 3 * sizeof(double));
    dls_gpu_memory_purpose(before);
    DLS_CUDA(e);
    DLS_CUDA(cudaStreamCreateWithFlags(&p->reduction, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(p->reduction, "reduce"));
    DLS_CUDA(cudaEventCreateWithFlags(&p->computed, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&p->reduced, cudaEventDisableTiming));
    DLS_TRY(make_marks(p));
    return dls_p2p_open(&p->p2p, p->pipe, rows * p->model.channels, p->ctx->dtype);
}

/* free a pipeline */
static void free_tables(dls_pipeline *p)
{
    for (int way = 0; way < 2; way++) {
        free(p->in[way]);
        free(p->out[way]);
    }
    for (size_t i = 0; p->mark && i < 2 * p->o.schedule->order[p->rank].n; i++)
        if (p->mark[i])
            cudaEventDestroy(p->mark[i]);
    free(p->mark);
    free(p->weights);
    free(p->update);
    free(p->stage);
}

void dls_pipeline_free(dls_pipeline *p)
{
    if (!p)
        return;
    cudaDeviceSynchronize();    // its errors were told already
    for (int s = 0; p->stage && p->update && p->weights && s < p->stages; s++) {
        dls_weights_close(&p->weights[s]);
        dls_stage_update_close(&p->update[s]);
        dls_stage_free(p->stage[s]);
    }
    dls_stage_pool_close(&p->values);
    dls_stage_pool_close(&p->grads);
    dls_p2p_close(&p->p2p);
    dls_pipeline_close_validation(p);
    dls_pairs_close(p);
    dls_comm_destroy(p->mirror);
    dls_comm_destroy(p->tied);
    cudaFree(p->scalars);
    if (p->reduction)
        cudaStreamDestroy(p->reduction);
    cudaEvent_t events[] = {p->computed, p->reduced, p->base};
    for (int i = 0; i < 3; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
    free_tables(p);
    free(p);
}

/* create a pipeline */
static dls_status reserve_piece(dls_comm *comm, size_t bytes, cudaStream_t stream)
{
    return bytes ? dls_comm_reserve(comm, bytes, stream) : DLS_OK;
}

/* Scratch memory for all collectives now, so that it does not grow later. */
static dls_status reserve(dls_pipeline *p)
{
    const dls_axes *axes = p->o.axes;
    const dls_stage_update *table = &p->update[p->stage[0] ? 0 : p->stages - 1];
    dls_pipeline_groups g = {p->pipe, p->data, p->mirror, p->tied, axes, 0,
                             dls_model_tally(&p->model)};
    dls_pipeline_scratch is;
    if (p->tied && table->stage)
        g.table = table->stage->model->params.items[table->table].count;
    DLS_TRY(dls_pipeline_scratch_begin(&g, &is));
    for (int s = 0; s < p->stages; s++) {
        const dls_params *set = p->stage[s] ? &p->stage[s]->model->params : NULL;
        if (set)
            DLS_TRY(dls_pipeline_scratch_add(&g, set->items, set->n,
                                             (int)dls_dtype_accumulator(set->dtype),
                                             p->update[s].zero != NULL, &is));
    }
    DLS_TRY(reserve_piece(p->pipe, is.pipe, p->ctx->stream));
    DLS_TRY(reserve_piece(p->mirror, is.tally, p->ctx->stream));
    DLS_TRY(reserve_piece(p->tied, is.tied, p->ctx->stream));
    DLS_TRY(reserve_piece(p->data, is.data, p->reduction));
    DLS_TRY(reserve_piece(p->mirror, is.mirror, p->reduction));
    DLS_TRY(reserve_piece(axes ? axes->expert_data : NULL, is.experts, p->reduction));
    DLS_TRY(reserve_piece(axes ? axes->tensor : NULL, is.tensor, p->reduction));
    return reserve_piece(axes ? axes->kv : NULL, is.kv, p->reduction);
}

static dls_status open_pipeline(dls_pipeline *p)
{
    DLS_TRY(make_tables(p));
    DLS_TRY(make_device_parts(p));
    DLS_TRY(make_stages(p));
    divide_the_norm(p);
    DLS_TRY(make_pools(p));
    DLS_TRY(make_groups(p));
    DLS_TRY(reserve(p));
    DLS_TRY(dls_pairs_open(p));
    return dls_pipeline_open_validation(p);
}

dls_status dls_pipeline_create(dls_pipeline **out, dls_ctx *ctx, dls_comm *pipe,
                               dls_comm *data, const dls_pipeline_options *o)
{
    DLS_TRY(check_pieces(o, pipe));
    dls_pipeline *p = calloc(1, sizeof *p);
    if (!p)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a pipeline");
    *p = (dls_pipeline){.o = *o, .model = *o->model, .ctx = ctx, .pipe = pipe,
                        .data = data, .rank = dls_comm_rank(pipe),
                        .stages = o->schedule->stages,
                        .microbatches = o->schedule->options.microbatches};
    dls_status s = open_pipeline(p);
    if (s == DLS_OK)
        *out = p;
    else
        dls_pipeline_free(p);
    return s;
}

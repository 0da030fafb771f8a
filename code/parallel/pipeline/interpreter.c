/* code/parallel/pipeline/interpreter.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* One action after the other: what it waits for, what it computes, what it hands on. */
#include "parallel/pipeline/interpreter_private.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* find a micro batch */
enum { FORWARD, BACKWARD };

static int rows_of(const dls_pipeline *p, int microbatch)
{
    int64_t left = p->batch->rows - (int64_t)microbatch * p->batch->micro;
    return left <= 0 ? 0 : left < p->batch->micro ? (int)left : p->batch->micro;
}

/* 1: it is computed here, though perhaps only for the sake of other replicas. */
static int happens(const dls_pipeline *p, int microbatch)
{
    return microbatch < 0 || p->o.model->moe.experts > 0 || rows_of(p, microbatch) > 0;
}

size_t dls_pipeline_count(const dls_pipeline *p, int microbatch)
{
    size_t rows = (size_t)rows_of(p, microbatch) * p->o.T;
    return rows / dls_sharding_slices(&p->model.sharding) * p->model.channels;
}

static size_t place(const dls_pipeline *p, int stage, int microbatch)
{
    return (size_t)stage * p->microbatches + microbatch;
}

/* Where a stage's result goes: the table's place, and the rank. */
static int receiver(const dls_pipeline *p, const dls_action *a, int way)
{
    int to = way == FORWARD ? a->stage + 1 : a->stage - 1;
    if (to < 0 || to >= p->stages)
        return -1;
    return dls_schedule_rank(p->o.schedule, to, a->microbatch);
}

static int sender(const dls_pipeline *p, const dls_action *a, int way)
{
    int from = way == FORWARD ? a->stage - 1 : a->stage + 1;
    return dls_schedule_rank(p->o.schedule, from, a->microbatch);
}

/* send or receive a micro batch */
static dls_status send_rows(dls_pipeline *p, const dls_action *a, int way)
{
    dls_p2p_buffer **b = &p->out[way][place(p, a->stage, a->microbatch)];
    int to = receiver(p, a, way);
    if (!*b || to < 0)
        return DLS_FAIL(DLS_ERR_STATE, "stage %d has nothing to send for micro-batch %d",
                        a->stage, a->microbatch);
    DLS_TRY(dls_p2p_send(&p->p2p, *b, dls_pipeline_count(p, a->microbatch), to));
    *b = NULL;
    return DLS_OK;
}

static dls_status receive_rows(dls_pipeline *p, const dls_action *a, int way)
{
    dls_p2p_buffer **b = &p->in[way][place(p, a->stage, a->microbatch)];
    return dls_p2p_receive(&p->p2p, b, dls_pipeline_count(p, a->microbatch),
                           sender(p, a, way));
}

/* compute an action */
/* The way in which an action's input comes, or -1. */
static int way_of(const dls_action *a)
{
    return a->kind == DLS_DO_F ? FORWARD
        : a->kind == DLS_DO_I || a->kind == DLS_DO_B ? BACKWARD : -1;
}

static dls_status begin_io(dls_pipeline *p, const dls_action *a)
{
    int way = way_of(a), first = way == FORWARD ? 0 : p->stages - 1;
    size_t at = place(p, a->stage, a->microbatch);
    if (way < 0)
        return DLS_OK;
    if (a->stage != first && !p->in[way][at])
        return DLS_FAIL(DLS_ERR_STATE, "the input of stage %d, micro-batch %d, was not "
                        "received", a->stage, a->microbatch);
    return a->stage == p->stages - 1 - first ? DLS_OK
        : dls_p2p_take(&p->p2p, p->ctx->stream, &p->out[way][at]);
}

static dls_status end_io(dls_pipeline *p, const dls_action *a)
{
    int way = way_of(a), to = way == FORWARD ? a->stage + 1 : a->stage - 1;
    size_t at = place(p, a->stage, a->microbatch);
    if (way < 0)
        return DLS_OK;
    dls_p2p_buffer **in = &p->in[way][at], **out = &p->out[way][at];
    if (*in)
        DLS_TRY(dls_p2p_give(&p->p2p, *in, p->ctx->stream));
    *in = NULL;
    if (!*out)
        return DLS_OK;
    DLS_TRY(dls_p2p_ready(*out, p->ctx->stream));
    if (receiver(p, a, way) == p->rank) {
        p->in[way][place(p, to, a->microbatch)] = *out;
        *out = NULL;
    }
    return DLS_OK;
}

static dls_stage_input input_of(const dls_pipeline *p, const dls_action *a)
{
    const dls_pipeline_batch *b = p->batch;
    int64_t row = (int64_t)a->microbatch * b->micro;
    return (dls_stage_input){
        .B = rows_of(p, a->microbatch), .T = p->o.T, .tokens = b->tokens + row * p->o.T,
        .targets = b->targets + row * p->o.T, .loss_scale = b->loss_scale,
        .drops = b->drops, .seed = b->seed, .first_sequence = b->first_row + row};
}

static void *losses_of(const dls_pipeline *p, const dls_action *a)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(p->ctx->dtype));
    return (char *)p->batch->losses
        + (size_t)a->microbatch * p->batch->micro * p->o.T * size;
}

static void *rows_at(dls_p2p_buffer *const *table, size_t at)
{
    return table[at] ? table[at]->rows : NULL;
}

static dls_status pass_forward(dls_pipeline *p, const dls_action *a)
{
    dls_stage_input in = input_of(p, a);
    size_t at = place(p, a->stage, a->microbatch);
    void *y = rows_at(p->out[FORWARD], at);
    DLS_TRY(dls_pipeline_version(p, a, &in.params));
    return dls_stage_forward(p->stage[a->stage], a->microbatch, &in,
                             y ? y : losses_of(p, a), rows_at(p->in[FORWARD], at));
}

/* The version of the forward pass is an old one by now, and lies elsewhere. */
static dls_status use_version(dls_pipeline *p, const dls_action *a)
{
    dls_params *set;
    DLS_TRY(dls_pipeline_version(p, a, &set));
    if (set)
        p->stage[a->stage]->slot[a->microbatch].pass.params = set;
    return DLS_OK;
}

static dls_status pass_backward(dls_pipeline *p, const dls_action *a)
{
    size_t at = place(p, a->stage, a->microbatch);
    DLS_TRY(use_version(p, a));
    return (a->kind == DLS_DO_I ? dls_stage_backward_input : dls_stage_backward)(
        p->stage[a->stage], a->microbatch, rows_at(p->out[BACKWARD], at),
        rows_at(p->in[BACKWARD], at));
}

dls_status dls_pipeline_pass(dls_pipeline *p, const dls_action *a)
{
    if (a->kind == DLS_DO_W)
        return dls_stage_backward_weight(p->stage[a->stage], a->microbatch);
    return a->kind == DLS_DO_F ? pass_forward(p, a) : pass_backward(p, a);
}

static dls_status compute_one(dls_pipeline *p, const dls_action *a)
{
    DLS_TRY(begin_io(p, a));
    DLS_TRY(dls_pipeline_pass(p, a));
    return end_io(p, a);
}

static dls_status compute_pair(dls_pipeline *p, const dls_action *a)
{
    for (int k = 0; k < 2; k++)
        DLS_TRY(begin_io(p, a + k));
    DLS_TRY(dls_stage_reserve(p->stage[a->stage], a->microbatch));
    DLS_TRY(dls_pairs_run(p, a));
    for (int k = 0; k < 2; k++)
        DLS_TRY(end_io(p, a + k));
    return DLS_OK;
}

/* run an action */
static dls_status compute(dls_pipeline *p, const dls_action *a)
{
    switch (a->kind) {
    case DLS_DO_F: case DLS_DO_I: case DLS_DO_B:
    case DLS_DO_W: return compute_one(p, a);
    case DLS_DO_SEND_F: return send_rows(p, a, FORWARD);
    case DLS_DO_SEND_B: return send_rows(p, a, BACKWARD);
    case DLS_DO_RECV_F: return receive_rows(p, a, FORWARD);
    case DLS_DO_RECV_B: return receive_rows(p, a, BACKWARD);
    case DLS_DO_UNSHARD: return dls_stage_unshard(&p->update[a->stage], &p->values);
    case DLS_DO_RESHARD: return dls_stage_reshard(&p->update[a->stage]);
    case DLS_DO_REDUCE: return dls_pipeline_reduce(p, a->stage);
    case DLS_DO_STEP: return dls_pipeline_update(p, a->stage);
    default: return DLS_OK;
    }
}

static dls_status wait_for_input(dls_pipeline *p, const dls_action *a)
{
    int way = way_of(a);
    dls_p2p_buffer *b = way < 0 ? NULL : p->in[way][place(p, a->stage, a->microbatch)];
    return b ? dls_p2p_wait(b, p->ctx->stream) : DLS_OK;
}

static const char *const range_names[DLS_DO_KINDS] = {
    "F", "I", "W", "B", "send F", "receive F", "send B", "receive B", "unshard",
    "reshard", "reduce", "step"};

/* *runs: 0 if there is nothing to do. */
static dls_status prepare(dls_pipeline *p, const dls_action *a, int *runs)
{
    if (a->stage < 0 || a->stage >= p->stages || !p->stage[a->stage]
        || a->microbatch >= p->microbatches)
        return DLS_FAIL(DLS_ERR_INPUT, "rank %d has no stage %d or no micro-batch %d",
                        p->rank, a->stage, a->microbatch);
    if (dls_action_computes(a))     // with rows or without: the replicas do it together
        DLS_TRY(dls_stage_use(&p->update[a->stage], &p->grads, a->kind != DLS_DO_F));
    *runs = happens(p, a->microbatch);
    return DLS_OK;
}

static dls_status run_marked(dls_pipeline *p, const dls_action *a, size_t i, size_t n)
{
    for (size_t k = 0; k < n; k++)
        DLS_TRY(wait_for_input(p, a + k));
    for (size_t k = 0; p->mark && k < n; k++)
        DLS_TRY(dls_pipeline_mark(p, 2 * (i + k)));
    DLS_TRY(n == 2 ? compute_pair(p, a) : compute(p, a));
    for (size_t k = 0; p->mark && k < n; k++)
        DLS_TRY(dls_pipeline_mark(p, 2 * (i + k) + 1));
    return DLS_OK;
}

static dls_status run_unit(dls_pipeline *p, const dls_action *a, size_t i, size_t n)
{
    int runs[2] = {0, 0};
    for (size_t k = 0; k < n; k++)
        DLS_TRY(prepare(p, a + k, &runs[k]));
    int together = runs[0] && runs[1];
    dls_status s = DLS_OK;
    for (size_t k = 0; s == DLS_OK && k < (together ? 1 : n); k++) {
        if (!runs[k])
            continue;
        dls_trace_range_push(together ? "F and B" : range_names[a[k].kind]);
        s = run_marked(p, a + k, i + k, together ? 2 : 1);
        dls_trace_range_pop();
    }
    return s;
}

/* step a pipeline */
static dls_status begin_step(dls_pipeline *p)
{
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s] && !p->validation.pending)
            DLS_TRY(dls_params_zero_grads(&p->stage[s]->model->params, p->ctx));
    for (int s = 0; s < p->stages; s++)
        if (p->update[s].zero)
            DLS_TRY(dls_stage_shard_begin(&p->update[s]));
    for (int s = 0; s < p->stages; s++)
        p->update[s].reduced = p->update[s].stepped = 0;
    for (int s = 0; s < p->stages; s++)
        dls_weights_restart(&p->weights[s]);
    p->updating = 0;
    p->validation.due = p->validation.pending;
    return p->mark ? dls_pipeline_mark_base(p) : DLS_OK;
}

static dls_status end_step(dls_pipeline *p)
{
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s] && !p->update[s].stepped)
            DLS_TRY(dls_pipeline_update(p, s));
    return DLS_OK;
}

dls_status dls_pipeline_step(dls_pipeline *p, const dls_pipeline_batch *batch, double lr,
                             int64_t step)
{
    const dls_actions *list = &p->o.schedule->order[p->rank];
    int64_t room = (int64_t)batch->micro * p->microbatches;
    if (batch->rows > room || batch->micro > p->o.max_B)
        return DLS_FAIL(DLS_ERR_INPUT, "%d rows in micro-batches of %d: the schedule has "
                        "%d of up to %d", batch->rows, batch->micro, p->microbatches,
                        p->o.max_B);
    p->batch = batch;
    p->lr = lr;
    p->step = step;
    DLS_TRY(begin_step(p));
    for (size_t i = 0, n; i < list->n; i += n) {
        int again = 0, trusted = 1;
        n = dls_pair_size(list, i);
        for (size_t k = i; p->validation.due && k < i + n; k++)
            trusted = trusted && dls_pipeline_may_trust(p, k);
        if (!trusted)
            DLS_TRY(dls_pipeline_verdict(p, &again));
        i = again ? 0 : i;
        n = dls_pair_size(list, i);
        DLS_TRY(run_unit(p, &list->list[i], i, n));
    }
    return end_step(p);
}

/* run a pipeline forward */
/* Every rank asks for the same gathers, whether it has rows for a micro-batch or not. */
static dls_status bring(dls_pipeline *p, int stage)
{
    dls_stage_update *u = &p->update[stage];
    int taken = 0;
    for (int i = 0; i < p->values.n; i++)
        taken += p->values.loans[i].taken;
    for (int s = 0; s < p->stages; s++)
        if (s != stage && p->update[s].values && taken == p->values.n && !u->values) {
            DLS_TRY(dls_stage_reshard(&p->update[s]));
            taken--;
        }
    if (!u->values)
        DLS_TRY(dls_stage_unshard(u, &p->values));
    return dls_stage_use(u, &p->grads, 0);
}

static dls_status pass_stage(dls_pipeline *p, int stage, int microbatch)
{
    const dls_schedule *s = p->o.schedule;
    dls_action a = {DLS_DO_F, 0, (int16_t)stage, microbatch};
    if (dls_schedule_rank(s, stage, microbatch) != p->rank)
        return DLS_OK;
    DLS_TRY(bring(p, stage));
    if (!happens(p, microbatch))
        return DLS_OK;
    if (stage > 0 && sender(p, &a, FORWARD) != p->rank)
        DLS_TRY(receive_rows(p, &a, FORWARD));
    DLS_TRY(wait_for_input(p, &a));
    DLS_TRY(compute_one(p, &a));
    DLS_TRY(dls_stage_forget(p->stage[stage], microbatch));
    return stage < p->stages - 1 && receiver(p, &a, FORWARD) != p->rank
        ? send_rows(p, &a, FORWARD) : DLS_OK;
}

dls_status dls_pipeline_forward(dls_pipeline *p, const dls_pipeline_batch *batch)
{
    p->batch = batch;
    p->evaluating = 1;
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i < p->stages; i++)
        if (p->update[i].zero)
            s = dls_stage_shard_values(&p->update[i]);
    for (int i = 0; s == DLS_OK && i < p->microbatches; i++)
        for (int stage = 0; s == DLS_OK && stage < p->stages; stage++)
            s = pass_stage(p, stage, i);
    for (int i = 0; s == DLS_OK && i < p->stages; i++)
        s = dls_stage_reshard(&p->update[i]);
    p->evaluating = 0;
    return s;
}

/* ask a pipeline */
int dls_pipeline_has_losses(const dls_pipeline *p)
{
    return p->stage[p->stages - 1] != NULL;
}

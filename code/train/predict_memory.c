/* code/train/predict_memory.c: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* The bytes of every rank of a pipeline, from the recorded stages. */
#include <string.h>

#include "parallel/data/shards.h"
#include "train/predict.h"

/* weigh the parameters of a stage */
/* ZeRO cuts by its stage over `ways` ranks; its buffers are for the largest unit. */
static void add_parameters(const dls_step_costs *k, const dls_planned_unit *is,
                           size_t largest, size_t bytes[DLS_MEM_PURPOSES])
{
    size_t value = dls_dtype_size(k->c->dtype), n = is->elements;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(k->c->dtype));
    size_t state = (wide == value ? 2 : 3) * wide;
    size_t ways = (size_t)dls_mesh_group_size(&k->mesh, DLS_AXES_DATA);
    int stage = k->c->sharded && ways > 1 ? k->c->zero.stage : 0;
    size_t slice = (n + ways - 1) / ways;
    bytes[DLS_MEM_PARAMETERS] += (stage == 3 ? slice : n) * value;
    bytes[DLS_MEM_GRADIENTS] += (stage >= 2 ? slice : n) * wide;
    bytes[DLS_MEM_OPTIMIZER] += (stage >= 1 ? slice : n) * state;
    if (stage >= 2)
        bytes[DLS_MEM_COMMUNICATION] += 2 * largest * wide;
    if (stage == 3)
        bytes[DLS_MEM_COMMUNICATION] += (size_t)(k->c->zero.prefetch + 1) * largest
            * value;
}

/* weigh the passes under way */
/* The most that the slots of a rank hold at once, along its list of actions. */
static size_t slots_hold(const dls_step_costs *k, int rank)
{
    const dls_actions *list = &k->schedule.order[rank];
    size_t held = 0, peak = 0;
    for (size_t i = 0; i < list->n; i++) {
        const dls_action *a = &list->list[i];
        if (!dls_action_computes(a) || a->microbatch >= k->microbatches)
            continue;
        held += (size_t)dls_stage_adds(&k->stage[a->stage].full.bytes, a);
        peak = held > peak ? held : peak;
    }
    return peak;
}

/* Of a cut model the blocks go round and are never given back: of each kind as many stay
 * as were ever taken at once. */
static size_t blocks_stay(const dls_step_costs *k, int rank, int stage)
{
    const dls_actions *list = &k->schedule.order[rank];
    const dls_stage_bytes *b = &k->stage[stage].full.bytes;
    size_t stash = 0, early = 0, grads = 0, most[3] = {0};
    for (size_t i = 0; i < list->n; i++) {
        const dls_action *a = &list->list[i];
        if (a->stage != stage || a->microbatch >= k->microbatches)
            continue;
        stash += a->kind == DLS_DO_F;
        early += a->kind == DLS_DO_F;
        early -= a->kind == DLS_DO_I || a->kind == DLS_DO_B;
        grads += a->kind == DLS_DO_I;
        grads -= a->kind == DLS_DO_W;
        stash -= a->kind == DLS_DO_W || a->kind == DLS_DO_B;
        most[0] = stash > most[0] ? stash : most[0];
        most[1] = early > most[1] ? early : most[1];
        most[2] = grads > most[2] ? grads : most[2];
    }
    return most[0] * b->stash + most[1] * b->early + most[2] * b->gradients;
}

static size_t under_way(const dls_step_costs *k, int rank)
{
    size_t sum = 0;
    if (k->c->sharding.tensor <= 1 && k->c->sharding.context <= 1)
        return slots_hold(k, rank);
    for (int s = 0; s < k->schedule.stages; s++)
        if (dls_schedule_rank(&k->schedule, s, 0) == rank)
            sum += blocks_stay(k, rank, s);
    return sum;
}

/* Buffers of messages: two to spare, and one for each that waits or is being made. */
static size_t messages_of(const dls_step_costs *k)
{
    size_t buffers = k->schedule.options.ranks > 1 ? 6 : 0;
    return buffers * (size_t)(k->row_bytes * k->c->micro_batch);
}

/* weigh the ranks of a pipeline */
static size_t largest_unit(const dls_step_costs *k)
{
    size_t largest = 0;
    for (int u = 0; k->unit && u < k->c->model.layers + 2; u++)
        if (k->unit[u].elements > largest)
            largest = k->unit[u].elements;
    return largest;
}

void dls_predict_memory(const dls_step_costs *k, int rank,
                        size_t bytes[DLS_MEM_PURPOSES])
{
    size_t wide = dls_dtype_size(dls_dtype_accumulator(k->c->dtype));
    int rows = k->rows > k->c->micro_batch ? k->rows : k->c->micro_batch;
    memset(bytes, 0, DLS_MEM_PURPOSES * sizeof *bytes);
    bytes[DLS_MEM_ACTIVATIONS] = under_way(k, rank)
        + 2 * (size_t)rows * k->T * sizeof(int);
    if (k->c->pipeline.schedule)
        bytes[DLS_MEM_ACTIVATIONS] += (size_t)rows * k->T * wide;
    int last = k->schedule.stages - 1;
    bytes[DLS_MEM_COMMUNICATION] = messages_of(k);
    if (dls_schedule_rank(&k->schedule, 0, 0) == rank
        || dls_schedule_rank(&k->schedule, last, 0) == rank)
        bytes[DLS_MEM_COMMUNICATION] += k->tied_scratch;
    size_t talk = 0, stages = 0;
    for (int s = 0; s < k->schedule.stages; s++) {
        const dls_planned_unit *is = &k->stage[s].full;
        if (dls_schedule_rank(&k->schedule, s, 0) != rank)
            continue;
        add_parameters(k, is, largest_unit(k), bytes);
        bytes[DLS_MEM_ACTIVATIONS] += is->bytes.working + is->bytes.gradients;
        talk = is->scratch > talk ? is->scratch : talk;
        stages++;
    }
    bytes[DLS_MEM_COMMUNICATION] += talk
        + (k->c->sharded ? stages : 1) * k->scratch;    // a stream each; or one
}

/* What the parts of a trainer say of themselves, to the byte, and what it is that the
 * schedule keeps under way. */
dls_status dls_predict_exactly(const dls_step_costs *k, int rank,
                               size_t bytes[DLS_MEM_PURPOSES])
{
    size_t mine[DLS_MEM_PURPOSES];
    int at[DLS_AXES] = {0};
    at[DLS_AXIS_PP] = rank;
    dls_predict_memory(k, rank, mine);
    DLS_TRY(dls_train_predict_memory(k->c, dls_mesh_rank(&k->mesh, at),
                                     dls_mesh_world(&k->mesh), bytes));
    if (k->c->pipeline.schedule)
        memcpy(bytes, mine, sizeof mine);
    return DLS_OK;
}

size_t dls_predict_most(const dls_step_costs *k, size_t bytes[DLS_MEM_PURPOSES])
{
    size_t most = 0, sum, now[DLS_MEM_PURPOSES];
    for (int r = 0; r < k->schedule.options.ranks; r++) {
        dls_predict_memory(k, r, now);
        sum = 0;
        for (int p = 0; p < DLS_MEM_PURPOSES; p++)
            sum += now[p];
        if (sum > most)
            memcpy(bytes, now, sizeof now);
        most = sum > most ? sum : most;
    }
    return most;
}

/* code/parallel/pipeline/lower.c: from chapters/05-pipeline-evaluate-lower.md. Edit the chapter, or edit here and run "make untangle". */
/* The passes that look at one rank at a time, and all passes one behind the other. */
#include "parallel/pipeline/lower.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/walk.h"

/* lower the updates */
/* copy an action */
static dls_status copy(const dls_action *a, dls_actions *out)
{
    DLS_TRY(dls_actions_add(out, (dls_action_kind)a->kind, a->stage, a->microbatch));
    out->list[out->n - 1].paired = a->paired;
    return DLS_OK;
}

/* open a schedule like it */
/* An empty schedule like this one. */
static dls_status begin(const dls_schedule *in, dls_schedule *out)
{
    DLS_TRY(dls_schedule_empty(&in->options, in->placement, out));
    out->step_every = in->step_every;
    out->backward = in->backward;
    return DLS_OK;
}

/* pass over each rank */
typedef dls_status rank_pass(const dls_schedule *in, int rank, int most,
                             dls_actions *out);

static dls_status each_rank(const dls_schedule *in, rank_pass *pass, int most,
                            dls_schedule *out)
{
    dls_status status = begin(in, out);
    for (int r = 0; status == DLS_OK && r < in->options.ranks; r++)
        status = pass(in, r, most, &out->order[r]);
    if (status != DLS_OK)
        dls_schedule_free(out);
    return status;
}

/* put in the updates */
static int makes_gradient(const dls_action *a)
{
    return a->kind == DLS_DO_W || a->kind == DLS_DO_B;
}

/* count the gradients */
/* How many gradients each stage has on this rank: left[stages]. */
static void count_gradients(const dls_actions *order, int *left)
{
    for (size_t i = 0; i < order->n; i++)
        left[order->list[i].stage] += makes_gradient(&order->list[i]);
}

/* close a step */
static dls_status close_step(const dls_schedule *in, int stage, int done, int left,
                             dls_actions *out)
{
    int every = in->step_every;
    if (left && !(every && done % every == 0))
        return DLS_OK;
    DLS_TRY(dls_actions_add(out, DLS_DO_REDUCE, stage, -1));
    return every ? dls_actions_add(out, DLS_DO_STEP, stage, -1) : DLS_OK;
}

/* update a rank */
static dls_status update_rank(const dls_schedule *in, int rank, int most,
                              dls_actions *out)
{
    const dls_actions *order = &in->order[rank];
    dls_status status = DLS_OK;
    int *left = calloc(2 * (size_t)in->stages, sizeof *left), *done = left + in->stages;
    if (!left)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", in->stages);
    count_gradients(order, left);
    for (size_t i = 0, n; status == DLS_OK && i < order->n; i += n) {
        n = dls_actions_unit(order, i);
        for (size_t k = i; status == DLS_OK && k < i + n; k++)
            status = copy(&order->list[k], out);
        for (size_t k = i; status == DLS_OK && k < i + n; k++) {
            int stage = order->list[k].stage;
            if (makes_gradient(&order->list[k]))
                status = close_step(in, stage, ++done[stage], --left[stage], out);
        }
    }
    for (int s = 0; status == DLS_OK && !in->step_every && s < in->stages; s++)
        if (done[s])
            status = dls_actions_add(out, DLS_DO_STEP, s, -1);
    free(left);
    (void)most;
    return status;
}

/* update all ranks */
dls_status dls_lower_updates(const dls_schedule *in, dls_schedule *out)
{
    return each_rank(in, update_rank, 0, out);
}

/* lower the shards */
/* find the next stages */
/* Going backwards through a rank's list, the stages in the order of their next use. */
typedef struct ahead { int16_t *next; int n, most; } ahead;

/* ask for the next stages */
static int uses(const dls_action *a)
{
    return dls_action_computes(a) || a->kind == DLS_DO_REDUCE;
}

static int is_among(const ahead *a, int stage)
{
    for (int i = 0; i < a->n && i < a->most; i++)
        if (a->next[i] == stage)
            return 1;
    return 0;
}

/* move a stage to the front */
/* The stage of a use moves to the front; the others keep their order. */
static void use(ahead *a, int stage)
{
    int at = 0;
    while (at < a->n && a->next[at] != stage)
        at++;
    a->n += at == a->n;
    memmove(a->next + 1, a->next, (size_t)at * sizeof *a->next);
    a->next[0] = (int16_t)stage;
}

/* put in the shards */
/* Between two uses: what is gathered after but not before (UNSHARD), and the other way
 * (RESHARD). Written backwards: the list is turned round at the end. */
static dls_status change(const ahead *before, const ahead *after, dls_actions *out)
{
    for (int i = after->n < after->most ? after->n : after->most; i-- > 0;)
        if (!is_among(before, after->next[i]))
            DLS_TRY(dls_actions_add(out, DLS_DO_UNSHARD, after->next[i], -1));
    for (int i = before->n < before->most ? before->n : before->most; i-- > 0;)
        if (!is_among(after, before->next[i]))
            DLS_TRY(dls_actions_add(out, DLS_DO_RESHARD, before->next[i], -1));
    return DLS_OK;
}

/* turn a list round */
static void turn_round(dls_actions *a)
{
    for (size_t i = 0; i < a->n / 2; i++) {
        dls_action other = a->list[i];
        a->list[i] = a->list[a->n - 1 - i];
        a->list[a->n - 1 - i] = other;
    }
}

/* find the unit before */
static size_t unit_before(const dls_actions *order, size_t end)
{
    size_t start = end - 1;
    while (start && order->list[start - 1].paired)
        start--;
    return start;
}

/* shard backwards */
static dls_status shard_backwards(const dls_actions *order, ahead *now, ahead *after,
                                  dls_actions *out)
{
    for (size_t end = order->n, start; end; end = start) {
        start = unit_before(order, end);
        memcpy(after->next, now->next, (size_t)now->n * sizeof *now->next);
        after->n = now->n;
        for (size_t k = end; k-- > start;)
            if (uses(&order->list[k]))
                use(now, order->list[k].stage);
        DLS_TRY(change(now, after, out));
        for (size_t k = end; k-- > start;)
            DLS_TRY(copy(&order->list[k], out));
    }
    after->n = 0;
    return change(after, now, out);
}

/* shard a rank */
static dls_status shard_rank(const dls_schedule *in, int rank, int most,
                             dls_actions *out)
{
    const dls_actions *order = &in->order[rank];
    size_t room = (size_t)in->stages;
    for (size_t i = 0; i < order->n; i++)
        if (order->list[i].paired && most < 2)
            most = 2;  // a pair needs both of its stages
    int16_t *next = malloc(2 * room * sizeof *next);
    if (!next)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", in->stages);
    ahead now = {next, 0, most}, after = {next + room, 0, most};
    dls_status status = shard_backwards(order, &now, &after, out);
    free(next);
    turn_round(out);
    return status;
}

/* shard all ranks */
dls_status dls_lower_shards(const dls_schedule *in, int most, dls_schedule *out)
{
    *out = (dls_schedule){0};
    if (most < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "gathered stages: expected 1 or more, got %d",
                        most);
    return each_rank(in, shard_rank, most, out);
}

/* count the gathered stages */
int dls_schedule_gathered(const dls_schedule *s, int rank)
{
    int now = 0, most = 0;
    for (size_t i = 0; i < s->order[rank].n; i++) {
        int kind = s->order[rank].list[i].kind;
        now += (kind == DLS_DO_UNSHARD) - (kind == DLS_DO_RESHARD);
        most = now > most ? now : most;
    }
    return most;
}

/* lower the batches */
/* put in the batches */
/* The rank at the other end of a message, or -1 for anything else. */
static int peer(const dls_schedule *s, const dls_action *a)
{
    static const int8_t far[DLS_DO_KINDS] = {[DLS_DO_SEND_F] = 1, [DLS_DO_RECV_F] = -1,
                                             [DLS_DO_SEND_B] = -1, [DLS_DO_RECV_B] = 1};
    int stage = a->stage + far[a->kind];
    return far[a->kind] && stage >= 0 && stage < s->stages
        ? dls_schedule_rank(s, stage, a->microbatch) : -1;
}

/* batch a rank */
static dls_status batch_rank(const dls_schedule *in, int rank, int most,
                             dls_actions *out)
{
    const dls_actions *order = &in->order[rank];
    for (size_t i = 0; i < order->n; i++) {
        int with = peer(in, &order->list[i]);
        DLS_TRY(copy(&order->list[i], out));
        if (with >= 0 && i + 1 < order->n && peer(in, &order->list[i + 1]) == with)
            dls_actions_pair(out);
    }
    (void)most;
    return DLS_OK;
}

/* batch all ranks */
dls_status dls_lower_batches(const dls_schedule *in, dls_schedule *out)
{
    return each_rank(in, batch_rank, 0, out);
}

/* lower a schedule */
/* Replaces *s by what the pass made of it. */
static dls_status replace(dls_schedule *s, dls_status status, dls_schedule *made)
{
    dls_schedule_free(s);
    *s = *made;
    return status;
}

/* run all passes */
dls_status dls_lower(const dls_schedule *in, int most, dls_schedule *out)
{
    dls_schedule made;
    dls_status status = dls_lower_updates(in, out);
    if (status == DLS_OK && most > 0)
        status = replace(out, dls_lower_shards(out, most, &made), &made);
    if (status == DLS_OK)
        status = replace(out, dls_lower_messages(out, &made), &made);
    if (status == DLS_OK)
        status = replace(out, dls_lower_batches(out, &made), &made);
    return status;
}

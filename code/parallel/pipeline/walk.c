/* code/parallel/pipeline/walk.c: from chapters/05-pipeline-evaluate.md. Edit the chapter, or edit here and run "make untangle". */
/* The walk: a queue of ranks that may be able to go on. */
#include "parallel/pipeline/walk.h"

#include <stdlib.h>

/* name a pass */
size_t dls_pass_index(const dls_schedule *s, int pass, int stage, int microbatch)
{
    size_t batches = (size_t)s->options.microbatches;
    return ((size_t)pass * (size_t)s->stages + (size_t)stage) * batches
        + (size_t)microbatch;
}

/* say which pass it is */
static int pass_of(int kind)
{
    return kind == DLS_DO_F ? DLS_PASS_F : kind == DLS_DO_W ? DLS_PASS_W : DLS_PASS_I;
}

/* say what an action needs */
int dls_action_needs(const dls_schedule *s, const dls_action *a, dls_action needs[2])
{
    int n = 0;
    if (a->kind == DLS_DO_F && a->stage > 0)
        needs[n++] = (dls_action){DLS_DO_F, 0, (int16_t)(a->stage - 1), a->microbatch};
    if (a->kind == DLS_DO_I || a->kind == DLS_DO_B)
        needs[n++] = (dls_action){DLS_DO_F, 0, a->stage, a->microbatch};
    if (n == 1 && a->kind != DLS_DO_F && a->stage + 1 < s->stages)
        needs[n++] = (dls_action){DLS_DO_I, 0, (int16_t)(a->stage + 1), a->microbatch};
    if (a->kind == DLS_DO_W)
        needs[n++] = (dls_action){DLS_DO_I, 0, a->stage, a->microbatch};
    return n;
}

/* say whom an action feeds */
int dls_action_feeds(const dls_schedule *s, const dls_action *a)
{
    int backward = a->kind == DLS_DO_I || a->kind == DLS_DO_B;
    int to = a->kind == DLS_DO_F ? a->stage + 1 : backward ? a->stage - 1 : -1;
    return to < 0 || to >= s->stages ? -1 : dls_schedule_rank(s, to, a->microbatch);
}

/* find the end of a unit */
size_t dls_actions_unit(const dls_actions *a, size_t at)
{
    size_t n = 1;
    while (a->list[at + n - 1].paired && at + n < a->n)
        n++;
    return n;
}

size_t dls_unit_ahead(const dls_schedule *s, const dls_unit *u, size_t i)
{
    const dls_action *list = s->order[u->rank].list + u->first;
    int to = dls_action_feeds(s, &list[i]);
    size_t n = 0;
    for (size_t k = 0; k < i; k++)
        n += to >= 0 && to != u->rank && dls_action_feeds(s, &list[k]) == to;
    return n;
}

/* refuse fields out of range */
static dls_status refuse_ranges(const dls_schedule *s)
{
    char text[DLS_ACTION_TEXT];
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            const dls_action *a = &s->order[r].list[i];
            int whole = a->kind >= DLS_DO_UNSHARD;
            if (a->kind < DLS_DO_KINDS && a->stage >= 0 && a->stage < s->stages &&
                (whole || (a->microbatch >= 0 &&
                           a->microbatch < s->options.microbatches)))
                continue;
            if (a->kind >= DLS_DO_KINDS || a->stage < 0 || a->microbatch < -1)
                return DLS_FAIL(DLS_ERR_INPUT, "rank %d: action %zu is none", r, i);
            dls_action_text(a, text);
            return DLS_FAIL(DLS_ERR_INPUT, "rank %d: %s: expected a stage below %d and a "
                            "micro-batch below %d", r, text, s->stages,
                            s->options.microbatches);
        }
    return DLS_OK;
}

/* open a walk */
dls_status dls_walk_open(const dls_schedule *s, dls_walk *w)
{
    size_t ranks = (size_t)s->options.ranks;
    *w = (dls_walk){.s = s, .count = s->options.ranks};
    DLS_TRY(refuse_ranges(s));
    w->at = calloc(ranks, sizeof *w->at);
    w->done = calloc(dls_pass_index(s, DLS_PASSES, 0, 0), 1);
    w->queue = calloc(ranks, sizeof *w->queue);
    w->queued = calloc(ranks, 1);
    if (!w->at || !w->done || !w->queue || !w->queued) {
        dls_walk_close(w);
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to walk through %d stages", s->stages);
    }
    for (int r = 0; r < s->options.ranks; r++) {
        w->queue[r] = r;
        w->queued[r] = 1;
    }
    return DLS_OK;
}

/* close a walk */
void dls_walk_close(dls_walk *w)
{
    free(w->at);
    free(w->done);
    free(w->queue);
    free(w->queued);
    *w = (dls_walk){0};
}

/* find what blocks a rank */
int dls_walk_blocked(const dls_walk *w, int rank, dls_action *waits, dls_action *for_it)
{
    const dls_actions *order = &w->s->order[rank];
    dls_action needs[2];
    if (w->at[rank] == order->n)
        return 0;
    size_t n = dls_actions_unit(order, w->at[rank]);
    for (size_t i = 0; i < n; i++) {
        *waits = order->list[w->at[rank] + i];
        int count = dls_action_needs(w->s, waits, needs);
        for (int k = 0; k < count; k++) {
            *for_it = needs[k];
            if (!w->done[dls_pass_index(w->s, pass_of(needs[k].kind), needs[k].stage,
                                        needs[k].microbatch)])
                return 1;
        }
    }
    return 0;
}

/* find a stuck rank */
int dls_walk_stuck(const dls_walk *w)
{
    for (int r = 0; r < w->s->options.ranks; r++)
        if (w->at[r] < w->s->order[r].n)
            return r;
    return -1;
}

/* take the next unit */
static void finish(dls_walk *w, const dls_action *a)
{
    int next = dls_action_feeds(w->s, a), ranks = w->s->options.ranks;
    if (!dls_action_computes(a))
        return;
    w->done[dls_pass_index(w->s, pass_of(a->kind), a->stage, a->microbatch)] = 1;
    if (next < 0 || w->queued[next])
        return;
    w->queued[next] = 1;
    w->queue[(w->head + w->count++) % ranks] = next;
}

/* go on with the walk */
int dls_walk_next(dls_walk *w, dls_unit *unit)
{
    dls_action waits, for_it;
    while (w->count) {
        int rank = w->queue[w->head];
        const dls_actions *order = &w->s->order[rank];
        if (w->at[rank] < order->n && !dls_walk_blocked(w, rank, &waits, &for_it)) {
            *unit = (dls_unit){rank, w->at[rank], dls_actions_unit(order, w->at[rank])};
            w->at[rank] += unit->count;
            for (size_t i = 0; i < unit->count; i++)
                finish(w, &order->list[unit->first + i]);
            return 1;
        }
        w->queued[rank] = 0;
        w->head = (w->head + 1) % w->s->options.ranks;
        w->count--;
    }
    return 0;
}

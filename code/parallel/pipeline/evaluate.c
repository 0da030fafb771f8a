/* code/parallel/pipeline/evaluate.c: from chapters/05-pipeline-evaluate.md. Edit the chapter, or edit here and run "make untangle". */
/* The evaluator: one walk, a clock per rank, a table of arrivals. */
#include "parallel/pipeline/evaluate.h"

#include <limits.h>
#include <stdlib.h>

#include "parallel/pipeline/walk.h"

/* time an action */
int64_t dls_action_ticks(const dls_schedule *s, const dls_action *a)
{
    const dls_pipeline_costs *c = &s->options.cost;
    const int64_t same[3] = {c->F, c->I, c->W};
    const int64_t *t = c->of_stage ? c->of_stage + 3 * a->stage : same;
    switch (a->kind) {
    case DLS_DO_F: return t[0];
    case DLS_DO_I: return t[1];
    case DLS_DO_W: return t[2];
    case DLS_DO_B: return c->of_B ? c->of_B[a->stage] : t[1] + t[2];
    default: return 0;
    }
}

/* time a unit */
static int64_t unit_ticks(const dls_schedule *s, const dls_action *list, size_t count)
{
    const dls_pipeline_costs *c = &s->options.cost;
    int64_t sum = 0;
    if (count == 2 && c->of_pair && list->kind == DLS_DO_F)
        return c->of_pair[list->stage * s->stages + list[1].stage];
    if (count == 2 && c->overlapped && dls_action_computes(list))
        return c->overlapped;
    for (size_t i = 0; i < count; i++)
        sum += dls_action_ticks(s, &list[i]);
    return sum;
}

/* refuse costs that do not fit */
static dls_status check_cost(const char *what, int64_t value, int64_t most)
{
    if (value >= 0 && value <= most)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: expected 0 to %lld ticks for this many actions, "
                    "got %lld", what, (long long)most, (long long)value);
}

/* refuse costs one by one */
static dls_status check_costs(const dls_schedule *s)
{
    const dls_pipeline_costs *c = &s->options.cost;
    size_t actions = 1;
    for (int r = 0; r < s->options.ranks; r++)
        actions += s->order[r].n;
    int64_t most = INT64_MAX / 8 / (int64_t)actions;
    DLS_TRY(check_cost("cost of F", c->F, most));
    DLS_TRY(check_cost("cost of I", c->I, most));
    DLS_TRY(check_cost("cost of W", c->W, most));
    DLS_TRY(check_cost("cost of a hop", c->hop, most));
    DLS_TRY(check_cost("cost of the wire", c->wire, most));
    DLS_TRY(check_cost("cost of an overlapped pair", c->overlapped, most));
    for (int i = 0; c->of_stage && i < 3 * s->stages; i++)
        DLS_TRY(check_cost("cost of a stage", c->of_stage[i], most));
    for (int i = 0; c->of_B && i < s->stages; i++)
        DLS_TRY(check_cost("cost of B of a stage", c->of_B[i], most));
    for (int i = 0; c->of_pair && i < s->stages * s->stages; i++)
        DLS_TRY(check_cost("cost of a pair", c->of_pair[i], most));
    DLS_TRY(check_cost("memory of a forward", s->options.memory.hold, most));
    return check_cost("memory kept until W", s->options.memory.keep,
                      s->options.memory.hold);
}

/* make room for an evaluation */
dls_status dls_evaluation_empty(const dls_schedule *s, dls_evaluation *out)
{
    size_t ranks = (size_t)s->options.ranks, actions = 0;
    for (size_t r = 0; r < ranks; r++)
        actions += s->order[r].n;
    *out = (dls_evaluation){.ranks = s->options.ranks};
    out->busy = calloc(2 * ranks, sizeof *out->busy);
    out->start = calloc(2 * ranks, sizeof *out->start);
    int64_t *times = calloc(2 * actions + 1, sizeof *times);
    if (!out->busy || !out->start || !times) {
        free(times);
        dls_evaluation_free(out);
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to time %zu actions", actions);
    }
    out->peak = out->busy + ranks;
    out->end = out->start + ranks;
    for (size_t r = 0; r < ranks; times += s->order[r++].n) {
        out->start[r] = times;
        out->end[r] = times + actions;
    }
    return DLS_OK;
}

/* free an evaluation */
void dls_evaluation_free(dls_evaluation *e)
{
    if (e->start)
        free(e->start[0]);
    free(e->start);
    free(e->busy);
    *e = (dls_evaluation){0};
}

/* sum up an evaluation */
void dls_evaluation_sum(const dls_schedule *s, dls_evaluation *e)
{
    e->makespan = e->span = 0;
    for (int r = 0; r < e->ranks; r++) {
        const dls_actions *order = &s->order[r];
        int64_t first = -1, last = 0;
        e->busy[r] = 0;
        for (size_t i = 0; i < order->n; i += dls_actions_unit(order, i)) {
            if (!dls_action_computes(&order->list[i]))
                continue;
            first = first < 0 ? e->start[r][i] : first;
            last = e->end[r][i];
            e->busy[r] += last - e->start[r][i];
        }
        if (first < 0)
            continue;
        e->makespan = last > e->makespan ? last : e->makespan;
        e->span = last - first > e->span ? last - first : e->span;
    }
}

/* start a unit */
typedef struct clocks { int64_t *left, *free_at; } clocks;

/* Where the result of a pass is noted; nobody waits for W. */
static size_t slot(const dls_schedule *s, const dls_action *a)
{
    return dls_pass_index(s, a->kind == DLS_DO_F ? DLS_PASS_F : DLS_PASS_I, a->stage,
                          a->microbatch);
}

/* find the earliest start */
/* The earliest start of an action, and of its rank. */
static int64_t earliest(const dls_schedule *s, const clocks *c, int rank,
                        const dls_action *a)
{
    dls_action needs[2];
    int64_t start = c->free_at[rank];
    for (int k = dls_action_needs(s, a, needs); k-- > 0;) {
        int from = dls_schedule_rank(s, needs[k].stage, needs[k].microbatch);
        int64_t there = c->left[slot(s, &needs[k])] + s->options.cost.hop;
        start = from != rank && there > start ? there : start;
    }
    return start;
}

/* run a unit */
static void run_unit(const dls_schedule *s, dls_evaluation *e, clocks *c,
                     const dls_unit *u)
{
    const dls_action *list = s->order[u->rank].list + u->first;
    int64_t start = c->free_at[u->rank], sends = 0;
    for (size_t i = 0; i < u->count; i++) {
        int64_t at = earliest(s, c, u->rank, &list[i]);
        start = at > start ? at : start;
    }
    int64_t end = start + unit_ticks(s, list, u->count);
    for (size_t i = 0; i < u->count; i++) {
        int to = dls_action_feeds(s, &list[i]);
        int64_t ahead = (int64_t)dls_unit_ahead(s, u, i);
        sends += to >= 0 && to != u->rank;
        e->start[u->rank][u->first + i] = start;
        e->end[u->rank][u->first + i] = end;
        if (dls_action_computes(&list[i]) && list[i].kind != DLS_DO_W)
            c->left[slot(s, &list[i])] = end + ahead * s->options.cost.wire;
    }
    c->free_at[u->rank] = end + (s->options.cost.sends_occupy ? sends : 0)
        * s->options.cost.hop;
}

/* count what is held */
int64_t dls_action_takes(const dls_pipeline_memory *m, const dls_action *a)
{
    return a->kind == DLS_DO_F ? m->hold : 0;
}

/* say what an action frees */
int64_t dls_action_frees(const dls_pipeline_memory *m, const dls_action *a)
{
    return a->kind == DLS_DO_B ? m->hold : a->kind == DLS_DO_I ? m->hold - m->keep
         : a->kind == DLS_DO_W ? m->keep : 0;
}

/* find the peak */
static int64_t find_peak(const dls_actions *order, const dls_pipeline_memory *m)
{
    int64_t held = 0, peak = 0;
    for (size_t i = 0, n; i < order->n; i += n) {
        n = dls_actions_unit(order, i);
        for (size_t k = 0; k < n; k++)
            held += dls_action_takes(m, &order->list[i + k]);
        peak = held > peak ? held : peak;
        for (size_t k = 0; k < n; k++)
            held -= dls_action_frees(m, &order->list[i + k]);
    }
    return peak;
}

/* evaluate a schedule */
static dls_status run_all(const dls_schedule *s, dls_evaluation *e, clocks *c,
                          dls_walk *w)
{
    dls_unit unit;
    dls_action waits, for_it;
    char a[DLS_ACTION_TEXT], b[DLS_ACTION_TEXT];
    while (dls_walk_next(w, &unit))
        run_unit(s, e, c, &unit);
    int rank = dls_walk_stuck(w);
    if (rank < 0)
        return DLS_OK;
    dls_walk_blocked(w, rank, &waits, &for_it);
    dls_action_text(&waits, a);
    dls_action_text(&for_it, b);
    return DLS_FAIL(DLS_ERR_INPUT, "rank %d never gets past %s, which waits for %s", rank,
                    a, b);
}

/* add up the work */
/* The work of a rank without overlap. */
static int64_t work(const dls_schedule *s, int rank)
{
    int64_t sum = 0;
    for (size_t i = 0; i < s->order[rank].n; i++)
        sum += dls_action_ticks(s, &s->order[rank].list[i]);
    return sum;
}

/* evaluate it */
dls_status dls_evaluate(const dls_schedule *s, dls_evaluation *out)
{
    dls_walk walk = {0};
    clocks c = {0};
    *out = (dls_evaluation){0};
    DLS_TRY(check_costs(s));
    dls_status status = dls_evaluation_empty(s, out);
    c.left = calloc(dls_pass_index(s, DLS_PASS_W, 0, 0), sizeof *c.left);
    c.free_at = calloc((size_t)s->options.ranks, sizeof *c.free_at);
    if (status == DLS_OK && (!c.left || !c.free_at))
        status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", s->stages);
    if (status == DLS_OK)
        status = dls_walk_open(s, &walk);
    if (status == DLS_OK)
        status = run_all(s, out, &c, &walk);
    for (int r = 0; status == DLS_OK && r < out->ranks; r++) {
        out->peak[r] = find_peak(&s->order[r], &s->options.memory);
        int64_t sum = work(s, r);
        out->ideal = sum > out->ideal ? sum : out->ideal;
    }
    if (status == DLS_OK)
        dls_evaluation_sum(s, out);
    dls_walk_close(&walk);
    free(c.left);
    free(c.free_at);
    if (status != DLS_OK)
        dls_evaluation_free(out);
    return status;
}

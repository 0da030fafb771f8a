/* code/parallel/pipeline/schedule_auto.c: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* The automatic scheduler: a warm-up as deep as memory allows, then F and I in turn, and
 * W wherever a rank would wait. Eight variants are tried; the shortest span is kept.
 * Qi and others 2024, "Zero Bubble Pipeline Parallelism", section 3.1.
 */
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/auto.h"
#include "parallel/pipeline/schedules.h"

/* fill a gap with w */
/* W until the input of the next pass arrives. The last one may be too long for the gap;
 * it goes in if waiting would make this rank the one that waited longest. */
static dls_status fill(dls_auto *a, int rank, int64_t arrival)
{
    const dls_auto_rank *r = &a->rank[rank];
    int64_t W = dls_auto_ticks(a, rank, DLS_DO_W);
    while (dls_auto_pending(a, rank) && r->free_at + W <= arrival)
        DLS_TRY(dls_auto_place(a, rank, DLS_DO_W));
    if (!dls_auto_pending(a, rank) || r->free_at >= arrival)
        return DLS_OK;
    if (a->greedy_w || r->idle + arrival - r->free_at > dls_auto_idle(a))
        return dls_auto_place(a, rank, DLS_DO_W);
    return DLS_OK;
}

/* make room with w */
static dls_status make_room(dls_auto *a, int rank)
{
    while (a->rank[rank].held + a->o->memory.hold > a->limit) {
        if (!dls_auto_pending(a, rank))
            return DLS_FAIL(DLS_ERR_INPUT, "%s: rank %d can not hold another forward: "
                            "expected a limit of at least one stage activation",
                            a->o->name, rank);
        DLS_TRY(dls_auto_place(a, rank, DLS_DO_W));
    }
    return DLS_OK;
}

/* decide on a forward */
/* Whether this rank does another forward before its next I. The next rank must not run
 * dry; where it has two in hand, a forward that would keep its gradient waiting may be
 * left out. */
static int does_forward(const dls_auto *a, int rank)
{
    const dls_auto_rank *r = &a->rank[rank], *next = r + 1;
    if (r->n[DLS_DO_F] == a->o->microbatches)
        return 0;
    if (rank == a->o->ranks - 1 || r->n[DLS_DO_F] < next->n[DLS_DO_F] + 2 ||
        !a->skip_forwards)
        return 1;
    int64_t gradient = next->free_at + dls_auto_ticks(a, rank + 1, DLS_DO_F) +
                       dls_auto_ticks(a, rank + 1, DLS_DO_I) + a->o->cost.hop;
    int64_t busy = dls_auto_ticks(a, rank, DLS_DO_F), held = r->held;
    for (int i = dls_auto_pending(a, rank); i > 0; i--, held -= a->o->memory.keep)
        if (held + a->o->memory.hold > a->limit)
            busy += dls_auto_ticks(a, rank, DLS_DO_W);
    if (r->free_at >= gradient)
        return 0;
    return r->free_at + busy <= gradient ||
           r->idle + gradient - r->free_at > dls_auto_idle(a);
}

/* decide for all ranks */
/* does[r]: also that every rank stays a forward ahead of the next one. */
static void decide(const dls_auto *a, uint8_t *does)
{
    int p = a->o->ranks;
    for (int r = 0; r < p; r++)
        does[r] = (uint8_t)does_forward(a, r);
    for (int r = p - 2; r >= 0; r--)
        does[r] = does[r] && does[r + 1];
}

/* plan a round */
static dls_status plan_round(dls_auto *a, const uint8_t *does)
{
    int p = a->o->ranks;
    for (int r = 0; r < p; r++) {
        if (!does[r])
            continue;
        DLS_TRY(make_room(a, r));
        DLS_TRY(fill(a, r, dls_auto_arrival(a, r, DLS_DO_F)));
        DLS_TRY(dls_auto_place(a, r, DLS_DO_F));
    }
    for (int r = p - 1; r >= 0; r--) {
        DLS_TRY(fill(a, r, dls_auto_arrival(a, r, DLS_DO_I)));
        DLS_TRY(dls_auto_place(a, r, DLS_DO_I));
    }
    return DLS_OK;
}

/* plan one variant */
static dls_status plan(dls_auto *a, uint8_t *does, int64_t *span)
{
    int p = a->o->ranks;
    memset(a->rank, 0, (size_t)p * sizeof *a->rank);
    for (int r = 0; r < p; r++)
        a->order[r].n = 0;
    DLS_TRY(dls_auto_warm_up(a));
    for (int i = 1; i < a->o->microbatches; i++) {
        decide(a, does);
        DLS_TRY(plan_round(a, does));
    }
    *span = 0;
    for (int r = 0; r < p; r++) {
        while (dls_auto_pending(a, r))
            DLS_TRY(dls_auto_place(a, r, DLS_DO_W));
        int64_t own = a->rank[r].free_at - a->rank[r].first;
        *span = own > *span ? own : *span;
    }
    return DLS_OK;
}

/* keep the best variant */
static dls_status choose(dls_auto *a, uint8_t *does, int64_t *span)
{
    int64_t best_span = INT64_MAX;
    int best = 0;
    for (int i = 0; i <= 8; i++) {
        int variant = i < 8 ? i : best;
        a->greedy_warm_up = variant & 1;
        a->skip_forwards = variant >> 1 & 1;
        a->greedy_w = variant >> 2;
        DLS_TRY(plan(a, does, span));
        if (*span < best_span) {
            best_span = *span;
            best = variant;
        }
    }
    return DLS_OK;
}

dls_status dls_auto_make(const dls_schedule_options *o, dls_actions *out, int64_t *span)
{
    size_t p = (size_t)o->ranks, cells = 2 * p * (size_t)o->microbatches;
    dls_auto a = {.o = o, .order = out, .limit = o->limit};
    if (!a.limit)
        a.limit = 2 * o->ranks * o->memory.hold;
    a.rank = calloc(p, sizeof *a.rank);
    a.end = calloc(cells, sizeof *a.end);
    uint8_t *does = calloc(p, sizeof *does);
    dls_status status = a.rank && a.end && does ? choose(&a, does, span)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d ranks", o->ranks);
    free(a.rank);
    free(a.end);
    free(does);
    return status;
}

dls_status dls_schedule_auto(const dls_schedule_options *o, dls_actions *out)
{
    int64_t span;
    return dls_auto_make(o, out, &span);
}

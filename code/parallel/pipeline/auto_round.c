/* code/parallel/pipeline/auto_round.c: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* A round of the automatic scheduler: an F and an I per rank, W where it would wait. */
#include "parallel/pipeline/auto.h"

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
dls_status dls_auto_round(dls_auto *a, uint8_t *does)
{
    int p = a->o->ranks;
    decide(a, does);
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

/* code/parallel/pipeline/search.c: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Branch and bound over the orders of a zero bubble schedule.
 * Giffler and Thompson 1960 for the branching.
 */
#include "parallel/pipeline/search.h"

#include <string.h>

/* say what can be placed */
/* The earliest start of the rank's next pass of a kind, or -1 if it can not be yet. */
static int64_t start_of(const dls_search *s, int rank, dls_action_kind kind)
{
    const dls_auto *a = &s->now;
    const dls_auto_rank *k = &a->rank[rank];
    int p = a->o->ranks, i = k->n[kind];
    if (i == a->o->microbatches)
        return -1;
    if (kind == DLS_DO_F && ((rank > 0 && k[-1].n[DLS_DO_F] <= i) ||
                             k->held + a->o->memory.hold > a->limit))
        return -1;
    if (kind == DLS_DO_I && (k->n[DLS_DO_F] <= i ||
                             (rank < p - 1 && k[1].n[DLS_DO_I] <= i)))
        return -1;
    if (kind == DLS_DO_W && k->n[DLS_DO_I] <= i)
        return -1;
    int64_t arrival = dls_auto_arrival(a, rank, kind);
    return arrival > k->free_at ? arrival : k->free_at;
}

/* find the first to end */
/* The rank whose next pass could end first, and when; -1 if none can be placed. */
static int first_to_end(const dls_search *s, int64_t *end)
{
    int rank = -1;
    for (int r = 0; r < s->now.o->ranks; r++)
        for (int kind = DLS_DO_F; kind <= DLS_DO_W; kind++) {
            int64_t start = start_of(s, r, (dls_action_kind)kind);
            int64_t ends = start + dls_auto_ticks(&s->now, r, (dls_action_kind)kind);
            if (start >= 0 && (rank < 0 || ends < *end)) {
                rank = r;
                *end = ends;
            }
        }
    return rank;
}

/* take a pass back */
static dls_status branch(dls_search *s);

/* Places one pass, goes on from there, and takes it back. */
static dls_status try_pass(dls_search *s, int rank, dls_action_kind kind)
{
    dls_auto_rank before = s->now.rank[rank];
    DLS_TRY(dls_auto_place(&s->now, rank, kind));
    s->path_rank[s->placed] = (uint8_t)rank;
    s->path_kind[s->placed++] = (uint8_t)kind;
    dls_status status = branch(s);
    s->placed--;
    s->now.order[rank].n--;
    s->now.rank[rank] = before;
    return status;
}

/* branch */
static dls_status branch(dls_search *s)
{
    static const dls_action_kind tries[] = {DLS_DO_I, DLS_DO_F, DLS_DO_W};
    int64_t bound = dls_search_bound(s), end = 0;
    if (bound >= s->best || dls_search_met(s))
        return DLS_OK;
    if (s->placed == s->passes) {
        s->best = bound;
        memcpy(s->best_rank, s->path_rank, (size_t)s->passes);
        memcpy(s->best_kind, s->path_kind, (size_t)s->passes);
        return DLS_OK;
    }
    if (++s->nodes > s->most_nodes)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %lld steps did not prove a schedule best: "
                        "expected a smaller case", s->now.o->name,
                        (long long)s->most_nodes);
    int rank = first_to_end(s, &end);
    for (int t = 0; rank >= 0 && t < 3; t++) {
        int64_t start = start_of(s, rank, tries[t]);
        if (start >= 0 && (start < end ||
                           start + dls_auto_ticks(&s->now, rank, tries[t]) == end))
            DLS_TRY(try_pass(s, rank, tries[t]));
    }
    return DLS_OK;
}

/* run a search */
dls_status dls_search_run(dls_search *s)
{
    return branch(s);
}

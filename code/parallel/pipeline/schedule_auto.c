/* code/parallel/pipeline/schedule_auto.c: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* The automatic scheduler: a warm-up as deep as memory allows, then F and I in turn, and
 * W wherever a rank would wait. Eight variants are tried; the shortest span is kept.
 * Qi and others 2024, "Zero Bubble Pipeline Parallelism", section 3.1.
 */
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/auto.h"
#include "parallel/pipeline/schedules.h"

/* plan one variant */
static dls_status plan(dls_auto *a, uint8_t *does, int64_t *span)
{
    int p = a->o->ranks;
    memset(a->rank, 0, (size_t)p * sizeof *a->rank);
    for (int r = 0; r < p; r++)
        a->order[r].n = 0;
    DLS_TRY(dls_auto_warm_up(a));
    for (int i = 1; i < a->o->microbatches; i++)
        DLS_TRY(dls_auto_round(a, does));
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

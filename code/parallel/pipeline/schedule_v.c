/* code/parallel/pipeline/schedule_v.c: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* V-Half and V-Min, and with a limit every V schedule between: the building blocks that
 * hold what the limit allows are run, and the one with the shortest span is kept.
 * Qi and others 2024, "Pipeline Parallelism with Controllable Memory".
 */
#include <limits.h>
#include <stdlib.h>

#include "parallel/pipeline/schedules.h"
#include "parallel/pipeline/v_fill.h"

/* try a block */
typedef struct choice { dls_v_shape shape; int w_last, f1_first, span; } choice;

/* Runs the laid block in its four ways; keeps what is shorter. */
static dls_status try_block(dls_v_fill *v, const dls_v_shape *shape, choice *best)
{
    dls_status status = DLS_OK;
    for (int way = 0; way < 4 && status == DLS_OK; way++) {
        v->w_last = way & 1;
        v->f1_first = way >> 1;
        v->bound = best->span;
        int span = dls_v_fill_run(v, &status);
        if (span >= 0 && span < best->span)
            *best = (choice){*shape, v->w_last, v->f1_first, span};
    }
    return status;
}

/* choose a block */
/* Chosen on as many micro-batches as show warm-up and end; more repeat the middle. */
static dls_status choose(dls_v_fill *v, dls_v_block *block, choice *best)
{
    int p = v->ranks, m = v->microbatches, least = 2 * ((p + 4) / 3);
    int most = (v->limit > least ? v->limit : least) + 4;
    dls_v_shape shape;
    v->microbatches = m < 3 * p ? m : 3 * p;
    for (int i = 0; dls_v_shape_at(i, p, &shape); i++) {
        if (!dls_v_block_lay(&shape, p, block))
            continue;
        int peak = dls_v_block_peak(block, p);
        if (peak >= v->limit && peak <= most)
            DLS_TRY(try_block(v, &shape, best));
    }
    v->microbatches = m;
    return DLS_OK;
}

/* plan a v */
static dls_status fill(dls_v_fill *v, dls_v_block *block, const char *name,
                       dls_actions *out)
{
    choice best = {.span = INT_MAX};
    dls_status status = DLS_OK;
    DLS_TRY(choose(v, block, &best));
    if (best.span == INT_MAX)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a limit of at least two chunk "
                        "activations, got %d", name, v->limit);
    dls_v_block_lay(&best.shape, v->ranks, block);
    v->w_last = best.w_last;
    v->f1_first = best.f1_first;
    v->order = out;
    v->bound = INT_MAX;
    if (dls_v_fill_run(v, &status) < 0 && status == DLS_OK)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: its ranks wait for each other", name);
    return status;
}
static dls_status plan(const dls_schedule_options *o, int own, dls_actions *out)
{
    size_t p = (size_t)o->ranks;
    int64_t limit = o->limit ? o->limit / o->memory.hold : own;
    dls_v_block *block = calloc(p, sizeof *block);
    dls_v_fill v = {.ranks = o->ranks, .microbatches = o->microbatches, .block = block,
                    .limit = (int)(limit < 2 * o->ranks ? limit : 2 * o->ranks)};
    v.n = calloc(p, sizeof *v.n);
    v.end = calloc(4 * p * (size_t)o->microbatches, sizeof *v.end);
    dls_status status = block && v.n && v.end ? fill(&v, block, o->name, out)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d ranks", o->ranks);
    free(block);
    free(v.n);
    free(v.end);
    return status;
}

/* set the limit */
dls_status dls_schedule_v_half(const dls_schedule_options *o, dls_actions *out)
{
    return plan(o, 2 * ((o->ranks + 2) / 2), out);
}

dls_status dls_schedule_v_min(const dls_schedule_options *o, dls_actions *out)
{
    return plan(o, 2 * ((o->ranks + 4) / 3), out);
}

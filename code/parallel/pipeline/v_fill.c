/* code/parallel/pipeline/v_fill.c: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Slot by slot, every rank takes of what it could do the pass that the repeated building
 * block has earliest, as far as memory goes.
 */
#include "parallel/pipeline/v_fill.h"

#include <limits.h>
#include <string.h>

/* know when a pass is ready */
static int *end_of(const dls_v_fill *v, int rank, int pass, int microbatch)
{
    size_t row = (size_t)pass * (size_t)v->ranks + (size_t)rank;
    return &v->end[row * (size_t)v->microbatches + (size_t)microbatch];
}

static int is_ready(const dls_v_fill *v, int rank, int pass, int slot)
{
    const int *n = v->n[rank];
    int i = n[pass], down = pass == DLS_V_F0 || pass == DLS_V_I1;
    if (i == v->microbatches)
        return 0;
    if (pass >= DLS_V_W1)
        return n[pass - 2] > i;
    if (rank != (down ? 0 : v->ranks - 1))
        rank += down ? -1 : 1;
    else if (pass-- == DLS_V_F0)
        return 1;
    return v->n[rank][pass] > i && *end_of(v, rank, pass, i) <= slot;
}

/* keep room for the way back */
static int held(const int *n)
{
    return n[DLS_V_F0] + n[DLS_V_F1] - n[DLS_V_W0] - n[DLS_V_W1];
}

/* Chunk 0 must leave room for chunk 1, or the V never closes: one place always, and
 * before the first I1 as many as will come back by then. */
static int may_go_down(const dls_v_fill *v, int rank)
{
    const int *n = v->n[rank];
    int back = rank + 1 < v->limit / 2 ? rank + 1 : v->limit / 2;
    return n[DLS_V_F0] - n[DLS_V_W0] < v->limit - (n[DLS_V_I1] ? 1 : back);
}

/* plan a w */
static int planned(const dls_v_fill *v, int rank, int pass)
{
    return v->block[rank].at[pass] + DLS_V_PASSES * v->n[rank][pass];
}

/* The W that is planned first of those that may run, or -1. */
static int next_w(const dls_v_fill *v, int rank)
{
    const int *n = v->n[rank];
    int one = n[DLS_V_W1] < n[DLS_V_I1], zero = n[DLS_V_W0] < n[DLS_V_I0];
    if (one && zero)
        zero = planned(v, rank, DLS_V_W0) < planned(v, rank, DLS_V_W1);
    return zero ? DLS_V_W0 : one ? DLS_V_W1 : -1;
}

/* rank the passes */
/* The order in which passes are taken: smaller first. */
static int priority(const dls_v_fill *v, int rank, int pass)
{
    const int *n = v->n[rank];
    int when = planned(v, rank, pass);
    if (pass >= DLS_V_W1 &&
        (v->w_last || n[DLS_V_F1] == v->microbatches))
        return when + (1 << 24);
    if (v->f1_first && pass >= DLS_V_F1 && pass <= DLS_V_I0 &&
        n[DLS_V_F0] == v->microbatches)
        return pass - DLS_V_PASSES;
    return when;
}

/* choose a pass */
/* The pass a rank takes in this slot, or -1. A forward that finds no room lets a W go in
 * its place. */
static int choose(const dls_v_fill *v, int rank, int slot)
{
    int best = -1, first = INT_MAX;
    for (int pass = 0; pass < DLS_V_PASSES; pass++) {
        int when = priority(v, rank, pass), take = pass;
        if (when >= first || !is_ready(v, rank, pass, slot))
            continue;
        if (pass <= DLS_V_F1 && held(v->n[rank]) >= v->limit)
            take = next_w(v, rank);
        else if (pass == DLS_V_F0 && !may_go_down(v, rank))
            continue;
        if (take < 0)
            continue;
        best = take;
        first = when;
    }
    return best;
}

/* run a pass */
static dls_status run(dls_v_fill *v, int rank, int pass, int slot)
{
    static const dls_action_kind kind[DLS_V_PASSES] = {DLS_DO_F, DLS_DO_F, DLS_DO_I,
                                                       DLS_DO_I, DLS_DO_W, DLS_DO_W};
    int i = v->n[rank][pass]++;
    int up = pass == DLS_V_F1 || pass == DLS_V_I1 || pass == DLS_V_W1;
    if (pass < DLS_V_W1)
        *end_of(v, rank, pass, i) = slot + 1;
    if (!v->order)
        return DLS_OK;
    return dls_actions_add(&v->order[rank], kind[pass],
                           up ? 2 * v->ranks - 1 - rank : rank, i);
}

/* run slot by slot */
int dls_v_fill_run(dls_v_fill *v, dls_status *status)
{
    int left = DLS_V_PASSES * v->ranks * v->microbatches, span = 0;
    memset(v->n, 0, (size_t)v->ranks * sizeof *v->n);
    for (int slot = 0, before; left > 0; slot++) {
        before = left;
        for (int r = 0; r < v->ranks; r++) {
            int pass = choose(v, r, slot);
            if (pass < 0)
                continue;
            *status = run(v, r, pass, slot);
            if (*status != DLS_OK)
                return -1;
            left--;
            span = slot + 1 - r > span ? slot + 1 - r : span;
        }
        if (left == before)
            return -1;
    }
    return span;
}

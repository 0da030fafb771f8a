/* code/parallel/pipeline/v_choose.c: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Of what a rank could do, the pass that the repeated building block has earliest, as far
 * as memory goes.
 */
#include <limits.h>

#include "parallel/pipeline/v_fill.h"

/* know when a pass is ready */
int *dls_v_end(const dls_v_fill *v, int rank, int pass, int microbatch)
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
    return v->n[rank][pass] > i && *dls_v_end(v, rank, pass, i) <= slot;
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
/* A forward that finds no room lets a W go in its place. */
int dls_v_choose(const dls_v_fill *v, int rank, int slot)
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

/* code/parallel/pipeline/v_fill.c: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Slot by slot, every rank takes a pass. */
#include "parallel/pipeline/v_fill.h"

#include <string.h>

/* run a pass */
static dls_status run(dls_v_fill *v, int rank, int pass, int slot)
{
    static const dls_action_kind kind[DLS_V_PASSES] = {DLS_DO_F, DLS_DO_F, DLS_DO_I,
                                                       DLS_DO_I, DLS_DO_W, DLS_DO_W};
    int i = v->n[rank][pass]++;
    int up = pass == DLS_V_F1 || pass == DLS_V_I1 || pass == DLS_V_W1;
    if (pass < DLS_V_W1)
        *dls_v_end(v, rank, pass, i) = slot + 1;
    if (!v->order)
        return DLS_OK;
    return dls_actions_add(&v->order[rank], kind[pass],
                           up ? 2 * v->ranks - 1 - rank : rank, i);
}

/* give a run up */
/* Has this rank, which has just idled, more to do than the bound has slots for? */
static int is_hopeless(const dls_v_fill *v, int rank, int slot)
{
    int left = DLS_V_PASSES * v->microbatches;
    for (int pass = 0; pass < DLS_V_PASSES; pass++)
        left -= v->n[rank][pass];
    return left > 0 && slot + 1 - rank >= v->bound - left;
}

/* run slot by slot */
int dls_v_fill_run(dls_v_fill *v, dls_status *status)
{
    int left = DLS_V_PASSES * v->ranks * v->microbatches, span = 0;
    memset(v->n, 0, (size_t)v->ranks * sizeof *v->n);
    for (int slot = 0, before; left > 0; slot++) {
        before = left;
        for (int r = 0; r < v->ranks; r++) {
            int pass = dls_v_choose(v, r, slot);
            if (pass < 0 && is_hopeless(v, r, slot))
                return -1;
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

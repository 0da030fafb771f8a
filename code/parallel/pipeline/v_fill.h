/* code/parallel/pipeline/v_fill.h: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Running building blocks, one after the other, as early as their passes can. */
#ifndef DLS_PARALLEL_PIPELINE_V_FILL_H
#define DLS_PARALLEL_PIPELINE_V_FILL_H

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/v_block.h"

/* define a filling */
typedef struct dls_v_fill {
    int ranks, microbatches, limit;  // limit: chunk activations of a rank
    int w_last;     // W only when nothing else can run; 0: from the last F1 on
    int f1_first;   // after the last F0: first F1, then I1, then I0
    int bound;      // give up when the span can not stay below
    const dls_v_block *block;
    int (*n)[DLS_V_PASSES];          // [ranks]: done
    int *end;                        // [4][ranks][microbatches]: of all but W
    dls_actions *order;              // [ranks], or NULL
} dls_v_fill;

/* declare the filling */
/* Fills `n`, `end` and, if there is one, `order`. Returns the span in slots, or -1 if
 * the ranks wait for each other or the bound is reached. *status is what adding to order
 * gave. */
int dls_v_fill_run(dls_v_fill *v, dls_status *status);

/* The pass that a rank takes in this slot, or -1. */
int dls_v_choose(const dls_v_fill *v, int rank, int slot);

/* Where the end of a pass is noted. */
int *dls_v_end(const dls_v_fill *v, int rank, int pass, int microbatch);

#endif

/* code/parallel/pipeline/v_block.h: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The building block of a V schedule: when the six passes of one micro-batch run on each
 * rank, in slots of one pass. The next micro-batch runs six slots later, and so on.
 * Qi and others 2024, "Pipeline Parallelism with Controllable Memory", section 3.
 */
#ifndef DLS_PARALLEL_PIPELINE_V_BLOCK_H
#define DLS_PARALLEL_PIPELINE_V_BLOCK_H

/* In the order of one micro-batch on a rank; chunk 0 goes down the ranks, 1 comes up. */
enum { DLS_V_F0, DLS_V_F1, DLS_V_I1, DLS_V_I0, DLS_V_W1, DLS_V_W0, DLS_V_PASSES };

/* define the shape of a block */
/* Slots from one pass to the next. */
typedef struct dls_v_shape {
    int step[2];  // down from a rank to the next: F0, and I1
    int bend;     // the first `bend` ranks have step[0], the others step[1]
    int turn[3];  // from F0 to F1 on the last rank, F1 to I1 on the first, I1 to I0
} dls_v_shape;

typedef struct dls_v_block { int at[DLS_V_PASSES]; } dls_v_block;  // of micro-batch 0

/* declare the block */
/* Fills block[ranks]; 0 if two passes of a rank would fall into one slot. */
int dls_v_block_lay(const dls_v_shape *shape, int ranks, dls_v_block *block);

/* What the fullest rank holds, in chunk activations, when blocks follow without end. */
int dls_v_block_peak(const dls_v_block *block, int ranks);

/* The i-th shape to try, or 0 behind the last. */
int dls_v_shape_at(int i, int ranks, dls_v_shape *out);

#endif

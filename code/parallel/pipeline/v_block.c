/* code/parallel/pipeline/v_block.c: from chapters/05-pipeline-zero-bubble-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Laying a building block and weighing it. */
#include "parallel/pipeline/v_block.h"

#include <string.h>

/* run along the v */
/* F0 and I1 go down the ranks in steps, F1 and I0 come up slot by slot. */
static void run_along(const dls_v_shape *s, int ranks, dls_v_block *block)
{
    int down = 0, last = ranks - 1;
    for (int r = 0; r < ranks; r++) {
        block[r].at[DLS_V_F0] = block[r].at[DLS_V_I1] = down;
        block[r].at[DLS_V_F1] = block[r].at[DLS_V_I0] = last - r;
        down += s->step[r >= s->bend];
    }
    int f1 = block[last].at[DLS_V_F0] + s->turn[0];
    int i1 = f1 + last + s->turn[1];
    int i0 = i1 + block[last].at[DLS_V_I1] + s->turn[2];
    for (int r = 0; r < ranks; r++) {
        block[r].at[DLS_V_F1] += f1;
        block[r].at[DLS_V_I1] += i1;
        block[r].at[DLS_V_I0] += i0;
    }
}

/* find slots for w */
/* W goes into the first slot behind its I that is free in every repetition. */
static void place_w(dls_v_block *b, int taken[DLS_V_PASSES])
{
    for (int w = DLS_V_W1; w <= DLS_V_W0; w++) {
        int slot = b->at[w - 2] + 1;
        while (taken[slot % DLS_V_PASSES])
            slot++;
        taken[slot % DLS_V_PASSES] = 1;
        b->at[w] = slot;
    }
}

/* lay a block */
int dls_v_block_lay(const dls_v_shape *shape, int ranks, dls_v_block *block)
{
    run_along(shape, ranks, block);
    for (int r = 0; r < ranks; r++) {
        int taken[DLS_V_PASSES] = {0};
        for (int k = DLS_V_F0; k <= DLS_V_I0; k++)
            if (taken[block[r].at[k] % DLS_V_PASSES]++)
                return 0;
        place_w(&block[r], taken);
    }
    return 1;
}

/* weigh a block */
static int peak_of(const dls_v_block *b)
{
    int peak = 0;
    for (int slot = 0; slot < DLS_V_PASSES; slot++) {
        int held = 0, late = slot + 1000 * DLS_V_PASSES;  // when all is under way
        for (int chunk = 0; chunk < 2; chunk++)
            held += (late - b->at[chunk ? DLS_V_F1 : DLS_V_F0]) / DLS_V_PASSES -
                    (late - 1 - b->at[chunk ? DLS_V_W1 : DLS_V_W0]) / DLS_V_PASSES;
        peak = held > peak ? held : peak;
    }
    return peak;
}

int dls_v_block_peak(const dls_v_block *block, int ranks)
{
    int peak = 0;
    for (int r = 0; r < ranks; r++) {
        int own = peak_of(&block[r]);
        peak = own > peak ? own : peak;
    }
    return peak;
}

/* go through the shapes */
int dls_v_shape_at(int i, int ranks, dls_v_shape *out)
{
    static const int turns[][3] = {{1, 1, 1}, {1, 1, 3}, {1, 1, 5}, {3, 1, 1}, {5, 1, 3}};
    static const int steps[][2] = {{1, 1}, {2, 1}, {2, 2}, {3, 1}, {3, 2}, {3, 3},
        {4, 1}, {4, 2}, {4, 3}, {4, 4}, {5, 1}, {5, 2}, {5, 3}, {5, 4}, {5, 5}};
    enum { TURNS = sizeof turns / sizeof *turns, STEPS = sizeof steps / sizeof *steps };
    memcpy(out->turn, turns[i % TURNS], sizeof out->turn);
    memcpy(out->step, steps[i / TURNS % STEPS], sizeof out->step);
    out->bend = 1 + i / TURNS / STEPS;
    return out->bend < ranks || out->bend == 1;
}

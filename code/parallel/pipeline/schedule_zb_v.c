/* code/parallel/pipeline/schedule_zb_v.c: from chapters/05-pipeline-zero-bubble.md. Edit the chapter, or edit here and run "make untangle". */
/* ZB-V: two chunks per rank on a V, so that rank 0 has the first and the last stage, and
 * every rank begins its backward passes as soon as it is done with its forward ones.
 * Qi and others 2024, "Zero Bubble Pipeline Parallelism", section 6.
 */
#include "parallel/pipeline/schedules.h"

/* count passes on a v */
typedef struct vee {
    const dls_schedule_options *o;
    int stage[2];  // of chunk 0 and 1
    int done[3][2];  // F, I, W; chunk
    dls_actions *out;
} vee;

/* Pass of a letter, F0 I0 W0 F1 I1 W1; micro-batches beyond the last are left out. */
static dls_status add(vee *v, dls_action_kind kind, int chunk)
{
    int microbatch = v->done[kind][chunk]++;
    if (microbatch >= v->o->microbatches)
        return DLS_OK;
    return dls_actions_add(v->out, kind, v->stage[chunk], microbatch);
}

/* play a phase */
/* Plays "F1 I1 W1" `times` times. */
static dls_status play(vee *v, const char *phase, int times)
{
    for (int i = 0; i < times; i++)
        for (const char *at = phase; *at; at += at[2] ? 3 : 2)
            DLS_TRY(add(v, *at == 'F' ? DLS_DO_F : *at == 'I' ? DLS_DO_I : DLS_DO_W,
                        at[1] - '0'));
    return DLS_OK;
}

/* fill the v */
static dls_status warm_up(vee *v, int rank)
{
    int ranks = v->o->ranks;
    DLS_TRY(play(v, "F0", 2 * (ranks - rank) - 1));
    DLS_TRY(play(v, "F1 F0", rank));
    return play(v, "F1 I1 W1", ranks - rank);
}

/* cool the v down */
static dls_status cool_down(vee *v, int rank)
{
    DLS_TRY(play(v, "I0 I1", rank));
    DLS_TRY(play(v, "I0 W0", v->o->ranks - rank));
    DLS_TRY(play(v, "W1", v->done[DLS_DO_I][1] - v->done[DLS_DO_W][1]));
    return play(v, "W0", v->done[DLS_DO_I][0] - v->done[DLS_DO_W][0]);
}

/* run down the v */
dls_status dls_schedule_zb_v(const dls_schedule_options *o, int rank, dls_actions *out)
{
    int least = 2 * o->ranks - 1;
    int n = o->microbatches > least ? o->microbatches : least;
    vee v = {.o = o, .stage = {rank, 2 * o->ranks - 1 - rank}, .out = out};
    DLS_TRY(warm_up(&v, rank));
    while (v.done[DLS_DO_F][0] < n)
        DLS_TRY(play(&v, "F0 I0 W0 F1 I1 W1", 1));
    DLS_TRY(play(&v, "I0 W0 F1 I1 W1", n - v.done[DLS_DO_F][1]));
    return cool_down(&v, rank);
}

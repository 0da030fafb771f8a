/* code/parallel/pipeline/schedule_zb.c: from chapters/05-pipeline-zero-bubble.md. Edit the chapter, or edit here and run "make untangle". */
/* ZB-H1, ZB-H2 and interleaved ZB: 1F1B with the backward pass in two, I and W. I goes
 * where 1F1B has its backward; W comes `lag` passes later, when the rank would wait.
 *
 *   F0 F1 F2 F3       I0 W0 F4 I1 W1 ...     ZB-H1, rank 0 of 4: no lag
 *   F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 ...  rank 3: W waits for three others
 *
 * Qi and others 2024, "Zero Bubble Pipeline Parallelism", sections 2.1 and 2.2.
 */
#include "parallel/pipeline/groups.h"
#include "parallel/pipeline/schedules.h"

/* add one split pass */
/* Pass k of a kind; none if there is no such pass. */
static dls_status add_pass(const dls_schedule_options *o, int rank, dls_action_kind kind,
                           int k, dls_actions *out)
{
    int chunk, microbatch;
    if (k < 0 || k >= o->microbatches * o->chunks)
        return DLS_OK;
    dls_groups g = dls_groups_of(o->microbatches, o->ranks, o->group);
    dls_groups_pass(&g, o->chunks, k, &chunk, &microbatch);
    if (kind != DLS_DO_F)
        chunk = o->chunks - 1 - chunk;
    return dls_actions_add(out, kind, chunk * o->ranks + rank, microbatch);
}

/* let w lag behind */
/* I k comes `warm_up` passes after F k, and W k another `lag` passes after that. */
static dls_status split_1f1b(const dls_schedule_options *o, int rank, int warm_up,
                             int lag, dls_actions *out)
{
    int passes = o->microbatches * o->chunks, last = passes + warm_up + lag;
    for (int k = 0; k < last; k++) {
        DLS_TRY(add_pass(o, rank, DLS_DO_F, k, out));
        DLS_TRY(add_pass(o, rank, DLS_DO_I, k - warm_up, out));
        DLS_TRY(add_pass(o, rank, DLS_DO_W, k - warm_up - lag, out));
    }
    return DLS_OK;
}

/* hold what 1f1b holds */
dls_status dls_schedule_zb_h1(const dls_schedule_options *o, int rank, dls_actions *out)
{
    dls_groups g = dls_groups_of(o->microbatches, o->ranks, o->group);
    if (o->chunks > 1 && o->group < o->ranks)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: a group of %d micro-batches comes round "
                        "before the first is back: expected at least the %d ranks",
                        o->name, o->group, o->ranks);
    int warm_up = (o->chunks - 1) * g.size + o->ranks - 1 - rank;
    return split_1f1b(o, rank, warm_up, rank, out);
}

/* hold twice as much */
dls_status dls_schedule_zb_h2(const dls_schedule_options *o, int rank, dls_actions *out)
{
    return split_1f1b(o, rank, 2 * (o->ranks - 1 - rank), 2 * rank, out);
}

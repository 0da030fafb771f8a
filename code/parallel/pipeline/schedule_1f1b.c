/* code/parallel/pipeline/schedule_1f1b.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* 1F1B: a warm-up of forwards, then one forward, one backward in turn, then the rest.
 *
 *   F0 F1 F2 F3 B0 F4 B1 F5 B2 ...     rank 0 of 4: three ahead
 *   F0 B0 F1 B1 F2 B2 ...              rank 3 of 4: none ahead
 *
 * Narayanan and others 2019 (PipeDream) and 2021 (Megatron-LM); Fan and others 2021.
 */
#include "parallel/pipeline/schedules.h"

/* stay ahead by the warm up */
/* Backward i comes right after forward i + warm_up, or after all of them. */
static dls_status one_forward_one_backward(const dls_schedule_options *o, int rank,
                                           int warm_up, dls_actions *out)
{
    for (int i = 0; i < o->microbatches + warm_up; i++) {
        if (i < o->microbatches)
            DLS_TRY(dls_actions_add(out, DLS_DO_F, rank, i));
        if (i >= warm_up)
            DLS_TRY(dls_actions_add(out, DLS_DO_B, rank, i - warm_up));
    }
    return DLS_OK;
}

/* warm up once or twice */
dls_status dls_schedule_1f1b(const dls_schedule_options *o, int rank, dls_actions *out)
{
    return one_forward_one_backward(o, rank, o->ranks - 1 - rank, out);
}

dls_status dls_schedule_1f1b_eager(const dls_schedule_options *o, int rank,
                                   dls_actions *out)
{
    return one_forward_one_backward(o, rank, 2 * (o->ranks - 1 - rank), out);
}

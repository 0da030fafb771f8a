/* code/parallel/pipeline/schedule_forward.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* Forward only, for evaluation and inference: the forward half of `interleaved`. */
#include "parallel/pipeline/groups.h"
#include "parallel/pipeline/schedules.h"

dls_status dls_schedule_forward_only(const dls_schedule_options *o, int rank,
                                     dls_actions *out)
{
    int chunk, microbatch;
    if (o->group < o->ranks)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: a group of %d micro-batches waits in every "
                        "round: expected at least the %d ranks", o->name, o->group,
                        o->ranks);
    dls_groups g = dls_groups_of(o->microbatches, o->ranks, o->group);
    for (int k = 0; k < o->microbatches * o->chunks; k++) {
        dls_groups_pass(&g, o->chunks, k, &chunk, &microbatch);
        DLS_TRY(dls_actions_add(out, DLS_DO_F, chunk * o->ranks + rank, microbatch));
    }
    return DLS_OK;
}

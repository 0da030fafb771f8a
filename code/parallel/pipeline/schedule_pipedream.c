/* code/parallel/pipeline/schedule_pipedream.c: from chapters/05-pipeline-schedules-asynchronous.md. Edit the chapter, or edit here and run "make untangle". */
/* PipeDream: the order of 1F1B, but the optimizer steps while micro-batches are under
 * way. What differs is which version of the weights a micro-batch meets: versions.h.
 * Narayanan and others 2019 (SOSP); 2021 (ICML) for two buffered versions, 2BW.
 */
#include "parallel/pipeline/schedules.h"

dls_status dls_schedule_pipedream(const dls_schedule_options *o, int rank,
                                  dls_actions *out)
{
    return dls_schedule_1f1b(o, rank, out);
}

/* refuse groups that two versions cannot serve */
dls_status dls_schedule_pipedream_2bw(const dls_schedule_options *o, int rank,
                                      dls_actions *out)
{
    if (o->group < o->ranks - 1)
        return DLS_FAIL(DLS_ERR_INPUT, "pipedream-2bw: with a step after every %d micro-"
                        "batches, %d are under way in more than two versions: expected "
                        "a group of at least %d", o->group, o->ranks, o->ranks - 1);
    if (o->microbatches % o->group)
        return DLS_FAIL(DLS_ERR_INPUT, "pipedream-2bw: %d micro-batches are no whole "
                        "number of groups of %d", o->microbatches, o->group);
    return dls_schedule_1f1b(o, rank, out);
}

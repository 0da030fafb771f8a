/* code/parallel/pipeline/schedule_interleaved.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* Interleaved 1F1B: every rank has several chunks, each with a part of the layers from
 * all over the model, and groups of micro-batches pass through chunk after chunk.
 * Narayanan and others 2021, section 2.2; Megatron-LM's schedule table.
 */
#include "parallel/pipeline/groups.h"
#include "parallel/pipeline/schedules.h"

/* add the kth pass */
static dls_status add_pass(const dls_schedule_options *o, const dls_groups *g, int rank,
                           dls_action_kind kind, int k, dls_actions *out)
{
    int chunk, microbatch;
    dls_groups_pass(g, o->chunks, k, &chunk, &microbatch);
    if (kind == DLS_DO_B)
        chunk = o->chunks - 1 - chunk;
    return dls_actions_add(out, kind, chunk * o->ranks + rank, microbatch);
}

/* interleave */
/* Rank r's warm-up is `slope` passes longer than that of the next rank. */
static dls_status interleave(const dls_schedule_options *o, int rank, int slope,
                             dls_actions *out)
{
    if (o->group < o->ranks)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: with groups of %d micro-batches a rank is "
                        "done with a chunk before the first is back: expected at least "
                        "the %d ranks", o->name, o->group, o->ranks);
    dls_groups g = dls_groups_of(o->microbatches, o->ranks, o->group);
    int passes = o->microbatches * o->chunks;
    int warm_up = slope * (o->ranks - 1 - rank) + (o->chunks - 1) * g.size;
    for (int k = 0; k < passes + warm_up; k++) {
        if (k < passes)
            DLS_TRY(add_pass(o, &g, rank, DLS_DO_F, k, out));
        if (k >= warm_up)
            DLS_TRY(add_pass(o, &g, rank, DLS_DO_B, k - warm_up, out));
    }
    return DLS_OK;
}
dls_status dls_schedule_interleaved(const dls_schedule_options *o, int rank,
                                    dls_actions *out)
{
    return interleave(o, rank, 2, out);
}

dls_status dls_schedule_interleaved_lean(const dls_schedule_options *o, int rank,
                                         dls_actions *out)
{
    return interleave(o, rank, 1, out);
}

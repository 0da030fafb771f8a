/* code/parallel/pipeline/schedule_bfs.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* Looped breadth-first: a chunk has all micro-batches before the next one begins, so
 * that its weights are needed once per pass. Lamy-Poirier 2023.
 */
#include "parallel/pipeline/schedules.h"

dls_status dls_schedule_bfs(const dls_schedule_options *o, int rank, dls_actions *out)
{
    for (int chunk = 0; chunk < o->chunks; chunk++)
        for (int i = 0; i < o->microbatches; i++)
            DLS_TRY(dls_actions_add(out, DLS_DO_F, chunk * o->ranks + rank, i));
    for (int chunk = o->chunks - 1; chunk >= 0; chunk--)
        for (int i = 0; i < o->microbatches; i++)
            DLS_TRY(dls_actions_add(out, DLS_DO_B, chunk * o->ranks + rank, i));
    return DLS_OK;
}

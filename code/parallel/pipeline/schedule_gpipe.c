/* code/parallel/pipeline/schedule_gpipe.c: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* GPipe: every micro-batch forward, then every one backward. Huang and others 2019. */
#include "parallel/pipeline/schedules.h"

dls_status dls_schedule_gpipe(const dls_schedule_options *o, int rank, dls_actions *out)
{
    for (int i = 0; i < o->microbatches; i++)
        DLS_TRY(dls_actions_add(out, DLS_DO_F, rank, i));
    for (int i = 0; i < o->microbatches; i++)
        DLS_TRY(dls_actions_add(out, DLS_DO_B, rank, i));
    return DLS_OK;
}

/* code/parallel/pipeline/schedules.h: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The generators, one file each, that the table of schedules names. */
#ifndef DLS_PARALLEL_PIPELINE_SCHEDULES_H
#define DLS_PARALLEL_PIPELINE_SCHEDULES_H

#include "parallel/pipeline/schedule.h"

/* declare the generators */
dls_schedule_generator dls_schedule_gpipe, dls_schedule_1f1b, dls_schedule_1f1b_eager,
    dls_schedule_interleaved, dls_schedule_interleaved_lean, dls_schedule_bfs,
    dls_schedule_chimera, dls_schedule_pipedream, dls_schedule_pipedream_2bw,
    dls_schedule_forward_only;

/* declare the zero bubble generators */
dls_schedule_generator dls_schedule_zb_h1, dls_schedule_zb_h2, dls_schedule_zb_v;
dls_schedule_planner dls_schedule_v_half, dls_schedule_v_min, dls_schedule_auto,
    dls_schedule_exact;

/* in both directions, from chapter 8 */
dls_schedule_generator dls_schedule_dualpipe, dls_schedule_dualpipev;

#endif

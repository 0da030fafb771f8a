/* code/parallel/pipeline/schedules.h: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The generators, one file each, that the table of schedules names. */
#ifndef DLS_PARALLEL_PIPELINE_SCHEDULES_H
#define DLS_PARALLEL_PIPELINE_SCHEDULES_H

#include "parallel/pipeline/schedule.h"

/* declare the generators */
dls_schedule_generator dls_schedule_gpipe;

/* declare the zero bubble generators */

#endif

/* code/parallel/pipeline/versions.h: from chapters/05-pipeline-schedules-asynchronous.md. Edit the chapter, or edit here and run "make untangle". */
/* Which version of its weights a stage uses for a micro-batch. Version v has v optimizer
 * steps behind it. A pure function of the schedule, known before the run.
 */
#ifndef DLS_PARALLEL_PIPELINE_VERSIONS_H
#define DLS_PARALLEL_PIPELINE_VERSIONS_H

#include "parallel/pipeline/schedule.h"

/* For both passes of a micro-batch, at this stage: 0 in a synchronous schedule. */
int dls_schedule_version(const dls_schedule *s, int stage, int microbatch);

/* How many versions the stage must be able to hold, the newest one included. */
int dls_schedule_versions_held(const dls_schedule *s, int stage);

#endif

/* code/parallel/pipeline/schedule_command.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* dls schedule: one schedule or several, printed, drawn, compared, exported. */
#ifndef DLS_PARALLEL_PIPELINE_SCHEDULE_COMMAND_H
#define DLS_PARALLEL_PIPELINE_SCHEDULE_COMMAND_H

#include "base/status.h"

dls_status dls_schedule_command(int argc, char **argv, int *exit_code);

#endif

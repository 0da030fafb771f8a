/* code/parallel/data/plan_command.h: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* dls plan: the memory of a device and the messages of a step, before the run. */
#ifndef DLS_PARALLEL_DATA_PLAN_COMMAND_H
#define DLS_PARALLEL_DATA_PLAN_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

dls_status dls_plan_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif

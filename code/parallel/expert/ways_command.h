/* code/parallel/expert/ways_command.h: from chapters/08-dispatch-nodes-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls ways: three ways of rows to experts and back, on the virtual clock. */
#ifndef DLS_PARALLEL_EXPERT_WAYS_COMMAND_H
#define DLS_PARALLEL_EXPERT_WAYS_COMMAND_H
#include "base/status.h"
/* Of a job: every rank calls it, rank 0 prints. */
dls_status dls_ways_command(int argc, char **argv, int *exit_code);
#endif

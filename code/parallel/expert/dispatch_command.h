/* code/parallel/expert/dispatch_command.h: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls dispatch: rows to experts and back on the virtual clock, beside a pipeline's. */
#ifndef DLS_PARALLEL_EXPERT_DISPATCH_COMMAND_H
#define DLS_PARALLEL_EXPERT_DISPATCH_COMMAND_H
#include "base/status.h"
/* Of a job: every rank calls it, rank 0 prints. */
dls_status dls_dispatch_command(int argc, char **argv, int *exit_code);
#endif

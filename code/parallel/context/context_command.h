/* code/parallel/context/context_command.h: from chapters/06-context-parallelism-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls context: an attention spread over ranks, timed, beside the formulas. */
#ifndef DLS_PARALLEL_CONTEXT_COMMAND_H
#define DLS_PARALLEL_CONTEXT_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

dls_status dls_context_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif

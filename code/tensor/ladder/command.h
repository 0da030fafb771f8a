/* code/tensor/ladder/command.h: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The command `dls ladder`. */
#ifndef DLS_TENSOR_LADDER_COMMAND_H
#define DLS_TENSOR_LADDER_COMMAND_H

#include "base/status.h"

/* argv[0] is the command's name; a failure is reported by the caller. */
dls_status dls_ladder_command(int argc, char **argv, int *exit_code);

#endif

/* code/parallel/tensor/block_command.h: from chapters/06-tensor-parallelism-cost.md. Edit the chapter, or edit here and run "make untangle". */
/* dls block: the time of one block that is cut over all ranks of the job. */
#ifndef DLS_PARALLEL_TENSOR_BLOCK_COMMAND_H
#define DLS_PARALLEL_TENSOR_BLOCK_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A subcommand as in cli/command.h. Every rank of the job runs it. */
dls_status dls_block_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif

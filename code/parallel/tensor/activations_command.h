/* code/parallel/tensor/activations_command.h: from chapters/06-sequence-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* dls activations: what a block keeps, by the paper's account and by ours. */
#ifndef DLS_PARALLEL_TENSOR_ACTIVATIONS_COMMAND_H
#define DLS_PARALLEL_TENSOR_ACTIVATIONS_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

dls_status dls_activations_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/tensor/summa_command.h: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* dls summa: an MLP cut in one dimension, and on every grid that the ranks can form. */
#ifndef DLS_PARALLEL_TENSOR_SUMMA_COMMAND_H
#define DLS_PARALLEL_TENSOR_SUMMA_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

dls_status dls_summa_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif

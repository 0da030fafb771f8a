/* code/kernels/attention_command.h: from chapters/10-flash-attention-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* The command `dls attention`. */
#ifndef DLS_KERNELS_ATTENTION_COMMAND_H
#define DLS_KERNELS_ATTENTION_COMMAND_H

#include "base/status.h"

/* argv[0] is the command's name; a failure is reported by the caller. */
dls_status dls_attention_command(int argc, char **argv, int *exit_code);

#endif

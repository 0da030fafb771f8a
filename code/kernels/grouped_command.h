/* code/kernels/grouped_command.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* dls grouped */
#ifndef DLS_KERNELS_GROUPED_COMMAND_H
#define DLS_KERNELS_GROUPED_COMMAND_H
#include "base/status.h"
#ifdef __cplusplus
extern "C" {
#endif
/* Runs one product of groups in three ways, and times it. */
dls_status dls_grouped_command(int argc, char **argv, int *exit_code);
#ifdef __cplusplus
}
#endif
#endif

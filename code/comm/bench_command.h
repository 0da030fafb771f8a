/* code/comm/bench_command.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* dls bench: the costs of collectives, measured and predicted. */
#ifndef DLS_COMM_BENCH_COMMAND_H
#define DLS_COMM_BENCH_COMMAND_H

#include "base/status.h"

/* A subcommand as in cli/command.h. */
dls_status dls_bench_command(int argc, char **argv, int *exit_code);

#endif

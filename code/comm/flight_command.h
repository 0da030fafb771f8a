/* code/comm/flight_command.h: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* dls flight: reads flight records and says where the ranks part. */
#ifndef DLS_COMM_FLIGHT_COMMAND_H
#define DLS_COMM_FLIGHT_COMMAND_H

#include "base/status.h"

/* A subcommand as in cli/command.h. */
dls_status dls_flight_command(int argc, char **argv, int *exit_code);

#endif

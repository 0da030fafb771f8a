/* code/cli/command.h: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* The subcommands of dls. Each lives in its own file and is listed once, in main.c. */
#ifndef DLS_CLI_COMMAND_H
#define DLS_CLI_COMMAND_H

#include "base/status.h"

/* describe a subcommand */
typedef struct command {
    const char *name;
    const char *summary;  // one line for the list of commands
    /* argv[0] is the command's name. Failure: a status with its message, and main
     * exits with 2 for bad input, else 1. Success: it exits with *exit_code, preset 0. */
    dls_status (*run)(int argc, char **argv, int *exit_code);
} command;

/* declare the commands */
dls_status command_run(int argc, char **argv, int *exit_code);
dls_status command_train(int argc, char **argv, int *exit_code);
dls_status command_sample(int argc, char **argv, int *exit_code);
dls_status command_metrics(int argc, char **argv, int *exit_code);
dls_status command_memory(int argc, char **argv, int *exit_code);
dls_status command_cluster(int argc, char **argv, int *exit_code);
dls_status command_cc(int argc, char **argv, int *exit_code);
dls_status command_check(int argc, char **argv, int *exit_code);
dls_status command_profile(int argc, char **argv, int *exit_code);
dls_status command_router(int argc, char **argv, int *exit_code);

/* The command of that name, or NULL. */
const command *command_find(const char *name);

#endif

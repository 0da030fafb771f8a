/* code/cli/run.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls run: N ranks of a subcommand, or of any program, on this machine. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "cli/command.h"
#include "comm/launch.h"

/* describe the options of run */
typedef struct run_options {
    int64_t ranks;
    double limit;
    const char *cluster, *flight, *watchdog;
    int elastic;
    int64_t least, restarts;
    char **rest;
} run_options;

static dls_status parse_run(int argc, char **argv, run_options *o, int *helped)
{
    const dls_arg args[] = {
        {"-n|--ranks", DLS_ARG_INT, &o->ranks, "N", "how many ranks (default 1)"},
        {"--cluster", DLS_ARG_STRING, &o->cluster, "NAME", "virtual machine to run on"},
        {"--limit", DLS_ARG_REAL, &o->limit, "SECONDS", "stop the job after so long"},
        {"--watchdog", DLS_ARG_STRING, &o->watchdog, "SECONDS", "stop it when an "
         "operation does not move for so long (600; 0: never)"},
        {"--flight", DLS_ARG_STRING, &o->flight, "FILE", "for the ranks' last operations "
         "when the job fails (dls-flight.json)"},
        {"--elastic", DLS_ARG_FLAG, &o->elastic, NULL, "when a rank is lost, go on with "
         "the others"},
        {"--min-ranks", DLS_ARG_INT, &o->least, "N", "but with at least N (default 1)"},
        {"--max-restarts", DLS_ARG_INT, &o->restarts, "N", "and at most N times (3)"},
        {"COMMAND", DLS_ARG_REST, &o->rest, NULL, "a dls command, or a program"},
    };
    const dls_args spec = {"dls run", "Starts N ranks and ends them together.",
                           "dls run -n 4 -- train --config code/cli/tour.yaml", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, helped));
    if (*helped)
        return DLS_OK;
    if (o->ranks < 1 || o->ranks > 1024)
        return DLS_FAIL(DLS_ERR_INPUT, "--ranks: expected 1 to 1024, got %lld",
                        (long long)o->ranks);
    if (o->least < 1 || o->restarts < 0 || o->restarts > 1000)
        return DLS_FAIL(DLS_ERR_INPUT, "--min-ranks: expected 1 or more, and "
                        "--max-restarts 0 to 1000; got %lld and %lld",
                        (long long)o->least, (long long)o->restarts);
    return DLS_OK;
}

/* prepend this executable */
/* rest[0] is one of our commands: {this executable, rest...}; else a copy of rest.
 * The caller frees the array; the strings are not copied (but for the executable's). */
static dls_status ranks_command(char **rest, char *executable, size_t size, char ***out)
{
    int n = 0, own = command_find(rest[0]) != NULL;
    while (rest[n])
        n++;
    char **argv = calloc((size_t)n + 2, sizeof *argv);
    if (!argv)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the arguments of the ranks");
    if (own) {
        ssize_t length = readlink("/proc/self/exe", executable, size - 1);
        if (length < 0) {
            free(argv);
            return DLS_FAIL(DLS_ERR_IO, "/proc/self/exe: can not be read");
        }
        executable[length] = 0;
        argv[0] = executable;
    }
    memcpy(argv + own, rest, (size_t)n * sizeof *argv);
    *out = argv;
    return DLS_OK;
}

/* run the ranks */
dls_status command_run(int argc, char **argv, int *exit_code)
{
    run_options o = {.ranks = 1, .least = 1, .restarts = 3, .flight = "dls-flight.json"};
    int helped;
    DLS_TRY(parse_run(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    if ((o.cluster && setenv("DLS_CLUSTER", o.cluster, 1) != 0) ||
        (o.watchdog && setenv("DLS_WATCHDOG", o.watchdog, 1) != 0))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the environment");
    char executable[4096];
    char **ranks_argv;
    DLS_TRY(ranks_command(o.rest, executable, sizeof executable, &ranks_argv));
    const dls_launch_options launch = {
        .limit_seconds = o.limit, .flight = o.flight[0] ? o.flight : NULL,
        .least = o.elastic ? (int)o.least : 0, .restarts = (int)o.restarts};
    *exit_code = dls_launch((int)o.ranks, ranks_argv, &launch);
    free(ranks_argv);
    return DLS_OK;
}

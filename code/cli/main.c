/* code/cli/main.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls: finds the subcommand, runs it, turns its status into words and an exit status.
 *
 * Exit status: 0 success, 2 the input was wrong (an option, a file's content), 1 anything
 * else; `dls run` passes on the status of the job. Results go to stdout, the rest to
 * stderr. DLS_TRACE=1 adds the places that an error passed, as lines of the book.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/suggest.h"
#include "cli/command.h"
#include "comm/bench_command.h"
#include "comm/flight_command.h"
#include "comm/identity.h"
#include "kernels/attention_command.h"
#include "kernels/grouped_command.h"
#include "parallel/context/context_command.h"
#include "parallel/expert/dispatch_command.h"
#include "parallel/expert/ways_command.h"
#include "parallel/mesh_command.h"
#include "parallel/pipeline/run_command.h"
#include "parallel/pipeline/schedule_command.h"
#include "parallel/tensor/activations_command.h"
#include "parallel/tensor/block_command.h"
#include "parallel/tensor/summa_command.h"
#include "tensor/ladder/command.h"
#include "train/plan_command.h"

/* list the commands */
static const command commands[] = {
    {"run", "start N ranks of a command or program on this machine", command_run},
    {"train", "train a GPT from a configuration file", command_train},
    {"sample", "let a trained model write", command_sample},
    {"metrics", "print columns of a metrics.jsonl as a table", command_metrics},
    {"flight", "say where the ranks of a failed job part", dls_flight_command},
    {"bench", "measure collectives on the virtual clock", dls_bench_command},
    {"memory", "print what each rank's memory went to", command_memory},
    {"plan", "tell what a model takes, or search for a layout", dls_plan_command},
    {"block", "time a block that is cut over ranks", dls_block_command},
    {"activations", "print what a block keeps of its inputs", dls_activations_command},
    {"mesh", "print who is with whom along each axis", dls_mesh_command},
    {"context", "time attention over ranks that share a sequence", dls_context_command},
    {"router", "route tokens to experts, and tell who goes where", command_router},
    {"dispatch", "time the way of rows to experts and back", dls_dispatch_command},
    {"ways", "compare three ways of rows to experts and back", dls_ways_command},
    {"summa", "time an MLP cut in one dimension and in two", dls_summa_command},
    {"schedule", "evaluate, draw and compare pipeline schedules", dls_schedule_command},
    {"pipeline", "time a GPT that is cut into stages", dls_pipeline_command},
    {"ladder", "multiply by the kernels of chapter 2", dls_ladder_command},
    {"attention", "run one attention, and time it", dls_attention_command},
    {"grouped", "multiply rows by the weights of their experts", dls_grouped_command},
    {"cluster", "print or draw what the clock knows of a cluster", command_cluster},
    {"cc", "compile your own CUDA files for the virtual GPU", command_cc},
    {"check", "look for wrong accesses and races in a program", command_check},
    {"profile", "count what a program's kernels do, line by line", command_profile},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

const command *command_find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* print the commands */
static void print_commands(FILE *out)
{
    fputs("usage: dls COMMAND [OPTION ...]\n\ncommands:\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-12s%s\n", commands[i].name, commands[i].summary);
    fputs("\n`dls COMMAND --help` explains one. Example:\n"
          "  dls run -n 4 -- train --config code/cli/tour.yaml --output /tmp/tour\n",
          out);
}

/* refuse an unknown command */
static int refuse_command(const char *name)
{
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = dls_suggest(name, names, COMMANDS);
    fprintf(stderr, "dls: no command '%s'%s%s%s; `dls --help` lists them\n", name,
            near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    return 2;
}

/* report a failed command */
static int report(int rank, const char *name, dls_status status)
{
    char prefix[64]; // which messages about options have already
    int n = snprintf(prefix, sizeof prefix, "dls %s: ", name);
    const char *message = dls_status_message();
    int has_it = strncmp(message, prefix, (size_t)n) == 0;
    if (status == DLS_ERR_INPUT && rank > 0 && dls_log_world() == 1)
        sleep(2);
    dls_log(DLS_LOG_ERROR, "%s%s", has_it ? "" : prefix, message);
    const char *trace = getenv("DLS_TRACE");
    if (trace && strcmp(trace, "0") != 0)
        fputs(dls_status_trace(), stderr);
    return status == DLS_ERR_INPUT ? 2 : 1;
}

/* dispatch to a command */
static int finish(int exit_code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return exit_code;
    perror("dls: standard output");
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_commands(argc < 2 ? stderr : stdout);
        return finish(argc < 2 ? 2 : 0);
    }
    const command *c = command_find(argv[1]);
    if (!c)
        return refuse_command(argv[1]);
    int exit_code = 0;
    dls_identity who = {0}; // mpirun, srun or torchrun may have started us
    dls_status status = dls_identity_adopt(&who);
    if (status == DLS_OK)
        status = c->run(argc - 1, argv + 1, &exit_code);
    return status == DLS_OK ? finish(exit_code) : report(who.rank, c->name, status);
}

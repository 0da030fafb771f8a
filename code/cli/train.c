/* code/cli/train.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls train: a run described by a configuration file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "cli/command.h"
#include "train/layout.h"
#include "vgpu/gpu.h"

/* describe the options of train */
typedef struct train_options {
    const char *config, *corpus, *output;
    const char *axes[6];        // dp, pp, tp, cp, ep, etp
    dls_arg_list set;
} train_options;

static dls_status parse_train(int argc, char **argv, train_options *o, int *helped)
{
    const dls_arg args[] = {
        {"--config", DLS_ARG_STRING, &o->config, "FILE", "the run, in YAML"},
        {"--corpus", DLS_ARG_STRING, &o->corpus, "FILE", "train on this text instead"},
        {"--output", DLS_ARG_STRING, &o->output, "DIR", "where to write"},
        {"--set", DLS_ARG_LIST, &o->set, "KEY=VALUE", "change a setting; repeatable"},
        {"--dp", DLS_ARG_STRING, &o->axes[0], "N", "replicas of the model"},
        {"--pp", DLS_ARG_STRING, &o->axes[1], "N", "stages of a pipeline"},
        {"--tp", DLS_ARG_STRING, &o->axes[2], "N", "ranks that share each layer"},
        {"--cp", DLS_ARG_STRING, &o->axes[3], "N", "ranks that share each sequence"},
        {"--ep", DLS_ARG_STRING, &o->axes[4], "N", "ranks that share the experts"},
        {"--etp", DLS_ARG_STRING, &o->axes[5], "N", "ranks that share each expert"},
    };
    const dls_args spec = {"dls train", "Trains a GPT.",
                           "dls run -n 4 -- train --config code/cli/tour.yaml"
                           " --set train.steps=50 --output /tmp/tour",
                           args, sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, helped));
    if (!*helped && !o->config)
        return DLS_FAIL(DLS_ERR_INPUT, "--config: expected a file, got nothing");
    return DLS_OK;
}

/* override the configuration */
static dls_status override_string(dls_config *cfg, const char *key, const char *value)
{
    char assignment[4352];
    if (!value)
        return DLS_OK;
    int n = snprintf(assignment, sizeof assignment, "%s=%s", key, value);
    if (n >= (int)sizeof assignment)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: longer than 4096 bytes", key);
    return dls_config_override(cfg, assignment);
}

static dls_status load_run(const train_options *o, dls_config **cfg,
                           dls_train_config *run)
{
    static const char *const axes[] = {"parallel.dp", "parallel.pp", "parallel.tp",
                                       "parallel.cp", "parallel.ep", "parallel.etp"};
    DLS_TRY(dls_config_load(o->config, cfg));
    for (int i = 0; i < o->set.count; i++)
        DLS_TRY(dls_config_override(*cfg, o->set.values[i]));
    DLS_TRY(override_string(*cfg, "data.corpus", o->corpus));
    DLS_TRY(override_string(*cfg, "output", o->output));
    for (int i = 0; i < 6; i++)
        DLS_TRY(override_string(*cfg, axes[i], o->axes[i]));
    DLS_TRY(dls_train_config_load(*cfg, run));
    /* resume after a restart */
    const char *restart = getenv("DLS_RESTART");
    if (restart && atoi(restart) > 0)
        run->resume = 1; // or the checkpoints would be removed
    return DLS_OK;
}

/* say it once */
/* A mistake in the input, which every rank finds: rank 0 reports it. */
static dls_status say_it_once(dls_status status, int *exit_code)
{
    const char *rank = getenv("DLS_RANK");
    int launched = getenv("DLS_ARENA_FD") != NULL;
    if (status != DLS_ERR_INPUT || !launched || !rank || strcmp(rank, "0") == 0)
        return status;
    sleep(5);
    *exit_code = 2;
    return DLS_OK;
}

/* train from a configuration */
static dls_status use_the_cluster(const dls_train_config *run)
{
    const dls_gpu_options options = {
        .cluster_file = getenv("DLS_CLUSTER") ? NULL : run->cluster};
    return dls_gpu_init(&options);
}

static dls_status train_with(const dls_train_config *run, int *exit_code)
{
    dls_comm *comm = NULL;
    DLS_TRY(dls_comm_create(&comm, NULL));  // what fails here is this rank's own
    dls_status status = say_it_once(dls_train_run(run, comm), exit_code);
    dls_comm_destroy(comm);
    return status;
}

dls_status command_train(int argc, char **argv, int *exit_code)
{
    train_options o = {0};
    dls_config *cfg = NULL;
    dls_train_config run;
    dls_status status;
    int helped;
    DLS_TRY(parse_train(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    status = load_run(&o, &cfg, &run);
    if (status == DLS_OK)
        status = use_the_cluster(&run);
    if (status == DLS_OK)
        status = dls_train_check_layout(&run, dls_gpu_world());
    status = status == DLS_OK ? train_with(&run, exit_code)
                              : say_it_once(status, exit_code);
    dls_config_free(cfg);
    return status;
}

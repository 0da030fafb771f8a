/* code/train/plan_command.c: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* One command, and what it is asked for decides what it prints. */
#include "train/plan_command.h"

#include "base/args.h"

/* choose the kind of plan */
static dls_status choose(const dls_plan_asked *w)
{
    int kinds = (w->model != NULL) + (w->run != NULL)
        + (w->data.config || w->data.parameters.count > 0);
    if (kinds != 1)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: expected one of --model, --run, "
                        "--parameters and --config");
    if (w->search && !w->model)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: --search: expected --model");
    if (w->run)
        return dls_plan_run(w);
    if (w->model)
        return w->search ? dls_plan_search(w) : dls_plan_sizes(w);
    return dls_plan_data(&w->data);
}

/* read the words of a plan */
dls_status dls_plan_command(int argc, char **argv, int *exit_code)
{
    dls_plan_asked w = {.data = {.prefetch = 1}, .sequences = 1, .first = 5,
                        .memory = 80, .link = 1};
    dls_plan_wanted *d = &w.data;
    int helped;
    const dls_arg args[] = {
        {"--model", DLS_ARG_STRING, &w.model, "FILE", "sizes of its section model"},
        {"--search", DLS_ARG_FLAG, &w.search, NULL, "the best layouts for it"},
        {"--run", DLS_ARG_STRING, &w.run, "FILE", "or a run: memory, time and causes"},
        {"--set", DLS_ARG_LIST, &w.set, "KEY=VALUE", "change a setting; repeatable"},
        {"--cluster", DLS_ARG_STRING, &w.cluster, "NAME", "or a file (dgx-h100)"},
        {"--gpus", DLS_ARG_LIST, &d->gpus, "N", "devices; may be repeated"},
        {"--batch", DLS_ARG_INT, &w.batch, "N", "sequences of a step, for --search"},
        {"--memory", DLS_ARG_REAL, &w.memory, "GB", "of a device, for --search (80)"},
        {"--first", DLS_ARG_INT, &w.first, "N", "layouts that --search prints (5)"},
        {"--sequences", DLS_ARG_INT, &w.sequences, "N", "served at once (1)"},
        {"--link", DLS_ARG_REAL, &w.link, "GB/S", "that weights are read with (1)"},
        {"--parameters", DLS_ARG_LIST, &d->parameters, "P", "or laws; repeatable"},
        {"--config", DLS_ARG_STRING, &d->config, "FILE", "or a model, to the byte"},
        {"--prefetch", DLS_ARG_INT, &d->prefetch, "N", "of its ZeRO-3: units ahead"},
        {"--offload", DLS_ARG_FLAG, &d->offload, NULL, "the host has the optimizer"},
        {"--narrow", DLS_ARG_FLAG, &d->narrow, NULL, "gradients in bf16"},
        {"--deepspeed", DLS_ARG_FLAG, &d->deepspeed, NULL, "by DeepSpeed's estimator"},
        {"--largest", DLS_ARG_REAL, &d->largest, "P", "its largest layer"},
        {"--json", DLS_ARG_FLAG, &d->json, NULL, "print JSON"}};
    const dls_args spec = {"dls plan", "Prints what a model takes of devices.",
                           "dls plan --search --model code/train/models/gpt3-175b.yaml "
                           "--cluster h100-128-nodes --gpus 1024 --batch 1536", args,
                           sizeof args / sizeof args[0]};
    (void)exit_code;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    return helped ? DLS_OK : choose(&w);
}

/* tests/train/bench_plan.c: from chapters/07-planner-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* How long the search takes: three models on 1,024 GPUs, one after the other.
 * bench_plan, from the root of the source tree. Prints seconds and layouts a second. */
#include <stdio.h>
#include <time.h>

#include "base/args.h"
#include "train/plan_command.h"

/* time one search */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static dls_status load_model(const char *path, dls_transformer_config *model)
{
    dls_config *cfg;
    DLS_TRY(dls_config_load(path, &cfg));
    dls_status s = dls_transformer_config_load(model, cfg);
    dls_config_free(cfg);
    return s;
}

static dls_status time_search(const char *name, int batch)
{
    char path[128];
    dls_transformer_config model;
    dls_train_config base;
    dls_planner planner;
    dls_layout_search s = {.base = &base, .world = 1024, .memory = 80e9, .wanted = 5};
    snprintf(path, sizeof path, "code/train/models/%s.yaml", name);
    DLS_TRY(load_model(path, &model));
    dls_plan_base(&model, batch, &base);
    double began = now();
    DLS_TRY(dls_planner_open(&planner, base.dtype));
    dls_status status = dls_search_layouts(&planner, &s);
    dls_planner_close(&planner);
    double seconds = now() - began;
    DLS_TRY(status);
    printf("%-14s %8lld layouts %6lld played %7.2f s %9.0f layouts/s\n", name,
           (long long)s.considered, (long long)s.played, seconds,
           (double)s.considered / seconds);
    return DLS_OK;
}

/* run the plan bench */
int main(void)
{
    static const struct { const char *model; int batch; } asked[] = {
        {"gpt3-175b", 1536}, {"llama-70b", 2048}, {"mt-nlg-530b", 2048}};
    const dls_gpu_options o = {.cluster_file = "h100-128-nodes", .world = 1024};
    dls_status s = dls_gpu_init(&o);
    for (int i = 0; s == DLS_OK && i < 3; i++)
        s = time_search(asked[i].model, asked[i].batch);
    if (s != DLS_OK)
        fprintf(stderr, "bench_plan: %s\n", dls_status_message());
    return s != DLS_OK;
}

/* code/train/plan_print.c: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* What the plans of a run and of a search print. */
#include <stdio.h>
#include <stdlib.h>

#include "base/args.h"
#include "base/table.h"
#include "train/layout.h"
#include "train/plan_command.h"

/* read the number of devices */
static dls_status read_world(const dls_plan_asked *w, int *world)
{
    char *end = NULL;
    long n = w->data.gpus.count == 1 ? strtol(w->data.gpus.values[0], &end, 10) : 0;
    if (!end || *end || n < 1 || n > DLS_MESH_MOST)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: --gpus: expected one number from 1 to "
                        "%d", DLS_MESH_MOST);
    *world = (int)n;
    return DLS_OK;
}

static dls_status open_planner(const char *cluster, dls_dtype dtype, int world,
                               dls_planner *planner)
{
    const dls_gpu_options o = {.cluster_file = cluster, .world = world};
    DLS_TRY(dls_gpu_init(&o));
    return dls_planner_open(planner, dtype);
}

/* print the causes of layouts */
/* Milliseconds by cause, a layout per column pair; the last one minus the first. */
static dls_status print_causes(const dls_predicted *a, const dls_predicted *b, int json)
{
    static const dls_column columns[] = {
        {"cause", NULL}, {"ms", "%.3f"}, {"runner-up", "%.3f"}, {"more", "%+.3f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, b ? 4 : 2));
    for (int i = 0; i <= DLS_CAUSES; i++) {
        double x = i < DLS_CAUSES ? a->cause[i] : a->seconds;
        double y = !b ? 0 : i < DLS_CAUSES ? b->cause[i] : b->seconds;
        dls_table_add_text(t, i < DLS_CAUSES ? dls_cause_name((dls_cause)i) : "step");
        dls_table_add_real(t, 1e3 * x);
        if (b)
            dls_table_add_real(t, 1e3 * y);
        if (b)
            dls_table_add_real(t, 1e3 * (y - x));
    }
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

static dls_status print_memory(const dls_step_costs *k, int json)
{
    static const dls_column columns[] = {
        {"stage rank", NULL}, {"parameters", NULL}, {"gradients", NULL},
        {"optimizer", NULL}, {"activations", NULL}, {"communication", NULL},
        {"all GB", "%.3f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 7));
    for (int r = 0; r < k->schedule.options.ranks; r++) {
        size_t bytes[DLS_MEM_PURPOSES], sum = 0;
        dls_predict_memory(k, r, bytes);
        dls_table_add_int(t, r);
        for (int p = DLS_MEM_PARAMETERS; p < DLS_MEM_PURPOSES; p++) {
            dls_table_add_int(t, (int64_t)bytes[p]);
            sum += bytes[p];
        }
        dls_table_add_real(t, (double)sum / 1e9);
    }
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

/* plan one run */
static dls_status plan_config(const dls_plan_asked *w, const dls_train_config *c,
                              int world)
{
    dls_planner planner = {0};
    dls_step_costs k;
    dls_predicted is;
    DLS_TRY(open_planner(w->cluster ? w->cluster : c->cluster, c->dtype, world,
                         &planner));
    dls_status s = dls_train_check_shape(c, world);
    if (s == DLS_OK)
        s = dls_predict_step(&planner, c, world, &is);
    if (s == DLS_OK)
        s = dls_predict_costs(&planner, c, world, &k);
    if (s == DLS_OK) {
        s = print_memory(&k, w->data.json);
        dls_predict_costs_free(&k);
        if (!w->data.json)
            printf("step %.6f ms, %.4g FLOPs, MFU %.2f %%\n", 1e3 * is.seconds, is.flops,
                   100 * is.mfu);
    }
    if (s == DLS_OK)
        s = print_causes(&is, NULL, w->data.json);
    dls_planner_close(&planner);
    return s;
}

dls_status dls_plan_run(const dls_plan_asked *w)
{
    dls_config *cfg;
    dls_train_config c;
    int world;
    DLS_TRY(read_world(w, &world));
    DLS_TRY(dls_config_load(w->run, &cfg));
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i < w->set.count; i++)
        s = dls_config_override(cfg, w->set.values[i]);
    if (s == DLS_OK)
        s = dls_train_config_load(cfg, &c);
    if (s == DLS_OK)
        s = plan_config(w, &c, world);
    dls_config_free(cfg);
    return s;
}

/* prepare a search */
/* A run of which only the model, the batch and the type are said: all else usual. */
void dls_plan_base(const dls_transformer_config *model, int batch, dls_train_config *c)
{
    *c = (dls_train_config){.model = *model, .global_batch = batch, .micro_batch = 1,
                            .dtype = DLS_BF16, .overlap = 1, .log_every = 10,
                            .adamw = {0.9, 0.95, 1e-8, 0.1, 1}};
    c->ddp.bucket_bytes = 25 << 20;
    c->ddp.first_bucket_bytes = 1 << 20;
    c->zero.prefetch = 1;
    c->pipeline.by_cost = 1;
    c->sharding = (dls_sharding){.chunks = 1, .ulysses = 1};
}

/* print what was found */
static dls_status print_found(const dls_layout_search *s, int json)
{
    static const dls_column columns[] = {
        {"step s", "%.4f"}, {"MFU", "%.3f"}, {"GB", "%.1f"}, {"layout", NULL}};
    char text[DLS_LAYOUT_TEXT];
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 4));
    for (int i = 0; i < s->found; i++) {
        const dls_found *f = &s->best[i];
        dls_layout_text(&f->c, text);
        dls_table_add_real(t, f->is.seconds);
        dls_table_add_real(t, f->is.mfu);
        dls_table_add_real(t, (double)f->bytes / 1e9);
        dls_table_add_text(t, text);
    }
    dls_status status = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return status;
}

/* The next layout that is not the winner with another schedule or less memory. */
static int runner_up(const dls_layout_search *s)
{
    for (int i = 1; i < s->found; i++)
        for (int a = 0; a < DLS_AXES; a++)
            if (s->best[i].c.mesh.size[a] != s->best[0].c.mesh.size[a])
                return i;
    return s->found > 1 ? 1 : -1;
}

static dls_status print_search(const dls_layout_search *s, int json)
{
    int other = runner_up(s);
    DLS_TRY(print_found(s, json));
    if (!json)
        printf("%lld layouts: %lld impossible, %lld too large, %lld played\n",
               (long long)s->considered, (long long)s->refused, (long long)s->too_large,
               (long long)s->played);
    if (other < 0)
        return DLS_OK;
    if (!json)
        printf("why layout 1 beats layout %d:\n", other + 1);
    return print_causes(&s->best[0].is, &s->best[other].is, json);
}

/* plan by search */
static dls_status check_words(const dls_plan_asked *w)
{
    if (w->batch < 1 || w->batch > 1 << 20)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: --batch: expected 1 to %d, got %lld",
                        1 << 20, (long long)w->batch);
    if (!(w->memory > 0 && w->memory <= 1e6))
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: --memory: expected GB from 0 to 1e6, "
                        "got %g", w->memory);
    if (w->first < 1 || w->first > DLS_FOUND_MOST)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: --first: expected 1 to %d, got %lld",
                        DLS_FOUND_MOST, (long long)w->first);
    return DLS_OK;
}

static dls_status search(const dls_plan_asked *w, const dls_transformer_config *model,
                         int world)
{
    dls_train_config base;
    dls_planner planner = {0};
    dls_layout_search s = {.base = &base, .world = world, .memory = 1e9 * w->memory,
                           .wanted = (int)w->first};
    dls_plan_base(model, (int)w->batch, &base);
    DLS_TRY(open_planner(w->cluster, base.dtype, world, &planner));
    dls_status status = dls_search_layouts(&planner, &s);
    dls_planner_close(&planner);
    return status == DLS_OK ? print_search(&s, w->data.json) : status;
}

dls_status dls_plan_search(const dls_plan_asked *w)
{
    dls_transformer_config model;
    dls_config *cfg;
    int world;
    DLS_TRY(read_world(w, &world));
    DLS_TRY(check_words(w));
    DLS_TRY(dls_config_load(w->model, &cfg));
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i < w->set.count; i++)
        s = dls_config_override(cfg, w->set.values[i]);
    if (s == DLS_OK)
        s = dls_transformer_config_load(&model, cfg);
    if (s == DLS_OK)
        s = search(w, &model, world);
    dls_config_free(cfg);
    return s;
}

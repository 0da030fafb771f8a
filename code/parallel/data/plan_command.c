/* code/parallel/data/plan_command.c: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* Three tables: the laws, DeepSpeed's, and the exact bytes of a model of this library. */
#include "parallel/data/plan_command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/config.h"
#include "base/table.h"
#include "model/transformer.h"
#include "parallel/data/laws.h"
#include "parallel/data/zero.h"

/* read numbers from a list */
typedef struct numbers { int count; double at[DLS_ARG_LIST_LIMIT]; } numbers;

static dls_status read_numbers(const char *option, const dls_arg_list *list, double most,
                               numbers *out)
{
    out->count = list->count;
    for (int i = 0; i < list->count; i++) {
        char *end;
        out->at[i] = strtod(list->values[i], &end);
        if (*end || end == list->values[i] || !(out->at[i] >= 1 && out->at[i] <= most))
            return DLS_FAIL(DLS_ERR_INPUT, "dls plan: %s: expected a number from 1 to "
                            "%g, got \"%s\"", option, most, list->values[i]);
    }
    return DLS_OK;
}

static const char *const ways[] = {"data parallel", "ZeRO-1", "ZeRO-2", "ZeRO-3"};

/* print the laws */
static void add_law(dls_table *t, double parameters, double n, int stage)
{
    double bytes = dls_law_memory(dls_bytes_mixed(), stage, n);
    dls_table_add_real(t, parameters);
    dls_table_add_real(t, n);
    dls_table_add_text(t, ways[stage]);
    dls_table_add_real(t, bytes);
    dls_table_add_real(t, bytes * parameters * 1e-9);
    dls_table_add_real(t, dls_law_sent(stage, n) * parameters * 2e-9);
}

static dls_status print_laws(const numbers *parameters, const numbers *gpus, int json)
{
    static const dls_column columns[] = {
        {"parameters", "%.4g"}, {"GPUs", "%.0f"}, {"way", NULL},
        {"bytes/parameter", "%.4f"}, {"GB", "%.2f"}, {"sent GB", "%.2f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 6));
    for (int p = 0; p < parameters->count; p++)
        for (int g = 0; g < gpus->count; g++)
            for (int stage = 0; stage <= 3; stage++)
                add_law(t, parameters->at[p], gpus->at[g], stage);
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

/* print the estimator */
static dls_status print_estimator(const numbers *parameters, const numbers *gpus,
                                  double largest, int json)
{
    static const dls_column columns[] = {
        {"parameters", "%.4g"}, {"GPUs", "%.0f"}, {"way", NULL}, {"GiB", "%.2f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 4));
    for (int p = 0; p < parameters->count; p++)
        for (int g = 0; g < gpus->count; g++)
            for (int stage = 2; stage <= 3; stage++) {
                double bytes = dls_law_deepspeed(stage, parameters->at[p], largest,
                                                 gpus->at[g]);
                dls_table_add_real(t, parameters->at[p]);
                dls_table_add_real(t, gpus->at[g]);
                dls_table_add_text(t, ways[stage]);
                dls_table_add_real(t, bytes / (1 << 30));
            }
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

/* print the exact bytes */
static dls_status add_exact(dls_table *t, const dls_params *set, dls_dtype dtype, int n,
                            dls_zero_options *o)
{
    dls_zero_sizes is;
    DLS_TRY(dls_zero_predict(set->items, set->n, dtype, n, o, &is));
    dls_table_add_int(t, n);
    dls_table_add_text(t, ways[o->stage]);
    size_t bytes[] = {is.parameters, is.gradients, is.optimizer, is.buffers,
                      is.parameters + is.gradients + is.optimizer + is.buffers};
    for (int i = 0; i < 5; i++)
        dls_table_add_int(t, (int64_t)bytes[i]);
    dls_table_add_real(t, is.sent_bytes);
    return DLS_OK;
}

static dls_status print_exact(const dls_params *set, dls_dtype dtype, const numbers *gpus,
                              dls_zero_options *o, int json)
{
    static const dls_column columns[] = {
        {"GPUs", NULL}, {"way", NULL}, {"parameters", NULL}, {"gradients", NULL},
        {"optimizer", NULL}, {"buffers", NULL}, {"all bytes", NULL},
        {"sent bytes", "%.0f"}};
    dls_table *t;
    dls_status s = DLS_OK;
    DLS_TRY(dls_table_create(&t, columns, 8));
    for (int g = 0; s == DLS_OK && g < gpus->count; g++)
        for (o->stage = 0; s == DLS_OK && o->stage <= 3; o->stage++)
            s = add_exact(t, set, dtype, (int)gpus->at[g], o);
    if (s == DLS_OK)
        s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

static dls_status plan_model(const char *path, const numbers *gpus, dls_zero_options *o,
                             int json)
{
    static const dls_dtype types[] = {DLS_F32, DLS_F64, DLS_BF16};
    dls_transformer_config c;
    dls_params set = {0};
    dls_config *cfg;
    int type;
    DLS_TRY(dls_config_load(path, &cfg));
    dls_status s = dls_transformer_config_load(&c, cfg);
    if (s == DLS_OK)
        s = dls_config_choice_or(cfg, "train.dtype", "f32|f64|bf16", 0, &type);
    if (s == DLS_OK)
        s = dls_transformer_list(&c, &set);
    if (s == DLS_OK)
        s = print_exact(&set, types[type], gpus, o, json);
    dls_params_free(&set);
    dls_config_free(cfg);
    return s;
}

/* run the plan command */

dls_status dls_plan_data(const dls_plan_wanted *w)
{
    numbers parameters, gpus;
    dls_zero_options o = {.prefetch = (int)w->prefetch, .offload = w->offload,
                          .narrow_gradients = w->narrow};
    DLS_TRY(read_numbers("--gpus", &w->gpus, w->config ? 1 << 20 : 1e9, &gpus));
    DLS_TRY(read_numbers("--parameters", &w->parameters, 1e18, &parameters));
    if (gpus.count == 0 || (parameters.count == 0) == !w->config)
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: expected --gpus, and --parameters or "
                        "--config");
    if (w->config)
        return plan_model(w->config, &gpus, &o, w->json);
    return w->deepspeed ? print_estimator(&parameters, &gpus, w->largest, w->json)
                        : print_laws(&parameters, &gpus, w->json);
}

/* code/train/plan_sizes.c: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* The sizing rules, each with its terms. */
#include <math.h>
#include <stdio.h>

#include "base/args.h"
#include "base/table.h"
#include "parallel/data/laws.h"
#include "train/plan_command.h"

/* count what a model takes */
static double kv_token(const dls_transformer_config *c)
{
    return 2.0 * c->layers * c->kv_heads * c->head_size * 2;
}

/* Narayanan and others 2021, equation 3: with everything computed again once. */
double dls_size_megatron_flops(const dls_transformer_config *c, double sequences)
{
    double B = sequences, s = c->context, L = c->layers, h = c->channels;
    double V = c->vocabulary;
    return 96 * B * s * L * h * h * (1 + s / (6 * h) + V / (16 * L * h));
}

void dls_size_model(const dls_transformer_config *c, double sequences, double link,
                    dls_sizes *out)
{
    double n = (double)dls_transformer_parameter_count(c);
    *out = (dls_sizes){.parameters = n, .infer = 2 * n,
                       .kv_token = kv_token(c),
                       .train = dls_law_memory(dls_bytes_mixed(), 0, 1) * n,
                       .flops_token = 6.0 * dls_transformer_active_count(c)};
    out->cache = out->kv_token * c->context * sequences;
    out->load = out->infer / (1e9 * link);
}

/* count the operations of a sequence */
/* One sequence through the model and back, everything computed again: as recorded. */
dls_status dls_size_counted_flops(dls_planner *planner, const dls_transformer_config *c,
                                  double *flops)
{
    dls_transformer_config m = *c;
    dls_planned_unit u;
    int L = c->layers;
    m.recompute = DLS_RECOMPUTE_FULL;
    dls_planned_pass pass = {&m, DLS_BF16, 1, c->context, 0};
    *flops = 0;
    for (int unit = 0; unit <= L + 1; unit++) {     // the same blocks are known already
        DLS_TRY(dls_planner_unit(planner, &pass, unit, unit + 1, &u));
        *flops += u.F.flops + u.B.flops;
    }
    return DLS_OK;
}

/* print the sizes */
typedef struct row { const char *what, *terms; double value; const char *unit; } row;

static dls_status print_rows(const row *rows, int n, int json)
{
    static const dls_column columns[] = {
        {"what", NULL}, {"terms", NULL}, {"value", "%.4g"}, {"unit", NULL}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 4));
    for (int i = 0; i < n; i++) {
        dls_table_add_text(t, rows[i].what);
        dls_table_add_text(t, rows[i].terms);
        dls_table_add_real(t, rows[i].value);
        dls_table_add_text(t, rows[i].unit);
    }
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

static dls_status print_sizes(const dls_plan_asked *w, const dls_transformer_config *c)
{
    dls_sizes is;
    double devices[2] = {1, 1};
    char cache[64], load[64], token[64];
    const dls_gpu_options o = {.cluster_file = w->cluster};
    dls_planner planner = {0};
    double counted;
    DLS_TRY(dls_gpu_init(&o));
    DLS_TRY(dls_planner_open(&planner, DLS_BF16));
    dls_status s = dls_size_counted_flops(&planner, c, &counted);
    dls_planner_close(&planner);
    DLS_TRY(s);
    dls_size_model(c, (double)w->sequences, w->link, &is);
    devices[0] = ceil((is.infer + is.cache) / (0.9e9 * w->memory));
    devices[1] = ceil(is.train / (0.75e9 * w->memory));
    snprintf(token, sizeof token, "2 * %d layers * %d heads * %d * 2 bytes", c->layers,
             c->kv_heads, c->head_size);
    snprintf(cache, sizeof cache, "%lld sequences of %d tokens", (long long)w->sequences,
             c->context);
    snprintf(load, sizeof load, "weights at %g GB/s", w->link);
    const row rows[] = {
        {"parameters", "", is.parameters, ""},
        {"to infer", "2 bytes a parameter", is.infer / 1e9, "GB"},
        {"KV cache of a token", token, is.kv_token, "bytes"},
        {"KV cache", cache, is.cache / 1e9, "GB"},
        {"time to load", load, is.load, "s"},
        {"devices to infer", "90 % of their memory", devices[0], ""},
        {"to train", "2 + 2 + 12 bytes a parameter", is.train / 1e9, "GB"},
        {"devices to train", "75 %, the rest for activations", devices[1], ""},
        {"FLOPs of a token", c->moe.experts ? "6 a parameter that it passes"
                                            : "6 a parameter", is.flops_token, ""},
        {"FLOPs of a sequence", "96 s L h^2 (1 + s/6h + V/16Lh)",
         dls_size_megatron_flops(c, 1), ""},
        {"counted", "as executed, all computed again", counted, ""}};
    return print_rows(rows, sizeof rows / sizeof *rows, w->data.json);
}

dls_status dls_plan_sizes(const dls_plan_asked *w)
{
    dls_transformer_config c;
    dls_config *cfg;
    if (w->sequences < 0 || !(w->link > 0) || !(w->memory > 0))
        return DLS_FAIL(DLS_ERR_INPUT, "dls plan: expected --sequences, --link and "
                        "--memory above 0");
    DLS_TRY(dls_config_load(w->model, &cfg));
    dls_status s = dls_transformer_config_load(&c, cfg);
    if (s == DLS_OK)
        s = print_sizes(w, &c);
    dls_config_free(cfg);
    return s;
}

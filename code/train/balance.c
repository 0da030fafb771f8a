/* code/train/balance.c: from chapters/08-router-run.md. Edit the chapter, or edit here and run "make untangle". */
/* See balance.h. The models of a rank are one, or a stage's each. */
#include "train/balance.h"

#include <stdlib.h>
#include <string.h>

#include "train/pipelined.h"

/* walk over the models of a rank */
/* This rank's i-th model that has expert layers; NULL: no more. */
static dls_transformer *model_of(const dls_trainer *t, int i)
{
    dls_transformer *m = NULL;
    for (int at = 0; i >= 0; at++) {
        m = t->pipelined ? dls_pipelined_model(t, at) : at == 0 ? t->model : NULL;
        if (!m)
            return NULL;
        i -= m->balance.layers > 0;
    }
    return m;
}

/* The number, among all expert layers, of the first one of a model. */
static int first_layer(const dls_transformer *m)
{
    const dls_transformer_config *c = &m->config;
    int block = c->to_unit > 0 && c->from_unit > 1 ? c->from_unit - 1 : 0;
    return block > c->moe.dense_layers ? block - c->moe.dense_layers : 0;
}
/* begin and end a step of the balance */
dls_status dls_train_balance_begin(dls_trainer *t)
{
    dls_transformer *m;
    for (int i = 0; (m = model_of(t, i)); i++)
        DLS_TRY(dls_balance_clear(&m->balance));
    return DLS_OK;
}

static dls_status add_up(dls_balance *b, dls_comm *group)
{
    return !group || b->layers == 0 ? DLS_OK
         : dls_comm_all_reduce(group, b->tally, b->layers * dls_tally_length(b->experts),
                               dls_dtype_accumulator(b->ctx->dtype), DLS_SUM,
                               b->ctx->stream);
}

dls_status dls_train_balance_settle(dls_transformer *m, dls_comm *mirror)
{
    DLS_TRY(add_up(&m->balance, m->pass.axes ? m->pass.axes->rows : NULL));
    DLS_TRY(add_up(&m->balance, mirror));
    return dls_balance_step(&m->balance, m->config.moe.bias_rate);
}

dls_status dls_train_balance_end(dls_trainer *t)
{
    dls_comm *mirror = t->pipelined ? dls_pipelined_mirror(t) : NULL;
    dls_transformer *m;
    for (int i = 0; (m = model_of(t, i)); i++)
        DLS_TRY(dls_train_balance_settle(m, mirror));
    return DLS_OK;
}
/* gather the loads of a run */
/* Of each layer a load, E rows chosen, E rows dropped: in numbers. */
static size_t numbers(const dls_train_loads *l)
{
    return sizeof(dls_load) / sizeof(double) + 2 * (size_t)l->experts;
}

/* Fills in, in mine, the layers that this rank has. */
static dls_status read_own(dls_trainer *t, const dls_train_loads *l, double *mine)
{
    dls_transformer *m;
    size_t head = sizeof(dls_load) / sizeof(double);
    for (int i = 0; (m = model_of(t, i)); i++)
        for (int j = 0; j < m->balance.layers; j++) {
            double *to = mine + (first_layer(m) + j) * numbers(l);
            DLS_TRY(dls_balance_read(&m->balance, j, (dls_load *)to, to + head,
                                     to + head + l->experts));
        }
    return DLS_OK;
}

/* The layer's numbers of the first rank that has them. */
static void take_layer(dls_train_loads *l, int layer, const double *all, int world)
{
    size_t n = numbers(l), head = sizeof(dls_load) / sizeof(double), E = l->experts;
    const double *from = all + layer * n;
    for (int r = 1; r < world && ((const dls_load *)from)->experts == 0; r++)
        from = all + (r * l->layers + layer) * n;
    memcpy(&l->load[layer], from, sizeof *l->load);
    memcpy(l->chosen + layer * E, from + head, E * sizeof *l->chosen);
    memcpy(l->dropped + layer * E, from + head + E, E * sizeof *l->dropped);
}
static dls_status gather(dls_trainer *t, dls_train_loads *out)
{
    int world = t->pipelined ? t->world : 1;
    size_t n = out->layers * numbers(out);
    double *all = calloc(n * (world + 1), sizeof *all), *mine = all + n * world;
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the loads of %d layers",
                        out->layers);
    dls_status s = read_own(t, out, world > 1 ? mine : all);
    if (s == DLS_OK && world > 1)
        s = dls_comm_all_gather_host(t->comm, mine, n * sizeof *mine, all);
    for (int i = 0; s == DLS_OK && i < out->layers; i++)
        take_layer(out, i, all, world);
    free(all);
    return s;
}

dls_status dls_train_balance_read(dls_trainer *t, dls_train_loads *out)
{
    const dls_transformer_config *c = &t->config->model;
    int layers = c->moe.experts > 0 ? c->layers - c->moe.dense_layers : 0;
    size_t n = layers > 0 ? (size_t)layers * c->moe.experts : 0;
    *out = (dls_train_loads){0};
    if (layers <= 0)
        return DLS_OK;
    *out = (dls_train_loads){layers, c->moe.experts, calloc(layers, sizeof *out->load),
                             calloc(n, sizeof(double)), calloc(n, sizeof(double))};
    if (!out->load || !out->chosen || !out->dropped)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the loads of %d layers", layers);
    return gather(t, out);
}

void dls_train_loads_free(dls_train_loads *l)
{
    free(l->load);
    free(l->chosen);
    free(l->dropped);
    *l = (dls_train_loads){0};
}
/* write the loads of a run */
static void write_layer(const dls_load *l, int layer, const double *chosen, FILE *out)
{
    fprintf(out, "%s{\"layer\":%d,\"most\":%.9g,\"least\":%.9g,\"violation\":%.9g,"
            "\"dropped\":%.9g,\"aux_batch\":%.9g,\"aux_sequence\":%.9g,\"z\":%.9g,"
            "\"entropy\":%.9g,\"chosen\":[", layer ? "," : "", layer, l->most, l->least,
            l->violation, l->dropped, l->batch, l->sequence, l->z, l->entropy);
    for (int e = 0; e < (int)l->experts; e++)
        fprintf(out, "%s%.0f", e ? "," : "", chosen[e]);
    fprintf(out, "]}");
}

void dls_train_loads_write(const dls_train_loads *l, int64_t step, FILE *metrics)
{
    fprintf(metrics, "{\"step\":%lld,\"experts\":[", (long long)step);
    for (int i = 0; i < l->layers; i++)
        write_layer(&l->load[i], i, l->chosen + i * l->experts, metrics);
    fprintf(metrics, "]}\n");
}

void dls_train_loads_tell(const dls_train_loads *l, char *text, size_t size)
{
    int worst = 0;
    *text = 0;
    for (int i = 1; i < l->layers; i++)
        if (l->load[i].most > l->load[worst].most)
            worst = i;
    if (l->layers > 0)
        snprintf(text, size, "experts %.2f ... %.2f of their mean, %.1f %% dropped",
                l->load[worst].least, l->load[worst].most,
                100 * l->load[worst].dropped);
}

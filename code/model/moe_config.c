/* code/model/moe_config.c: from chapters/08-mixture-of-experts-models.md. Edit the chapter, or edit here and run "make untangle". */
/* Reading, checking, writing and counting what model.moe says. */
#include "model/moe_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "layers/dispatch.h"
#include "layers/router.h"

/* fill in the experts */
dls_moe dls_moe_mixtral(int experts, int chosen, int hidden)
{
    return (dls_moe){.experts = experts, .chosen = chosen, .hidden = hidden,
                     .gate = DLS_GATE_SOFTMAX, .normalised = 1, .aux_batch = 0.02};
}

dls_moe dls_moe_deepseek(int experts, int chosen, int hidden, int shared)
{
    return (dls_moe){.experts = experts, .chosen = chosen, .hidden = hidden,
                     .shared = shared, .gate = DLS_GATE_SIGMOID, .normalised = 1,
                     .scale = 2.5, .aux_sequence = 1e-4, .bias_rate = 1e-3};
}

/* tabulate the settings of experts */
typedef struct setting { const char *key; size_t at; double min, max; } setting;

static const setting counts[] = {
    {"model.moe.experts", offsetof(dls_moe, experts), 1, 1024},
    {"model.moe.chosen", offsetof(dls_moe, chosen), 1, 1024},
    {"model.moe.hidden", offsetof(dls_moe, hidden), 1, 1 << 20},
    {"model.moe.shared", offsetof(dls_moe, shared), 0, 64},
    {"model.moe.dense_layers", offsetof(dls_moe, dense_layers), 0, 1000},
    {"model.moe.groups", offsetof(dls_moe, groups), 0, 1024},
    {"model.moe.group_limit", offsetof(dls_moe, group_limit), 0, 1024}};

static const setting reals[] = {
    {"model.moe.scale", offsetof(dls_moe, scale), 0, 1e6},
    {"model.moe.capacity", offsetof(dls_moe, capacity), 0, 1e6},
    {"model.moe.aux_batch", offsetof(dls_moe, aux_batch), 0, 1e6},
    {"model.moe.aux_sequence", offsetof(dls_moe, aux_sequence), 0, 1e6},
    {"model.moe.z_loss", offsetof(dls_moe, z_loss), 0, 1e6},
    {"model.moe.bias_rate", offsetof(dls_moe, bias_rate), 0, 1}};

static const setting flags[] = {
    {"model.moe.normalised", offsetof(dls_moe, normalised), 0, 1},
    {"model.moe.padded", offsetof(dls_moe, padded), 0, 1},
    {"model.moe.balanced", offsetof(dls_moe, balanced), 0, 1}};

enum { COUNTS = sizeof counts / sizeof *counts, REALS = sizeof reals / sizeof *reals,
       FLAGS = sizeof flags / sizeof *flags };
static const char gates[] = "softmax|sigmoid|identity";

static int *count_at(const dls_moe *m, const setting *s)
{
    return (int *)((char *)m + s->at);
}

static double *real_at(const dls_moe *m, const setting *s)
{
    return (double *)((char *)m + s->at);
}

/* read the experts */
static dls_status read_numbers(dls_moe *m, dls_config *cfg)
{
    for (int i = 0; i < COUNTS; i++) {
        const setting *s = &counts[i];
        int64_t v;
        if (i < 2)              // there is no usual number of them
            DLS_TRY(dls_config_int(cfg, s->key, (int64_t)s->min, (int64_t)s->max, &v));
        else
            DLS_TRY(dls_config_int_or(cfg, s->key, (int64_t)s->min, (int64_t)s->max,
                                      *count_at(m, s), &v));
        *count_at(m, s) = (int)v;
    }
    /* read reals and flags */
    for (int i = 0; i < REALS; i++)
        DLS_TRY(dls_config_real_or(cfg, reals[i].key, reals[i].min, reals[i].max, 0,
                                   real_at(m, &reals[i])));
    for (int i = 0; i < FLAGS; i++)
        DLS_TRY(dls_config_bool_or(cfg, flags[i].key, 0, count_at(m, &flags[i])));
    return DLS_OK;
}

dls_status dls_moe_load(dls_transformer_config *c, dls_config *cfg)
{
    char text[160];
    int gate;
    c->moe = (dls_moe){.hidden = c->hidden};
    if (!dls_config_has(cfg, "model.moe") && !dls_config_has(cfg, "model.moe.experts")) {
        c->moe.hidden = 0;
        return DLS_OK;
    }
    DLS_TRY(read_numbers(&c->moe, cfg));
    DLS_TRY(dls_config_choice_or(cfg, "model.moe.gate", gates, 0, &gate));
    c->moe.gate = (dls_gate)gate;
    /* refuse a capacity of zero */
    if (dls_config_has(cfg, "model.moe.capacity") && c->moe.capacity == 0)
        return dls_config_fail(cfg, "model.moe.capacity", "an expert of capacity 0 has "
                               "no room for any token; expected more than 0, or no "
                               "capacity at all");
    const char *key = dls_moe_problem(c, text);
    return key ? dls_config_fail(cfg, key, "%s", text) : DLS_OK;
}

/* find what experts can not be */
static const char *outside(const dls_moe *m, char text[160])
{
    for (int i = 0; i < COUNTS + REALS + FLAGS; i++) {
        /* find the value of a setting */
        const setting *s = i < COUNTS ? &counts[i]
            : i < COUNTS + REALS ? &reals[i - COUNTS] : &flags[i - COUNTS - REALS];
        int real = i >= COUNTS && i < COUNTS + REALS;
        double x = real ? *real_at(m, s) : *count_at(m, s);
        if (x >= s->min && x <= s->max)     // not so of a NaN
            continue;
        snprintf(text, 160, "expected %.10g to %.10g, got %.10g", s->min, s->max, x);
        return s->key;
    }
    return NULL;
}

/* "FIELD: TEXT", as router and dispatch say it, taken apart. */
static const char *taken_apart(char text[160])
{
    const char *message = dls_status_message(), *colon = strstr(message, ": ");
    for (int i = 0; colon && i < COUNTS + REALS + FLAGS; i++) {
        const char *key = (i < COUNTS ? &counts[i] : i < COUNTS + REALS
                           ? &reals[i - COUNTS] : &flags[i - COUNTS - REALS])->key;
        const char *field = strrchr(key, '.') + 1;
        /* pass over another field */
        if (strlen(field) != (size_t)(colon - message)
            || strncmp(field, message, strlen(field)) != 0)
            continue;
        snprintf(text, 160, "%s", colon + 2);
        return key;
    }
    snprintf(text, 160, "%s", message);
    return "model.moe";
}

const char *dls_moe_problem(const dls_transformer_config *c, char text[160])
{
    const dls_moe *m = &c->moe;
    const dls_sharding *s = &c->sharding;
    if (m->experts == 0)
        return NULL;
    const char *key = outside(m, text);
    if (key)
        return key;
    if (m->dense_layers >= c->layers) {
        snprintf(text, 160, "expected fewer than the %d layers, got %d: no block would "
                 "have experts", c->layers, m->dense_layers);
        return "model.moe.dense_layers";
    }
    /* refuse experts narrower than their ranks */
    if (s->expert_tensor > m->hidden) {
        snprintf(text, 160, "expected a column for each of the %d expert tensor ranks "
                 "(etp), got %d", s->expert_tensor, m->hidden);
        return "model.moe.hidden";
    }
    if (dls_routing_check(s, m) != DLS_OK || dls_dispatch_check(s, m) != DLS_OK)
        return taken_apart(text);
    return NULL;
}

/* write down the experts */
void dls_moe_settings(const dls_moe *m, char *text, size_t size)
{
    static const char *const words[] = {"softmax", "sigmoid", "identity"};
    size_t n = strlen(text);
    if (m->experts == 0)
        return;
    n += (size_t)snprintf(text + n, size - n, "model.moe.gate=%s\n", words[m->gate]);
    for (int i = 0; i < COUNTS; i++)
        n += (size_t)snprintf(text + n, size - n, "%s=%d\n", counts[i].key,
                              *count_at(m, &counts[i]));
    /* write the reals that are not zero */
    for (int i = 0; i < REALS; i++)
        if (*real_at(m, &reals[i]) != 0)
            n += (size_t)snprintf(text + n, size - n, "%s=%.17g\n", reals[i].key,
                                  *real_at(m, &reals[i]));
    for (int i = 0; i < FLAGS; i++)
        n += (size_t)snprintf(text + n, size - n, "%s=%s\n", flags[i].key,
                              *count_at(m, &flags[i]) ? "yes" : "no");
}

/* count the parameters of experts */
size_t dls_moe_parameters(const dls_transformer_config *c, int experts)
{
    size_t matrices = c->mlp == DLS_MLP_SWIGLU ? 3 : 2, C = c->channels;
    size_t expert = matrices * C * (size_t)c->moe.hidden;
    return (size_t)c->moe.experts * C + (size_t)(experts + c->moe.shared) * expert;
}

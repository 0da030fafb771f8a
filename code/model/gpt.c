/* code/model/gpt.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The GPT: building, planning, running. The model is a sequence
 *
 *   embedding, block 0, ..., block L-1, final norm, tied head with loss
 *
 * and its activations are one buffer: losses, stash | gradients | temporary.
 */
#include "model/gpt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* read an integer setting */
static dls_status read_int(dls_config *cfg, const char *key, int min, int max, int *to)
{
    int64_t v;
    DLS_TRY(dls_config_int(cfg, key, min, max, &v));
    *to = (int)v;
    return DLS_OK;
}

/* load the gpt configuration */
dls_status dls_gpt_config_load(dls_gpt_config *c, dls_config *cfg)
{
    *c = (dls_gpt_config){0};
    DLS_TRY(read_int(cfg, "model.vocabulary", 2, 1 << 20, &c->vocabulary));
    DLS_TRY(read_int(cfg, "model.context", 1, 1 << 17, &c->context));
    DLS_TRY(read_int(cfg, "model.layers", 1, 1000, &c->layers));
    DLS_TRY(read_int(cfg, "model.heads", 1, 1024, &c->heads));
    DLS_TRY(read_int(cfg, "model.channels", 1, 1 << 16, &c->channels));
    if (c->channels % c->heads != 0)
        return dls_config_fail(cfg, "model.heads", "expected a divisor of the %d "
                               "channels, got %d", c->channels, c->heads);
    return DLS_OK;
}

dls_status dls_gpt_config_check(const dls_gpt_config *c)
{
    int sane = c->vocabulary >= 2 && c->vocabulary <= 1 << 20 && c->context >= 1
        && c->context <= 1 << 17 && c->layers >= 1 && c->layers <= 1000
        && c->heads >= 1 && c->heads <= 1024 && c->channels >= 1
        && c->channels <= 1 << 16 && c->channels % c->heads == 0;
    if (!sane)
        return DLS_FAIL(DLS_ERR_INPUT, "no model has vocabulary %d, context %d, %d "
                        "layers, %d heads, %d channels", c->vocabulary, c->context,
                        c->layers, c->heads, c->channels);
    return DLS_OK;
}

/* build the gpt */
static void build_model(dls_gpt *g)
{
    const dls_gpt_config *c = &g->config;
    dls_build *b = &g->build;
    double std = 0.02, out_std = std / sqrt(2.0 * c->layers);
    dls_layer *list[c->layers + 3];
    int n = 0;
    list[n++] = dls_embedding(b, c->vocabulary, c->context, c->channels, std);
    for (int i = 0; i < c->layers; i++) {
        char name[32];
        snprintf(name, sizeof name, "block.%d", i);
        list[n++] = dls_block(b, name, c->channels, c->heads, std, out_std);
    }
    list[n++] = dls_layernorm(b, "ln_f", c->channels);
    list[n++] = g->head = dls_tied_head(b, list[0]);
    g->model = dls_sequence(b, list, n);
}

/* count the parameters */
size_t dls_gpt_parameter_count(const dls_gpt_config *c)
{
    size_t V = c->vocabulary, T = c->context, L = c->layers, C = c->channels;
    return (V + T) * C + L * (12 * C * C + 13 * C) + 2 * C;
}

/* predict the memory */
static dls_status plan_model(dls_gpt *g, int max_B, int max_T)
{
    g->build.params = &g->params;
    build_model(g);
    DLS_TRY(g->build.status);
    g->plan = (dls_plan){.max_B = max_B, .max_T = max_T,
                         .deferred = g->config.split_backward};
    g->losses = dls_plan_stash(&g->plan, (size_t)max_B * max_T);
    dls_layer_plan(g->model, &g->plan);
    return DLS_OK;
}

dls_status dls_gpt_predict_memory(const dls_gpt_config *c, int max_B, int max_T,
                                  dls_dtype dtype, dls_gpt_memory *out)
{
    dls_gpt g = {.config = *c};
    dls_status s = plan_model(&g, max_B, max_T);
    size_t size = dls_dtype_size(dtype);
    out->parameters = out->gradients = g.params.elements * size;
    out->activations = dls_plan_elements(&g.plan) * size;
    dls_build_free(&g.build);
    dls_params_free(&g.params);
    return s;
}

/* create a gpt */
static dls_status allocate_model(dls_gpt *g)
{
    size_t size = dls_dtype_size(g->ctx->dtype);
    DLS_TRY(dls_params_allocate(&g->params, g->ctx));
    DLS_TRY(dls_device_alloc(&g->activations, dls_plan_elements(&g->plan),
                             g->ctx->dtype, DLS_MEM_ACTIVATIONS));
    int *pending = calloc((size_t)g->params.n, sizeof *pending);
    if (!pending)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d counters", g->params.n);
    char *base = g->activations;
    g->pass = (dls_pass){
        .ctx = g->ctx, .params = &g->params, .pending = pending, .stash = base,
        .gradients = base + g->plan.stash * size,
        .temporary = base + (g->plan.stash + g->plan.gradients) * size};
    return DLS_OK;
}

dls_status dls_gpt_create(dls_gpt **out, dls_ctx *ctx, const dls_gpt_config *config,
                          int max_B, int max_T)
{
    dls_status s;
    DLS_TRY(dls_gpt_config_check(config));
    if (max_B < 1 || max_T < 1 || max_T > config->context)
        return DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: the context is %d tokens",
                        max_B, max_T, config->context);
    dls_gpt *g = calloc(1, sizeof *g);
    if (!g)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a model");
    g->config = *config;
    g->ctx = ctx;
    DLS_TRY_GOTO(s, plan_model(g, max_B, max_T), fail);
    DLS_TRY_GOTO(s, allocate_model(g), fail);
    *out = g;
    return DLS_OK;
fail:
    dls_gpt_free(g);
    return s;
}

void dls_gpt_free(dls_gpt *g)
{
    if (!g)
        return;
    dls_device_free(g->activations);
    free(g->pass.pending);
    dls_params_free(&g->params);
    dls_build_free(&g->build);
    free(g);
}

/* run the gpt forward */
static dls_status begin_pass(dls_gpt *g, const int *tokens, const int *targets,
                             int B, int T)
{
    if (B < 1 || T < 1 || B > g->plan.max_B || T > g->plan.max_T)
        return DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: planned for %d x %d",
                        B, T, g->plan.max_B, g->plan.max_T);
    g->pass.B = B;
    g->pass.T = T;
    g->pass.tokens = tokens;
    g->pass.targets = targets;
    return DLS_OK;
}

void *dls_gpt_losses(const dls_gpt *g)
{
    return dls_pass_stash(&g->pass, g->losses);
}

dls_status dls_gpt_forward(dls_gpt *g, const int *tokens, const int *targets,
                           int B, int T)
{
    DLS_TRY(begin_pass(g, tokens, targets, B, T));
    dls_trace_range_push("forward");
    dls_status s = g->model->kind->forward(g->model, &g->pass, dls_gpt_losses(g), NULL);
    dls_trace_range_pop();
    return s;
}

/* run the gpt backward */
static void expect_additions(dls_gpt *g, double loss_scale, const dls_grad_hook *hook)
{
    g->pass.loss_scale = loss_scale;
    g->pass.hook = hook && hook->fn ? hook : NULL;
    for (int i = 0; i < g->params.n; i++)
        g->pass.pending[i] = g->params.items[i].uses;
}

dls_status dls_gpt_backward(dls_gpt *g, double loss_scale, const dls_grad_hook *hook)
{
    expect_additions(g, loss_scale, hook);
    dls_trace_range_push("backward");
    dls_status s = dls_layer_backward(g->model, &g->pass, NULL, NULL, NULL);
    dls_trace_range_pop();
    return s;
}

dls_status dls_gpt_backward_input(dls_gpt *g, double loss_scale)
{
    expect_additions(g, loss_scale, NULL);
    if (!g->config.split_backward)
        return DLS_FAIL(DLS_ERR_STATE, "the model was not planned for a split backward");
    return g->model->kind->backward_input(g->model, &g->pass, NULL, NULL, NULL);
}

dls_status dls_gpt_backward_weight(dls_gpt *g, const dls_grad_hook *hook)
{
    expect_additions(g, g->pass.loss_scale, hook);
    return g->model->kind->backward_weight(g->model, &g->pass, NULL, NULL);
}

/* read the last logits */
static dls_status fetch_row(dls_gpt *g, int row, void *host)
{
    size_t bytes = g->config.vocabulary * dls_dtype_size(g->ctx->dtype);
    const char *logits = dls_pass_stash(&g->pass, g->head->slot[0]);
    DLS_CUDA(cudaMemcpyAsync(host, logits + row * bytes, bytes, cudaMemcpyDeviceToHost,
                             g->ctx->stream));
    return dls_ctx_sync(g->ctx);
}

dls_status dls_gpt_logits(dls_gpt *g, const int *tokens, int T, double *out)
{
    int V = g->config.vocabulary;
    DLS_TRY(dls_gpt_forward(g, tokens, NULL, 1, T));
    DLS_TRY(fetch_row(g, T - 1, out));
    for (int i = V - 1; g->ctx->dtype == DLS_F32 && i >= 0; i--) {
        float narrow;               // widen in place, from the end
        memcpy(&narrow, (char *)out + i * sizeof narrow, sizeof narrow);
        out[i] = narrow;
    }
    return DLS_OK;
}

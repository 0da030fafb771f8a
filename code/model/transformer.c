/* code/model/transformer.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The transformer: building, planning, running. The model is a sequence
 *
 *   embedding, block 0, ..., block L-1, final norm, tied head with loss
 *
 * and its activations are one buffer: losses, stash | gradients | temporary.
 */
#include "model/transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dropout.h"
#include "layers/tensor.h"
#include "model/block.h"
#include "tensor/bf16.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* build the transformer */
static const double initial_std = 0.02;

static int has_unit(const dls_transformer_config *c, int unit)
{
    return c->to_unit == 0 || (unit >= c->from_unit && unit < c->to_unit);
}

static int build_embedding(dls_transformer *t, dls_layer **list)
{
    const dls_transformer_config *c = &t->config;
    int table = c->positions == DLS_POSITIONS_LEARNED ? c->context : 0, n = 0;
    if (!has_unit(c, 0))
        return 0;
    list[n++] = dls_embedding(&t->build, c->vocabulary, table, c->channels, initial_std);
    if (c->embedding_dropout > 0)
        list[n++] = dls_dropout_layer(&t->build, "embedding", c->channels,
                                      c->embedding_dropout);
    return n;
}

static int build_head(dls_transformer *t, dls_layer **list, const dls_layer *embedding)
{
    const dls_transformer_config *c = &t->config;
    dls_build *b = &t->build;
    b->unit = 1 + c->layers;
    if (!has_unit(c, b->unit))
        return 0;
    list[0] = dls_block_norm(b, "ln_f", c);
    b->sliced = 0;              // every rank has all losses
    t->head = list[1] = c->tied_head && embedding ? dls_tied_head(b, embedding)
        : dls_head(b, c->tied_head ? "wte" : "head", c->channels, c->vocabulary,
                   initial_std);
    return 2;
}

static void build_model(dls_transformer *t)
{
    const dls_transformer_config *c = &t->config;
    dls_build *b = &t->build;
    dls_layer *list[c->layers + 4];
    b->sliced = c->sharding.sequence && c->sharding.tensor > 1;
    int n = build_embedding(t, list);
    const dls_layer *embedding = n ? list[0] : NULL;
    for (int i = 0; i < c->layers; i++) {
        char name[32];
        snprintf(name, sizeof name, "block.%d", i);
        b->unit = 1 + i;
        if (has_unit(c, b->unit))
            list[n++] = dls_block(b, name, c, initial_std,
                                  initial_std / sqrt(2.0 * c->layers));
    }
    n += build_head(t, list + n, embedding);
    b->unit = -1;
    t->top = dls_sequence(b, list, n);
}

/* make the rotation */
static size_t rotation_elements(const dls_transformer_config *c)
{
    return c->positions == DLS_POSITIONS_ROTARY && !c->imagined
        ? (size_t)c->context * dls_transformer_rope(c).dim : 0;
}

static dls_status make_rotation(dls_transformer *t)
{
    dls_rope rope = dls_transformer_rope(&t->config);
    size_t n = rotation_elements(&t->config);
    if (n == 0)
        return DLS_OK;
    DLS_TRY(dls_device_alloc(&t->rotation, n, dls_dtype_accumulator(t->ctx->dtype),
                             DLS_MEM_ACTIVATIONS));
    t->pass.rotation = t->rotation;
    t->pass.rotation_length = t->config.context;
    return dls_rope_table(t->ctx, t->rotation, &rope, t->config.context);
}

/* predict the memory */
static dls_status plan_model(dls_transformer *t, int max_B, int max_T, dls_dtype dtype,
                             dls_transformer_change *change)
{
    t->build.params = &t->params;
    t->build.sharding = t->config.sharding;
    t->params.frozen = t->config.frozen;
    t->params.unplaced = t->config.unplaced;
    if (t->config.frozen) {     // what nobody goes back to is scratch,
        t->config.recompute = DLS_RECOMPUTE_FULL;
        t->config.moe.capacity = t->config.moe.padded = 0;  // and no token is dropped
    }
    build_model(t);
    DLS_TRY(t->build.status);
    if (change)
        DLS_TRY(change(t));
    t->plan = (dls_plan){.max_B = max_B, .max_T = max_T, .dtype = dtype,
                         .frozen = t->config.frozen,
                         .deferred = t->config.split_backward};
    t->losses = dls_plan_stash(&t->plan, (size_t)max_B * max_T,
                               dls_dtype_accumulator(dtype));
    dls_layer_plan(t->top, &t->plan);
    return DLS_OK;
}

dls_status dls_transformer_predict_memory(const dls_transformer_config *c, int max_B,
                                          int max_T, dls_dtype dtype,
                                          dls_transformer_memory *out)
{
    dls_transformer t = {.config = *c};
    dls_status s = plan_model(&t, max_B, max_T, dtype, NULL);
    out->parameters = c->unplaced ? 0 : t.params.elements * dls_dtype_size(dtype);
    out->gradients = c->frozen || c->unplaced
        ? 0 : t.params.elements * dls_dtype_size(dls_dtype_accumulator(dtype));
    out->plan = t.plan;
    out->spares_x = t.top ? t.top->spares_x : 0;
    out->activations = dls_plan_bytes(&t.plan)
        + rotation_elements(c) * dls_dtype_size(dls_dtype_accumulator(dtype))
        + dls_balance_bytes(t.plan.experts, c->moe.experts, dtype);
    dls_build_free(&t.build);
    dls_params_free(&t.params);
    return s;
}

/* list the parameters of a model */
dls_status dls_transformer_list(const dls_transformer_config *c, dls_params *out)
{
    dls_transformer t = {.config = *c};
    t.build.params = &t.params;
    t.build.sharding = c->sharding;
    build_model(&t);
    dls_status s = t.build.status;
    dls_build_free(&t.build);
    *out = t.params;
    return s;
}

/* create a transformer */
static dls_status allocate_model(dls_transformer *t)
{
    DLS_TRY(dls_params_allocate(&t->params, t->ctx));
    if (t->config.to_unit == 0 && dls_transformer_travels(&t->config))
        DLS_TRY(dls_flat_buffer(&t->activations, dls_plan_bytes(&t->plan),
                                DLS_MEM_ACTIVATIONS));
    else if (t->config.to_unit == 0)
        DLS_TRY(dls_device_alloc(&t->activations, dls_plan_bytes(&t->plan) / 4, DLS_F32,
                                 DLS_MEM_ACTIVATIONS));
    int *pending = calloc((size_t)t->params.n, sizeof *pending);
    if (!pending)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d counters", t->params.n);
    t->pass = (dls_pass){.ctx = t->ctx, .params = &t->params, .pending = pending};
    if (t->activations)
        dls_pass_regions(&t->pass, &t->plan, t->activations);
    DLS_TRY(dls_balance_open(&t->balance, t->ctx, t->plan.experts,
                             t->config.moe.experts));
    t->pass.balance = t->balance.bias;
    t->pass.tally = t->balance.tally;
    if (t->plan.host > 0 && !(t->pass.host = calloc(1, t->plan.host)))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the routes of %d expert layers",
                        t->plan.experts);
    return make_rotation(t);
}

dls_status dls_transformer_create_with(dls_transformer **out, dls_ctx *ctx,
                                       const dls_transformer_config *config, int max_B,
                                       int max_T, dls_transformer_change *change)
{
    dls_status s;
    DLS_TRY(dls_transformer_config_check(config));
    if (max_B < 1 || max_T < 1 || max_T > config->context)
        return DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: the context is %d tokens",
                        max_B, max_T, config->context);
    if (config->sharding.sequence && config->sharding.tensor > 1)
        DLS_TRY(dls_tensor_check_rows(max_B, max_T, config->sharding.tensor));
    dls_transformer *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a model");
    t->config = *config;
    t->ctx = ctx;
    DLS_TRY_GOTO(s, plan_model(t, max_B, max_T, ctx->dtype, change), fail);
    DLS_TRY_GOTO(s, allocate_model(t), fail);
    *out = t;
    return DLS_OK;
fail:
    dls_transformer_free(t);
    return s;
}

dls_status dls_transformer_create(dls_transformer **out, dls_ctx *ctx,
                                  const dls_transformer_config *config,
                                  int max_B, int max_T)
{
    return dls_transformer_create_with(out, ctx, config, max_B, max_T, NULL);
}

void dls_transformer_free(dls_transformer *t)
{
    if (!t)
        return;
    dls_device_free(t->activations);
    dls_device_free(t->rotation);
    dls_balance_close(&t->balance);
    free(t->pass.pending);
    free(t->pass.host);
    dls_params_free(&t->params);
    dls_build_free(&t->build);
    free(t);
}

/* run the transformer forward */
static dls_status begin_pass(dls_transformer *t, const int *tokens, const int *targets,
                             int B, int T)
{
    int least = t->config.moe.experts > 0 ? 0 : 1;  // experts have rows of other ranks
    if (B < least || T < 1 || B > t->plan.max_B || T > t->plan.max_T)
        return DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: planned for %d x %d",
                        B, T, t->plan.max_B, t->plan.max_T);
    if (t->config.to_unit > 0)
        return DLS_FAIL(DLS_ERR_STATE, "a part of a model runs as a stage, not alone");
    t->pass.B = B;
    t->pass.T = T;
    t->pass.tokens = tokens;
    t->pass.targets = targets;
    return DLS_OK;
}

static dls_status scores_are_whole(const dls_transformer *t)
{
    return t->config.sharding.tensor <= 1 ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "the scores of a model cut over %d tensor ranks are in "
                   "as many parts; expected a whole model", t->config.sharding.tensor);
}

void dls_transformer_drop(dls_transformer *t, uint64_t seed, int64_t step,
                          int64_t first_sequence)
{
    t->pass.drops = 1;
    t->pass.seed = dls_dropout_seed(seed, (uint64_t)step);
    t->pass.first_sequence = (uint64_t)first_sequence;
}

void dls_transformer_connect(dls_transformer *t, const dls_axes *axes)
{
    t->pass.axes = axes;
}

void dls_transformer_place(dls_transformer *t, const int *positions, int T_whole)
{
    t->pass.positions = positions;
    t->pass.T_whole = T_whole;
}

void dls_transformer_announce(dls_transformer *t, const dls_unit_hook *hook)
{
    t->pass.units = hook;
}

void dls_transformer_keep(dls_transformer *t)
{
    t->pass.drops = 0;
}

void *dls_transformer_losses(const dls_transformer *t)
{
    return dls_pass_stash(&t->pass, t->losses);
}

dls_status dls_transformer_forward(dls_transformer *t, const int *tokens,
                                   const int *targets, int B, int T)
{
    DLS_TRY(begin_pass(t, tokens, targets, B, T));
    dls_trace_range_push("forward");
    dls_status s = t->top->kind->forward(t->top, &t->pass, dls_transformer_losses(t),
                                         NULL);
    dls_trace_range_pop();
    return s;
}

/* continue the sequences */
dls_status dls_transformer_continue(dls_transformer *t, const int *tokens,
                                    const int *positions, const dls_cache *cache, int B,
                                    int T)
{
    DLS_TRY(scores_are_whole(t));
    DLS_TRY(begin_pass(t, tokens, NULL, B, T));
    if ((B > 1 && T > 1) || cache->longest > cache->length
        || cache->first + B > cache->sequences)
        return DLS_FAIL(DLS_ERR_INPUT, "a cache of %d sequences of %d tokens can not be "
                        "continued by %d x %d", cache->sequences, cache->length, B, T);
    t->pass.positions = positions;
    t->pass.cache = cache;
    dls_status s = t->top->kind->forward(t->top, &t->pass, dls_transformer_losses(t),
                                         NULL);
    t->pass.positions = NULL;
    t->pass.cache = NULL;
    return s;
}

void *dls_transformer_scores(const dls_transformer *t)
{
    return dls_pass_stash(&t->pass, t->head->slot[0]);
}

/* run the transformer backward */
static void expect_additions(dls_transformer *t, double loss_scale,
                             const dls_grad_hook *hook)
{
    t->pass.loss_scale = loss_scale;
    t->pass.hook = hook && hook->fn ? hook : NULL;
    for (int i = 0; i < t->params.n; i++)
        t->pass.pending[i] = t->params.items[i].uses;
}

dls_status dls_transformer_backward(dls_transformer *t, double loss_scale,
                                    const dls_grad_hook *hook)
{
    if (t->config.frozen)
        return DLS_FAIL(DLS_ERR_STATE, "a frozen model has no backward pass");
    expect_additions(t, loss_scale, hook);
    dls_trace_range_push("backward");
    dls_status s = dls_layer_backward(t->top, &t->pass, NULL, NULL, NULL, NULL);
    if (s == DLS_OK)
        s = dls_params_settle_grads(&t->params, t->ctx);
    dls_trace_range_pop();
    return s;
}

dls_status dls_transformer_backward_input(dls_transformer *t, double loss_scale)
{
    expect_additions(t, loss_scale, NULL);
    if (!t->config.split_backward)
        return DLS_FAIL(DLS_ERR_STATE, "the model was not planned for a split backward");
    return t->top->kind->backward_input(t->top, &t->pass, NULL, NULL, NULL, NULL);
}

dls_status dls_transformer_backward_weight(dls_transformer *t,
                                           const dls_grad_hook *hook)
{
    expect_additions(t, t->pass.loss_scale, hook);
    DLS_TRY(t->top->kind->backward_weight(t->top, &t->pass, NULL, NULL));
    return dls_params_settle_grads(&t->params, t->ctx);
}

/* read the last logits */
static dls_status fetch_row(dls_transformer *t, int row, void *host)
{
    size_t bytes = t->config.vocabulary * dls_dtype_size(t->ctx->dtype);
    const char *logits = dls_pass_stash(&t->pass, t->head->slot[0]);
    DLS_CUDA(cudaMemcpyAsync(host, logits + row * bytes, bytes, cudaMemcpyDeviceToHost,
                             t->ctx->stream));
    return dls_ctx_sync(t->ctx);
}

static double widened(const double *row, int i, dls_dtype dtype)
{
    float narrow;
    dls_bfloat16 half;
    if (dtype == DLS_F64)
        return row[i];
    memcpy(&half, (const char *)row + i * sizeof half, sizeof half);
    if (dtype == DLS_BF16)
        return dls_widen_bf16(half);
    memcpy(&narrow, (const char *)row + i * sizeof narrow, sizeof narrow);
    return narrow;
}

dls_status dls_transformer_logits(dls_transformer *t, const int *tokens, int T,
                                  double *out)
{
    DLS_TRY(scores_are_whole(t));
    DLS_TRY(dls_transformer_forward(t, tokens, NULL, 1, T));
    DLS_TRY(fetch_row(t, T - 1, out));
    for (int i = t->config.vocabulary - 1; i >= 0; i--)
        out[i] = widened(out, i, t->ctx->dtype);
    return DLS_OK;
}

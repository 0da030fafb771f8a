/* tests/model/test_moe.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole models with experts: sizes, settings, memory, recomputation, generation. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/moe_config.h"
#include "model/transformer.h"
#include "tensor/bf16.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* list the models with experts */
enum { B = 2, T = 7, N = B * T, V = 19 };

/* Four models: few large experts; many small ones, shared ones, and a dense block; GELU,
 * with room for few; that padded, with all losses. */
static dls_transformer_config model(int i)
{
    dls_transformer_config c = dls_transformer_llama(V, 11, 2, 4, 2, 16, 10);
    c.moe = dls_moe_mixtral(4, 2, 10);
    if (i == 0)
        return c;
    c.layers = 3;
    c.moe = dls_moe_deepseek(8, 3, 5, 2);
    c.moe.dense_layers = 1;
    if (i == 1)
        return c;
    c = dls_transformer_gpt2(V, 11, 2, 2, 8);
    c.moe = (dls_moe){.experts = 3, .chosen = 2, .hidden = 9, .capacity = 0.8};
    if (i == 2)
        return c;
    c.mlp = DLS_MLP_GELU_ERF;
    c.moe.padded = 1;
    c.moe.aux_batch = c.moe.aux_sequence = c.moe.z_loss = 0.1;
    return c;
}
enum { MODELS = 4 };

/* test the sizes of experts */
Test(moe_model, formula_counts_what_is_registered)
{
    for (int i = 0; i < MODELS; i++) {
        dls_transformer_config c = model(i);
        dls_params set = {0};
        OK(dls_transformer_config_check(&c));
        OK(dls_transformer_list(&c, &set));
        cr_assert_eq(dls_transformer_parameter_count(&c), set.elements, "model %d", i);
        dls_params_free(&set);
    }
}

Test(moe_model, published_models_have_their_sizes)
{
    dls_transformer_config m = dls_transformer_llama(32000, 32768, 32, 32, 8, 4096,
                                                     14336);
    m.moe = dls_moe_mixtral(8, 2, 14336);
    cr_assert_eq(dls_transformer_parameter_count(&m), 46702792704);
    cr_assert_eq(dls_transformer_active_count(&m), 12879925248);
    m = dls_transformer_llama(32000, 65536, 56, 48, 8, 6144, 16384);
    m.moe = dls_moe_mixtral(8, 2, 16384);
    cr_assert_eq(dls_transformer_parameter_count(&m), 140620634112);
    m = dls_transformer_llama(102400, 4096, 28, 16, 16, 2048, 10944);
    m.moe = (dls_moe){.experts = 64, .chosen = 6, .hidden = 1408, .shared = 2,
                      .dense_layers = 1};
    cr_assert_eq(dls_transformer_parameter_count(&m), 16375728128);
    cr_assert_eq(dls_transformer_active_count(&m), 2828650496);
}

/* DeepSeek-V3 has another attention, of 187,107,328 parameters a layer, and a bias of the
 * choice that we do not count, 256 a layer with experts. */
Test(moe_model, deepseek_v3_has_671_billion)
{
    dls_transformer_config m = dls_transformer_llama(129280, 4096, 61, 128, 128, 7168,
                                                     18432);
    size_t others = 61 * (187107328 - 4 * (size_t)7168 * 7168) + 58 * 256;
    m.moe = dls_moe_deepseek(256, 8, 2048, 1);
    m.moe.dense_layers = 3;
    cr_assert_eq(dls_transformer_parameter_count(&m) + others, 671026419200);
    cr_assert_eq(dls_transformer_active_count(&m) + others, 37552297472);
}

/* test the settings of experts */
static dls_status load(const char *moe, dls_transformer_config *c)
{
    char text[512];
    dls_config *cfg;
    int n = snprintf(text, sizeof text, "model:\n  family: llama\n  vocabulary: 8\n"
                     "  context: 8\n  layers: 2\n  heads: 2\n  channels: 8\n"
                     "  hidden: 12\n  moe: {experts: 6, %s}\n", moe);
    OK(dls_config_parse("m.yaml", text, (size_t)n, &cfg));
    dls_status s = dls_transformer_config_load(c, cfg);
    if (s == DLS_OK)
        s = dls_config_check_unused(cfg);
    dls_config_free(cfg);
    return s;
}

Test(moe_model, settings_are_read)
{
    dls_transformer_config c;
    dls_moe want = {.experts = 6, .chosen = 2, .hidden = 12};
    OK(load("chosen: 2", &c));
    cr_assert_arr_eq(&c.moe, &want, sizeof want);
    OK(load("chosen: 3, hidden: 5, shared: 2, dense_layers: 1, gate: sigmoid, "
            "normalised: yes, scale: 2.5, groups: 3, group_limit: 2, aux_batch: 0.25, "
            "aux_sequence: 0.125, z_loss: 0.5, bias_rate: 0.001", &c));
    want = (dls_moe){.experts = 6, .chosen = 3, .hidden = 5, .shared = 2,
                     .dense_layers = 1, .gate = DLS_GATE_SIGMOID, .normalised = 1,
                     .scale = 2.5, .groups = 3, .group_limit = 2, .aux_batch = 0.25,
                     .aux_sequence = 0.125, .z_loss = 0.5, .bias_rate = 0.001};
    cr_assert_arr_eq(&c.moe, &want, sizeof want);
}

Test(moe_model, settings_come_back_from_a_checkpoint)
{
    for (int i = 0; i < MODELS; i++) {
        dls_transformer_config c = model(i), back;
        char text[DLS_MODEL_SETTINGS];
        dls_transformer_settings(&c, text);
        OK(dls_transformer_config_parse(&back, "file", text));
        cr_assert_arr_eq(&back.moe, &c.moe, sizeof c.moe, "model %d: %s", i, text);
    }
}

Test(moe_model, what_can_not_be_is_refused_in_a_line)
{
    const struct { const char *moe, *message; } bad[] = {
        /* list refusals of numbers */
        {"chosen: 7", "chosen: expected 1 to 6, the experts, got 7"},
        {"hidden: 3", "chosen: missing; expected an integer between 1 and 1024"},
        {"chosen: 2, capacity: 0", "capacity: an expert of capacity 0 has no room for "
         "any token; expected more than 0, or no capacity at all"},
        {"chosen: 2, capacity: -1",
         "capacity: expected a number between 0 and 1e+06, got \"-1\""},
        {"chosen: 2, capacity: .nan",
         "capacity: expected a number between 0 and 1e+06, got \".nan\""},
        {"chosen: 2, padded: yes", "padded: expected a capacity to pad to, got 0"},
        {"chosen: 2, groups: 4, group_limit: 1",
         "groups: expected at most 32, a divisor of the 6 experts, got 4"},
        {"chosen: 3, groups: 3, group_limit: 1", "group_limit: expected 1 to 3 groups "
         "that have the 3 chosen experts, got 1 of 2"},
        {"chosen: 2, dense_layers: 2", "dense_layers: expected fewer than the 2 layers, "
         "got 2: no block would have experts"},
        {"chosen: 2, hidden: 0",
         "hidden: expected an integer between 1 and 1048576, got \"0\""},
        {"chosen: 2, gate: relu",
         "gate: expected one of softmax|sigmoid|identity, got \"relu\""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dls_transformer_config c;
        char message[256];
        cr_assert_eq(load(bad[i].moe, &c), DLS_ERR_INPUT, "%s", bad[i].moe);
        const char *got = dls_status_message(), *from = strstr(got, "model.moe.");
        snprintf(message, sizeof message, "model.moe.%s", bad[i].message);
        cr_assert(from && strncmp(got, "m.yaml", 6) == 0, "%s", got);
        cr_assert_str_eq(from, message);
    }
}

Test(moe_model, structures_are_held_to_the_same_rules)
{
    dls_transformer_config c = model(0);
    c.moe.capacity = NAN;
    cr_assert_eq(dls_transformer_config_check(&c), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "model.moe.capacity: expected 0 to 1000000, got nan");
    c = model(0);
    c.sharding.expert = 3;
    cr_assert_eq(dls_transformer_config_check(&c), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "model.moe.experts: "));
    c.sharding.expert = 0;
    c.sharding.expert_tensor = 11;
    cr_assert_eq(dls_transformer_config_check(&c), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "model.moe.hidden: expected a column for each "
                     "of the 11 expert tensor ranks (etp), got 10");
}

/* run a model with experts */
typedef struct outcome {
    dls_transformer_memory want;
    dls_gpu_memory is;
    size_t elements;
    double losses[2 * N], *grads, tokens;   /* tokens: in the first tally */
} outcome;

static void fetch(const void *from, size_t n, dls_dtype dtype, double *to)
{
    float *narrow = malloc(n * sizeof *narrow);
    if (dtype == DLS_F64) {
        cudaMemcpy(to, from, n * sizeof *to, cudaMemcpyDeviceToHost);
    } else {
        cudaMemcpy(narrow, from, n * sizeof *narrow, cudaMemcpyDeviceToHost);
        for (size_t i = 0; i < n; i++)
            to[i] = narrow[i];
    }
    free(narrow);
}

static void one_pass(dls_transformer *t, const int *ids, int rows, double *losses)
{
    OK(dls_transformer_forward(t, ids, ids + 1, rows, T));
    if (t->config.split_backward) {
        OK(dls_transformer_backward_input(t, 0.25));
        OK(dls_transformer_backward_weight(t, NULL));
    } else {
        OK(dls_transformer_backward(t, 0.25, NULL));
    }
    OK(dls_ctx_sync(t->ctx));
    fetch(dls_transformer_losses(t), (size_t)rows * T,
          dls_dtype_accumulator(t->ctx->dtype), losses);
}

static int *make_ids(void)
{
    int host[N + 1], *ids;
    for (int i = 0; i <= N; i++)
        host[i] = (int)(dls_rng_u32(5, 1, i) % V);
    OK(dls_device_alloc((void **)&ids, N + 1, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(ids, host, sizeof host, cudaMemcpyHostToDevice);
    return ids;
}

/* Two passes, of two sequences and of one. */
static outcome run(dls_transformer_config c, dls_dtype dtype)
{
    outcome o = {.elements = 0};
    dls_ctx ctx;
    dls_transformer *t;
    dls_load load;
    dls_gpu_memory_reset_peaks(0);
    OK(dls_transformer_predict_memory(&c, B, T, dtype, &o.want));
    OK(dls_ctx_create(&ctx, 0, dtype));
    OK(dls_transformer_create(&t, &ctx, &c, B, T));
    for (int i = 0; i < t->params.n; i++)
        t->params.items[i].init_scale *= 10;
    OK(dls_params_initialise(&t->params, 3));
    int *ids = make_ids();
    one_pass(t, ids, B, o.losses);
    one_pass(t, ids, 1, o.losses + N);
    /* take what a run leaves */
    OK(dls_gpu_memory_stats(0, &o.is));
    OK(dls_balance_read(&t->balance, 0, &load, NULL, NULL));
    o.tokens = load.tokens;
    o.elements = t->params.elements;
    o.grads = malloc(o.elements * sizeof *o.grads);
    fetch(t->params.grads, o.elements, dls_dtype_accumulator(dtype), o.grads);
    dls_device_free(ids);
    dls_transformer_free(t);
    dls_ctx_destroy(&ctx);
    return o;
}

/* test what is kept of experts */
static void check_ways(int i, dls_dtype dtype)
{
    dls_transformer_config c = model(i);
    outcome first = run(c, dtype);
    for (int way = 0; way < 6; way++) {
        c.recompute = (dls_recompute)(way / 2);
        c.split_backward = way % 2;
        outcome o = run(c, dtype);
        cr_assert_arr_eq(o.losses, first.losses, sizeof o.losses, "%d, way %d", i, way);
        for (size_t k = 0; k < o.elements; k++)
            cr_assert_eq(o.grads[k], first.grads[k], "model %d, way %d, gradient %zu: "
                         "%.17g, %.17g", i, way, k, o.grads[k], first.grads[k]);
        cr_assert_eq(o.tokens, 3 * T, "each token is counted once: %g", o.tokens);
        cr_assert_eq(o.is.current[DLS_MEM_PARAMETERS], o.want.parameters);
        cr_assert_eq(o.is.current[DLS_MEM_GRADIENTS], o.want.gradients);
        cr_assert_eq(o.is.peak[DLS_MEM_ACTIVATIONS], o.want.activations);
        free(o.grads);
    }
    free(first.grads);
}

Test(moe_model, what_is_kept_changes_no_bit)
{
    for (int i = 0; i < MODELS; i++)
        check_ways(i, DLS_F64);
}

Test(moe_model, what_is_kept_changes_no_bit_of_bf16)
{
    for (int i = 0; i < MODELS; i++)
        check_ways(i, DLS_BF16);
}

/* test what is announced */
static int announced[512];

static dls_status hear(void *self, int index)
{
    (void)self;
    announced[index]++;
    return DLS_OK;
}

Test(moe_model, idle_experts_are_announced)
{
    for (int i = 0; i < MODELS; i++) {
        dls_transformer_config c = model(i);
        dls_grad_hook hook = {NULL, hear};
        dls_ctx ctx;
        dls_transformer *t;
        OK(dls_ctx_create(&ctx, 0, DLS_F32));
        OK(dls_transformer_create(&t, &ctx, &c, B, T));
        OK(dls_params_initialise(&t->params, 3));
        int *ids = make_ids();
        memset(announced, 0, sizeof announced);
        OK(dls_transformer_forward(t, ids, ids + 1, 1, 1));
        OK(dls_transformer_backward(t, 1, &hook));
        OK(dls_ctx_sync(&ctx));
        for (int k = 0; k < t->params.n; k++)
            cr_assert_eq(announced[k], 1, "model %d, %s: %d", i, t->params.items[k].name,
                         announced[k]);
        dls_device_free(ids);
        dls_transformer_free(t);
        dls_ctx_destroy(&ctx);
    }
}

/* test decoding through experts */
/* The scores behind a text, taken through a cache in pieces of `step`. */
static void decode(dls_transformer *t, int *ints, dls_cache *c, int step, double *out)
{
    for (int i = 0, n; i < T; i += n) {
        n = T - i < step ? T - i : step;
        c->longest = i + n;
        c->filled = ints + 2 * T + i + n - 1;
        OK(dls_transformer_continue(t, ints + i, ints + T + i, c, 1, n));
    }
    OK(dls_ctx_sync(t->ctx));
    fetch(dls_transformer_scores(t), V, DLS_F64, out);
}

Test(moe_model, decoding_tokens_pass_through_experts)
{
    int host[3 * T], *ints;
    for (int i = 0; i < T; i++) {
        host[i] = (int)(dls_rng_u32(8, 0, i) % V);
        host[T + i] = i;
        host[2 * T + i] = i + 1;
    }
    OK(dls_device_alloc((void **)&ints, 3 * T, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(ints, host, sizeof host, cudaMemcpyHostToDevice);
    for (int i = 0; i < MODELS; i++) {
        dls_transformer_config c = model(i);
        dls_cache cache = {.sequences = 1, .length = c.context};
        size_t n = 2 * (size_t)c.layers * c.kv_heads * c.head_size * c.context;
        double full[V], pieces[V];
        dls_ctx ctx;
        dls_transformer *t;
        c.frozen = 1;
        OK(dls_ctx_create(&ctx, 0, DLS_F64));
        OK(dls_transformer_create(&t, &ctx, &c, 1, T));
        OK(dls_params_initialise(&t->params, 3));
        OK(dls_device_alloc(&cache.rows, n, DLS_F64, DLS_MEM_OTHER));
        OK(dls_transformer_logits(t, ints, T, full));
        /* decode in pieces of each size */
        for (int step = 1; step <= T; step += 2) {
            decode(t, ints, &cache, step, pieces);
            for (int v = 0; v < V; v++)
                cr_assert(fabs(pieces[v] - full[v]) <= 1e-13, "model %d, %d: %.17g %.17g",
                          i, step, pieces[v], full[v]);
        }
        dls_device_free(cache.rows);
        dls_transformer_free(t);
        dls_ctx_destroy(&ctx);
    }
}

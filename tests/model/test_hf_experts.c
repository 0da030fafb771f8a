/* tests/model/test_hf_experts.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Models with experts in the Hugging Face layout: names, shapes, reference logits. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/folder.h"
#include "base/rng.h"
#include "model/hf.h"
#include "model/moe_config.h"
#include "model/safetensors.h"
#include "model/transformer.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* make a tiny model with experts */
enum { V = 23, N = 9 };

static dls_transformer_config tiny(int deepseek)
{
    dls_transformer_config c = dls_transformer_llama(V, 16, 2, 4, 2, 12, 10);
    c.head_size = 6;
    c.moe = dls_moe_mixtral(5, 2, 10);
    if (deepseek)
        c.moe = (dls_moe){.experts = 6, .chosen = 3, .hidden = 7, .shared = 2,
                          .dense_layers = 1, .aux_sequence = 0.001};
    return c;
}

typedef struct model { dls_ctx ctx; dls_transformer *t; } model;

static void open_model(model *m, const dls_transformer_config *c, dls_dtype dtype)
{
    OK(dls_ctx_create(&m->ctx, 0, dtype));
    OK(dls_transformer_create(&m->t, &m->ctx, c, 1, N));
}

static void close_model(model *m)
{
    dls_transformer_free(m->t);
    dls_ctx_destroy(&m->ctx);
}

/* Every parameter uniform in -1/2 ... 1/2, the norms around one. */
static void write_model(const char *directory, int deepseek)
{
    dls_hf_config c = {.model = tiny(deepseek), .bos = -1};
    model m;
    open_model(&m, &c.model, DLS_F64);
    const dls_params *set = &m.t->params;
    double *host = malloc(set->elements * sizeof *host);
    for (int i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->items[i].count; k++)
            host[set->items[i].offset + k] = (set->items[i].init == DLS_INIT_ONE)
                + dls_rng_uniform(7, i, k) - 0.5;
    OK(dls_params_put(&m.t->params, host));
    OK(dls_hf_save(directory, &c, set, 0));
    free(host);
    close_model(&m);
}

/* store the logits of experts */
static const double mixtral_logits[V] = {
    0.41955244711406325, 1.2771415117263973, 1.0167797483452077, 0.609138409278765,
    2.1600642323079056, -0.10038269442972905, -0.018529719609136408,
    -0.46872053369387445, 1.6584550625768961, 0.7027567825521708, 0.29229508163673457,
    1.2342656404273389, 2.097940224156784, -0.7526076587118232, -0.8928082982829005,
    -0.44069650365219704, 1.4289202981228692, 0.43819213325071893, -0.289289248988562,
    2.339338784352987, -1.4896199345073353, 1.7818320234129033, -0.3259565405545891,
};

static const double deepseek_logits[V] = {
    0.8683107367576656, -0.11816670435444332, -0.8720836909385236, -1.323683033534119,
    0.5115970089895993, -0.48183228803140743, 0.42429972056618004, 0.45986945921756617,
    -0.09740449934682316, 1.1623289744944005, 1.4320584600929274, -0.5823953357337126,
    -0.10016565537603372, 0.07525866319086333, 0.9483337005524795, 0.708820716122434,
    -0.6217198705936673, -1.1078967413672238, -1.4095790377126147, -0.6770774597975706,
    1.0682631864144663, -0.23658074948256835, 0.9215986418933638,
};

/* compare the logits of experts */
static void compare(int deepseek, dls_dtype dtype, double bound)
{
    const double *want = deepseek ? deepseek_logits : mixtral_logits;
    dls_hf_config c;
    int tokens[N], *device;
    double got[V];
    model m;
    write_model("experts", deepseek);
    OK(dls_hf_config_load("experts", &c));
    open_model(&m, &c.model, dtype);
    OK(dls_hf_load("experts", &c.model, &m.t->params));
    for (int i = 0; i < N; i++)
        tokens[i] = i * i % V;
    OK(dls_device_alloc((void **)&device, N, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(device, tokens, sizeof tokens, cudaMemcpyHostToDevice);
    OK(dls_transformer_logits(m.t, device, N, got));
    for (int i = 0; i < V; i++)
        cr_assert(fabs(got[i] - want[i]) <= bound, "%d: %.17g, expected %.17g", i,
                  got[i], want[i]);
    dls_device_free(device);
    close_model(&m);
}

Test(hf_experts, mixtral_agrees_in_f64, .init = enter, .fini = leave)
{
    compare(0, DLS_F64, 1e-13);
}

Test(hf_experts, mixtral_agrees_in_f32, .init = enter, .fini = leave)
{
    compare(0, DLS_F32, 1e-13 * 0x1p29);
}

Test(hf_experts, deepseek_agrees_in_f64, .init = enter, .fini = leave)
{
    compare(1, DLS_F64, 1e-13);
}

/* test the names of experts */
/* The stored tensors whose names contain `part`, with their shapes. */
static void expect_tensors(const char *part, const char *expected)
{
    char got[2048] = "";
    dls_safetensors f;
    OK(dls_safetensors_open("experts/model.safetensors", &f));
    for (size_t i = 0; i < f.n; i++) {
        const dls_stored_tensor *t = &f.tensors[i];
        if (strstr(t->name, part))
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s %zux%zu\n",
                     t->name, t->shape[0], t->shape[1]);
    }
    dls_safetensors_close(&f);
    cr_assert_str_eq(got, expected, "%s", got);
}

Test(hf_experts, mixtral_has_its_names, .init = enter, .fini = leave)
{
    write_model("experts", 0);
    expect_tensors("layers.1.block_sparse_moe.experts.3",
                   "model.layers.1.block_sparse_moe.experts.3.w1.weight 10x12\n"
                   "model.layers.1.block_sparse_moe.experts.3.w2.weight 12x10\n"
                   "model.layers.1.block_sparse_moe.experts.3.w3.weight 10x12\n");
    expect_tensors("gate", "model.layers.0.block_sparse_moe.gate.weight 5x12\n"
                   "model.layers.1.block_sparse_moe.gate.weight 5x12\n");
}

Test(hf_experts, deepseek_has_its_names, .init = enter, .fini = leave)
{
    write_model("experts", 1);
    expect_tensors("layers.0.mlp", "model.layers.0.mlp.down_proj.weight 12x10\n"
                   "model.layers.0.mlp.gate_proj.weight 10x12\n"
                   "model.layers.0.mlp.up_proj.weight 10x12\n");
    expect_tensors("shared", "model.layers.1.mlp.shared_experts.down_proj.weight 12x14\n"
                   "model.layers.1.mlp.shared_experts.gate_proj.weight 14x12\n"
                   "model.layers.1.mlp.shared_experts.up_proj.weight 14x12\n");
    expect_tensors("layers.1.mlp.experts.5",
                   "model.layers.1.mlp.experts.5.down_proj.weight 12x7\n"
                   "model.layers.1.mlp.experts.5.gate_proj.weight 7x12\n"
                   "model.layers.1.mlp.experts.5.up_proj.weight 7x12\n");
    expect_tensors("mlp.gate.", "model.layers.1.mlp.gate.weight 6x12\n");
}

/* test what files of experts can not say */
Test(hf_experts, what_a_file_can_not_say_is_refused, .init = enter, .fini = leave)
{
    dls_hf_config c = {.model = tiny(0), .bos = -1};
    c.model.moe.gate = DLS_GATE_SIGMOID;
    cr_assert_eq(dls_hf_config_save(".", &c, DLS_F32), DLS_ERR_INPUT);
    c.model.moe = tiny(0).moe;
    c.model.moe.capacity = 1.25;
    cr_assert_eq(dls_hf_config_save(".", &c, DLS_F32), DLS_ERR_INPUT);
    c.model.moe.capacity = 0;
    OK(dls_hf_config_save(".", &c, DLS_F32));
}

/* The configuration of a tiny Mixtral with one field changed. */
static void expect_refused(const char *field, const char *message)
{
    char text[1024];
    dls_hf_config c;
    FILE *f = fopen("config.json", "w");
    fprintf(f, "{\"model_type\": \"mixtral\", \"vocab_size\": 8, \"hidden_size\": 8,"
            "\"intermediate_size\": 8, \"num_hidden_layers\": 1, "
            "\"num_attention_heads\": 2, \"max_position_embeddings\": 32, %s}", field);
    fclose(f);
    cr_assert_eq(dls_hf_config_load(".", &c), DLS_ERR_INPUT, "%s", field);
    snprintf(text, sizeof text, "./config.json: %s", message);
    cr_assert_str_eq(dls_status_message(), text);
}

Test(hf_experts, what_changes_the_arithmetic_is_refused, .init = enter, .fini = leave)
{
    expect_refused("\"num_experts_per_tok\": 9",
                   "model.moe.chosen: expected 1 to 8, the experts, got 9");
    expect_refused("\"sliding_window\": 16",
                   "sliding_window: expected null (nothing else is supported), got 16");
    expect_refused("\"router_jitter_noise\": 0.5",
                   "router_jitter_noise: expected 0 (nothing else is supported), got "
                   "0.5");
}

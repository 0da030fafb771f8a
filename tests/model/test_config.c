/* tests/model/test_config.c: from chapters/09-transformer-model-families-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Sizes that were published, files that are read, models that can not be. */
#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* test published sizes */
Test(model_config, published_models_have_their_sizes)
{
    const struct { dls_transformer_config c; size_t count; int tied; } models[] = {
        {dls_transformer_gpt2(50257, 1024, 12, 12, 768), 124439808, 1},
        {dls_transformer_gpt2(50257, 1024, 24, 16, 1024), 354823168, 1},
        {dls_transformer_gpt2(50257, 1024, 36, 20, 1280), 774030080, 1},
        {dls_transformer_gpt2(50257, 1024, 48, 25, 1600), 1557611200, 1},
        {dls_transformer_llama(32000, 2048, 32, 32, 32, 4096, 11008), 6738415616, 0},
        {dls_transformer_llama(32000, 4096, 80, 64, 8, 8192, 28672), 68976648192, 0},
        {dls_transformer_llama(128256, 8192, 32, 32, 8, 4096, 14336), 8030261248, 0},
        {dls_transformer_llama(128256, 8192, 80, 64, 8, 8192, 28672), 70553706496, 0},
        {dls_transformer_llama(128256, 131072, 16, 32, 8, 2048, 8192), 1235814400, 1}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        dls_transformer_config c = models[i].c;
        c.tied_head = models[i].tied;
        OK(dls_transformer_config_check(&c));
        cr_assert_eq(dls_transformer_parameter_count(&c), models[i].count, "model %zu: "
                     "%zu, expected %zu", i, dls_transformer_parameter_count(&c),
                     models[i].count);
    }
}

/* test reading a model */
static dls_status load(const char *text, dls_transformer_config *c)
{
    dls_config *cfg;
    OK(dls_config_parse("m.yaml", text, strlen(text), &cfg));
    dls_status s = dls_transformer_config_load(c, cfg);
    if (s == DLS_OK)
        s = dls_config_check_unused(cfg);
    dls_config_free(cfg);
    return s;
}

Test(model_config, a_family_is_a_set_of_defaults)
{
    dls_transformer_config c, want = dls_transformer_gpt2(256, 64, 3, 4, 128);
    OK(load("model: {vocabulary: 256, context: 64, layers: 3, heads: 4, channels: 128}",
            &c));
    cr_assert_arr_eq(&c, &want, sizeof c);
    want = dls_transformer_llama(32000, 2048, 32, 32, 32, 4096, 11008);
    OK(load("model: {family: llama, vocabulary: 32000, context: 2048, layers: 32,\n"
            "        heads: 32, channels: 4096}", &c));
    cr_assert_arr_eq(&c, &want, sizeof c);
}

Test(model_config, every_choice_can_be_made_alone)
{
    dls_transformer_config c, want = dls_transformer_gpt2(256, 64, 3, 4, 128);
    want.kv_heads = 2;
    want.head_size = 24;
    want.hidden = 200;
    want.norm = DLS_NORM_RMS;
    want.norm_epsilon = 1e-6;
    want.mlp = DLS_MLP_SWIGLU;
    want.positions = DLS_POSITIONS_ROTARY;
    want.rope.theta = 5e5;
    want.proj_bias = want.mlp_bias = want.tied_head = 0;
    want.embedding_dropout = want.residual_dropout = 0.25;
    want.attention_dropout = 0.5;
    want.recompute = DLS_RECOMPUTE_FULL;
    OK(load("model: {vocabulary: 256, context: 64, layers: 3, heads: 4, channels: 128,\n"
            "  kv_heads: 2, head_size: 24, hidden: 200, norm: rmsnorm,\n"
            "  norm_epsilon: 1.0e-6, mlp: swiglu, positions: rotary, rope_theta: 5e5,\n"
            "  proj_bias: no, mlp_bias: no, tied_head: no, dropout: 0.25,\n"
            "  attention_dropout: 0.5, recompute: full}", &c));
    cr_assert_arr_eq(&c, &want, sizeof c);
}

/* test impossible models */
#define SIZES "vocabulary: 256, context: 8, layers: 1, channels: 12, "

Test(model_config, impossible_models_are_refused_in_one_line)
{
    static const char *const cases[][2] = {
        {"heads: 5", "model.heads: expected a divisor of the 12 channels, got 5"},
        {"heads: 4, kv_heads: 3", "model.kv_heads: expected a divisor of the 4 heads, "
                                  "got 3"},
        {"heads: 4, positions: rotary", "model.head_size: rotary positions turn pairs of "
                                        "columns; expected an even number of them, got "
                                        "3"},
        {"heads: 4, rope_theta: 1e5", "model.rope_theta: learned positions are not "
                                      "rotated; expected model.positions: rotary"},
        {"heads: 4, norm: batchnorm", "model.norm: expected"},
        {"heads: 4, dropout: 1", "model.dropout: expected"},
        {"heads: 4, family: bert", "model.family: expected"},
        {"heads: 4, hiden: 9", "model.hiden"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        dls_transformer_config c;
        snprintf(text, sizeof text, "model: {" SIZES "%s}", cases[i][0]);
        cr_assert_eq(load(text, &c), DLS_ERR_INPUT, "%s", text);
        const char *message = dls_status_message();
        cr_assert_not_null(strstr(message, cases[i][1]), "%s", message);
        cr_assert_eq(strncmp(message, "m.yaml:", 7), 0, "%s", message);
        cr_assert_null(strchr(message, '\n'));
    }
}

Test(model_config, impossible_structures_are_refused)
{
    const dls_transformer_config good = dls_transformer_llama(7, 8, 1, 4, 2, 8, 5);
    dls_transformer_config bad[8];
    OK(dls_transformer_config_check(&good));
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].heads = 0;
    bad[1].kv_heads = 3;
    bad[2].head_size = 3;
    bad[3].hidden = 0;
    bad[4].norm_epsilon = NAN;
    bad[5].attention_dropout = 1;
    bad[6].mlp = (dls_mlp)7;
    bad[7].vocabulary = INT_MAX;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(dls_transformer_config_check(&bad[i]), DLS_ERR_INPUT, "%d", i);
    cr_assert_str_eq(dls_status_message(), "model.vocabulary: expected 2 to 1048576, got "
                     "2147483647");
}

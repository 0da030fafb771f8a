/* tests/parallel/test_activation_laws.c: from chapters/06-sequence-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What a block keeps: the account, the paper, the plan and the device. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../cli/program.h"
#include "model/block.h"
#include "model/transformer.h"
#include "parallel/tensor/activation_laws.h"

/* test the formulas of the paper */
#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static double gib(dls_recompute recompute, int t, int sequence, int h, int a)
{
    dls_transformer_config c = dls_transformer_gpt2(2, 2048, 1, a, h);
    dls_kept_case at = {1, 2048, DLS_BF16};
    c.recompute = recompute;
    c.sharding = (dls_sharding){.tensor = t, .sequence = sequence};
    double law = dls_law_activations(recompute, t, sequence, 2048, 1, h, a);
    double lines = dls_kept_paper(&c, &at);
    if (recompute == DLS_RECOMPUTE_FULL && t > 1 && !sequence)
        cr_assert_eq(law, 2. * 2048 * h);
    cr_assert_float_eq(lines / law, 1, 1e-12, "t %d: %.17g, %.17g", t, lines, law);
    return law / (1 << 30);
}

Test(activation_laws, the_table_of_the_paper)
{
    static const struct { int h, a; double gib[6]; } printed[] = {
        {12288, 96, {2.672, .539, .334, .305, .100, .047}},
        {20480, 128, {3.828, .820, .479, .508, .166, .078}}};
    for (int m = 0; m < 2; m++) {
        int h = printed[m].h, a = printed[m].a;
        const double is[] = {gib(0, 1, 0, h, a), gib(0, 8, 0, h, a), gib(0, 8, 1, h, a),
                             gib(1, 8, 0, h, a), gib(1, 8, 1, h, a), gib(2, 8, 0, h, a)};
        for (int i = 0; i < 6; i++)
            cr_assert_eq(round(is[i] * 1000), round(printed[m].gib[i] * 1000),
                         "%d, %d: %g", h, i, is[i]);
        cr_assert_eq(round(100 * (1 - gib(1, 1, 0, h, a) / is[0])), m ? 65 : 70);
        gib(0, 3, 1, h, a), gib(1, 7, 0, h, a), gib(2, 5, 1, h, a);
    }
}

Test(activation_laws, bytes_of_a_parameter)
{
    static const double whole[] = {20, 18, 16}, fixed[] = {4, 6, 8}, cut[] = {16, 12, 8};
    for (int i = 0; i < DLS_MEGATRON_TYPES; i++)
        for (int d = 1; d <= 1024; d *= 2) {
            dls_parameter_bytes b = dls_bytes_megatron(i);
            cr_assert_eq(dls_law_memory(b, 0, d), whole[i]);
            cr_assert_eq(dls_law_memory(b, 1, d), fixed[i] + cut[i] / d);
        }
}

/* plan some blocks */
typedef struct shape { int llama, dropout, deferred, erf; } shape;

static dls_transformer_config config_of(shape s, dls_recompute recompute,
                                        dls_sharding sharding)
{
    dls_transformer_config c = s.llama ? dls_transformer_llama(12, 60, 1, 12, 6, 24, 61)
                                       : dls_transformer_gpt2(12, 60, 1, 12, 24);
    if (s.erf)
        c.mlp = DLS_MLP_GELU_ERF;
    c.attention_dropout = c.residual_dropout = s.dropout * 0.25;
    c.recompute = recompute;
    c.sharding = sharding;
    return c;
}

static size_t planned(const dls_transformer_config *c, const dls_kept_case *at,
                      int blocks, int deferred)
{
    dls_params params = {0};
    dls_build b = {.params = &params, .sharding = c->sharding};
    dls_plan plan = {.max_B = (int)at->B, .max_T = (int)at->T, .dtype = at->dtype,
                     .deferred = deferred};
    dls_layer *list[4];
    b.sliced = c->sharding.sequence;
    for (int i = 0; i < blocks; i++)
        list[i] = dls_block(&b, (const char *[]){"a", "b", "c", "d"}[i], c, 1, 1);
    dls_layer *all = dls_sequence(&b, list, blocks);
    OK(b.status);
    dls_layer_plan(all, &plan);
    dls_build_free(&b);
    dls_params_free(&params);
    return plan.stash + plan.early;
}

/* test the plan against the account */
static const dls_dtype types[] = {DLS_BF16, DLS_F32, DLS_F64};

static void compare_plan(shape s, dls_sharding sharding)
{
    for (int i = 0; i < 9; i++) {
        dls_transformer_config c = config_of(s, (dls_recompute)(i / 3), sharding);
        dls_kept_case at = {5, 12, types[i % 3]};
        size_t law = dls_kept_bytes(&c, &at);
        for (int L = 1; L <= 3; L++)
            cr_assert_eq(planned(&c, &at, L + 1, s.deferred)
                         - planned(&c, &at, L, s.deferred), law,
                         "recompute %d, %s, t %d, sequence %d: %zu", i / 3,
                         dls_dtype_name(types[i % 3]), sharding.tensor,
                         sharding.sequence, law);
    }
}

static void compare_all_plans(dls_sharding sharding)
{
    for (int i = 0; i < 16; i++) {
        shape s = {i % 2, i / 2 % 2, i / 4 % 2, i / 8};
        if (!s.llama || !s.erf)
            compare_plan(s, sharding);
    }
}

Test(activation_laws, a_block_more_plans_the_account)
{
    static const int ranks[] = {2, 3, 4, 6, 12};
    compare_all_plans((dls_sharding){0});
    for (int i = 0; i < 5; i++)
        for (int sequence = 0; sequence < 2; sequence++)
            for (int rank = 0; rank < ranks[i]; rank += ranks[i] - 1)
                compare_all_plans((dls_sharding){.tensor = ranks[i], .tensor_rank = rank,
                                                 .sequence = sequence});
}

/* test the device against the account */
static size_t measured(dls_transformer_config c, const dls_kept_case *at, int layers)
{
    dls_ctx ctx;
    dls_transformer *t;
    dls_gpu_memory is;
    c.layers = layers;
    OK(dls_ctx_create(&ctx, 0, at->dtype));
    OK(dls_transformer_create(&t, &ctx, &c, (int)at->B, (int)at->T));
    OK(dls_gpu_memory_stats(0, &is));
    dls_transformer_free(t);
    dls_ctx_destroy(&ctx);
    return is.current[DLS_MEM_ACTIVATIONS];
}

Test(activation_laws, a_layer_more_takes_the_account_on_the_device)
{
    for (int i = 0; i < 36; i++) {
        for (int t = 1; t <= 6; t += 1 + t) {
            dls_sharding cut = {.tensor = t, .sequence = i % 4 > 0};
            dls_transformer_config c = config_of((shape){i % 2, i / 2 % 2, 0, 0},
                                                 (dls_recompute)(i / 4 % 3), cut);
            dls_kept_case at = {5, 12, types[i / 12]};
            size_t more = measured(c, &at, 3) - measured(c, &at, 2);
            cr_assert_eq(more, dls_kept_bytes(&c, &at));
        }
    }
}

/* test the activations command */
static void expect_words(const char *options, int exit_code, const char *words)
{
    program_says("build/bin/dls activations", options, exit_code, words);
}

Test(activation_laws, dls_activations_prints_and_refuses)
{
    expect_words("--heads 96 --channels 12288 --tokens 2048", 0, "3936   806125568");
    expect_words("--ways --tensor 4", 0, "cut    selective");
    expect_words("--family llama --heads 32 --kv-heads 8 --channels 4096 --hidden 14336 "
                 "--tokens 1024 --json", 0, "142745600");
    expect_words("--tensor 5", 2, "--heads: expected a multiple of 5, got 12");
    expect_words("--tensor 4 --kv-heads 6", 2, "--kv-heads: expected a multiple of 4");
    expect_words("--tensor 12 --kv-heads 5", 2, "--heads: expected a multiple of 5");
    expect_words("--tensor 6 --kv-heads 4", 2, "--tensor: expected a multiple of 4");
    expect_words("--tokens 1023 --tensor 2 --sequence", 2, "--tokens: expected a mult");
    expect_words("--recompute most", 2, "expected none, selective or full, got \"most\"");
    expect_words("--tokens 0", 2, "--tokens: expected a number from 1");
}

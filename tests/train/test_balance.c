/* tests/train/test_balance.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A small model of experts on skewed data: alone, with a loss, with a bias. */
#include <criterion/criterion.h>

#include "base/rng.h"
#include "model/transformer.h"
#include "train/batch.h"
#include "train/optimizer.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* write a skewed text */
enum { B = 4, T = 16, N = B * T, TEXT = 4096, LAST = 10 };

static unsigned char text[TEXT + T + 1];

static void write_text(void)
{
    for (int i = 0; i < (int)sizeof text; i++) {
        double u = dls_rng_uniform(11, 1, (uint64_t)i);
        text[i] = (unsigned char)(64 * u * u * u);      // a quarter is 0
    }
}

static dls_transformer_config model_of(dls_moe moe)
{
    dls_transformer_config c = dls_transformer_gpt2(64, T, 1, 2, 16);
    c.moe = moe;
    return c;
}
/* train and watch the loads */
typedef struct training {
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *optimizer;
    dls_batch batch;
    int step;
} training;

static void open_training(training *t, dls_moe moe)
{
    dls_transformer_config config = model_of(moe);
    dls_adamw_options options = {0.9, 0.99, 1e-8, 0, 1};
    write_text();
    t->step = 0;
    OK(dls_ctx_create(&t->ctx, 0, DLS_F32));
    OK(dls_transformer_create(&t->model, &t->ctx, &config, B, T));
    OK(dls_params_initialise(&t->model->params, 1));
    OK(dls_optimizer_create(&t->optimizer, &t->ctx, &t->model->params, &options));
    OK(dls_batch_create(&t->batch, &t->ctx, B, T));
}

static void close_training(training *t)
{
    dls_batch_destroy(&t->batch);
    dls_optimizer_free(t->optimizer);
    dls_transformer_free(t->model);
    dls_ctx_destroy(&t->ctx);
}
/* A pass forward over the next windows, with an empty tally before it. */
static void look(training *t)
{
    uint64_t offsets[B];
    t->step++;
    for (int i = 0; i < B; i++)
        offsets[i] = dls_rng_u32(11, 2, (uint64_t)(t->step * B + i)) % TEXT;
    OK(dls_batch_load(&t->batch, text, offsets, B));
    OK(dls_balance_clear(&t->model->balance));
    OK(dls_transformer_forward(t->model, dls_batch_tokens(&t->batch, 0),
                               dls_batch_targets(&t->batch, 0), B, T));
}

static void learn(training *t)
{
    OK(dls_params_zero_grads(&t->model->params, &t->ctx));
    look(t);
    OK(dls_transformer_backward(t->model, 1.0 / N, NULL));
    OK(dls_optimizer_step(t->optimizer, 0.001, t->step));
}

static double violation(training *t)
{
    dls_load load;
    OK(dls_balance_read(&t->model->balance, 0, &load, NULL, NULL));
    cr_assert_eq(load.tokens, N);
    cr_assert_eq(load.rows, 2 * N);
    return load.violation;
}

/* Learns so many times; MaxVio of the last steps. */
static double train(training *t, int steps)
{
    double sum = 0;
    for (int i = 0; i < steps; i++) {
        learn(t);
        sum += i >= steps - LAST ? violation(t) / LAST : 0;
    }
    return sum;
}
/* test what balances */
static const dls_moe plain = {.experts = 8, .chosen = 2, .hidden = 16, .normalised = 1};

Test(balance, comes_by_a_loss)
{
    for (int gate = DLS_GATE_SOFTMAX; gate <= DLS_GATE_SIGMOID; gate++) {
        dls_moe moe = plain;
        training t;
        moe.gate = gate;
        moe.aux_batch = gate == DLS_GATE_SOFTMAX ? 0.1 : 0;
        moe.aux_sequence = gate == DLS_GATE_SOFTMAX ? 0 : 0.1;
        open_training(&t, moe);
        double last = train(&t, 80);
        cr_expect(last < 1.3, "gate %d: MaxVio %g", gate, last);
        close_training(&t);
    }
}

Test(balance, is_lost_alone_and_comes_back_by_a_bias)
{
    enum { LOOKS = 150 };
    dls_moe moe = plain;
    training t;
    double last = 0;
    moe.gate = DLS_GATE_SIGMOID;
    moe.bias_rate = 0.001;              // the bias is 0 until the first step
    open_training(&t, moe);
    double collapsed = train(&t, 30);
    cr_expect(collapsed > 2.5, "MaxVio %g", collapsed);
    for (int i = 0; i < LOOKS; i++) {
        look(&t);
        last += i >= LOOKS - LAST ? violation(&t) / LAST : 0;
        OK(dls_balance_step(&t.model->balance, moe.bias_rate));
    }
    cr_expect(last < 1.3, "MaxVio %g", last);
    close_training(&t);
}
/* test who counts */
static void count_a_step(dls_recompute recompute, dls_load *load)
{
    training t;
    write_text();
    open_training(&t, plain);
    dls_transformer_free(t.model);
    dls_transformer_config config = model_of(plain);
    config.recompute = recompute;
    OK(dls_transformer_create(&t.model, &t.ctx, &config, B, T));
    OK(dls_params_initialise(&t.model->params, 1));
    look(&t);
    OK(dls_transformer_backward(t.model, 1.0 / N, NULL));
    OK(dls_transformer_forward(t.model, dls_batch_tokens(&t.batch, 0),
                               dls_batch_targets(&t.batch, 0), B, T));
    OK(dls_transformer_backward(t.model, 1.0 / N, NULL));
    OK(dls_balance_read(&t.model->balance, 0, load, NULL, NULL));
    close_training(&t);
}

Test(balance, counts_a_token_once)
{
    dls_load kept, again;
    count_a_step(DLS_RECOMPUTE_NONE, &kept);
    count_a_step(DLS_RECOMPUTE_FULL, &again);
    cr_expect_eq(kept.tokens, 2 * N);
    cr_expect_eq(kept.rows, 4 * N);
    cr_expect_eq(again.tokens, 2 * N);
    cr_expect_eq(again.most, kept.most);
    cr_expect_eq(again.entropy, kept.entropy);
}
/* test a bad router */
static void poison(training *t, const char *name, size_t element)
{
    const dls_param *p = dls_params_find(&t->model->params, name);
    const float nan = NAN;
    cr_assert(p, "no parameter %s", name);
    cudaMemcpy((float *)p->value + element, &nan, sizeof nan, cudaMemcpyHostToDevice);
}

Test(balance, bad_scores_end_the_pass_in_one_line)
{
    training t;
    uint64_t offsets[B] = {0, 1, 2, 3};
    open_training(&t, plain);
    OK(dls_batch_load(&t.batch, text, offsets, B));
    poison(&t, "block.0.mlp.router.weight", 16 * 3 + 2);
    cr_expect_eq(dls_transformer_forward(t.model, dls_batch_tokens(&t.batch, 0),
                                         dls_batch_targets(&t.batch, 0), B, T),
                 DLS_ERR_STATE);
    cr_expect_str_eq(dls_status_message(),
                     "block.0.mlp.router.weight: the router's scores of token 0 of "
                     "rank 0 of the expert group are not finite numbers");
    close_training(&t);
}

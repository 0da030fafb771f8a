/* tests/train/test_overfit.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* One batch, until it is known by heart. */
#include <criterion/criterion.h>

#include "model/transformer.h"
#include "train/batch.h"
#include "train/optimizer.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* test overfitting */
enum { B = 4, T = 16, N = B * T };

static void load_one_batch(dls_batch *b)
{
    static const char text[] = "It is a truth universally acknowledged, that a single "
                               "man in possession of a good fortune, must be in want "
                               "of a wife.";
    const uint64_t offsets[B] = {0, 25, 50, 75};
    OK(dls_batch_load(b, (const unsigned char *)text, offsets, B));
}

static double mean_loss(dls_ctx *ctx, dls_transformer *model)
{
    float losses[N];
    double sum = 0;
    OK(dls_ctx_sync(ctx));
    cudaMemcpy(losses, dls_transformer_losses(model), sizeof losses,
               cudaMemcpyDeviceToHost);
    for (int i = 0; i < N; i++)
        sum += losses[i];
    return sum / N;
}

Test(train, one_batch_is_learned_by_heart)
{
    dls_transformer_config config = dls_transformer_gpt2(256, T, 2, 2, 32);
    dls_adamw_options options = {0.9, 0.95, 1e-8, 0, 1};
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *o;
    dls_batch b;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    OK(dls_transformer_create(&model, &ctx, &config, B, T));
    OK(dls_params_initialise(&model->params, 1));
    OK(dls_optimizer_create(&o, &ctx, &model->params, &options));
    OK(dls_batch_create(&b, &ctx, B, T));
    load_one_batch(&b);
    for (int step = 1; step <= 150; step++) {
        OK(dls_params_zero_grads(&model->params, &ctx));
        OK(dls_transformer_forward(model, dls_batch_tokens(&b, 0),
                                   dls_batch_targets(&b, 0), B, T));
        OK(dls_transformer_backward(model, 1.0 / N, NULL));
        OK(dls_optimizer_step(o, 0.005, step));
    }
    OK(dls_transformer_forward(model, dls_batch_tokens(&b, 0),
                               dls_batch_targets(&b, 0), B, T));
    double loss = mean_loss(&ctx, model);
    cr_assert(loss < 0.1, "the loss is still %g", loss);
    dls_batch_destroy(&b);
    dls_optimizer_free(o);
    dls_transformer_free(model);
    dls_ctx_destroy(&ctx);
}

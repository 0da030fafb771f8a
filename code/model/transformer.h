/* code/model/transformer.h: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * A decoder of the GPT-2 or the Llama family, as its configuration says.
 * One device buffer for parameters, one for gradients, one for activations; all
 * sizes are known before any of them is taken.
 */
#ifndef DLS_MODEL_TRANSFORMER_H
#define DLS_MODEL_TRANSFORMER_H
#include "layers/layer.h"
#include "layers/router.h"
#include "model/config.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define a transformer */
/* A model with room for micro-batches of up to (max_B, max_T). */
typedef struct dls_transformer {
    dls_transformer_config config;
    dls_ctx *ctx;
    dls_params params;
    dls_build build;
    dls_layer *top, *head;
    dls_plan plan;
    void *rotation;             /* (context, R) device; NULL: learned positions */
    void *activations;          /* (dls_plan_bytes) device */
    size_t losses;              /* stash offset of (N) */
    dls_balance balance;        /* of the expert layers */
    dls_pass pass;
} dls_transformer;

/* Bytes on the device, by purpose. */
typedef struct dls_transformer_memory {
    size_t parameters, gradients, activations;
    dls_plan plan;              /* of the activations; besides them there is a rotation */
    int spares_x;               /* 1: the W of the whole does not read its input */
} dls_transformer_memory;

/* Numbers of the tallies of all its expert layers. */
static inline size_t dls_model_tally(const dls_transformer_config *c)
{
    return c->moe.experts == 0 || c->layers <= c->moe.dense_layers ? 0
        : (size_t)(c->layers - c->moe.dense_layers) * dls_tally_length(c->moe.experts);
}

/* declare the transformer calls */
/* The device bytes that dls_transformer_create will take; the device is not touched. */
dls_status dls_transformer_predict_memory(const dls_transformer_config *c, int max_B,
                                          int max_T, dls_dtype dtype,
                                          dls_transformer_memory *out);

/* The parameters as they will be registered, without memory; the device is not touched.
   Free with dls_params_free. */
dls_status dls_transformer_list(const dls_transformer_config *c, dls_params *out);

/* Parameters (uninitialised: see dls_params_initialise), gradients (zero) and
   activations for micro-batches of up to max_B sequences of max_T tokens. */
dls_status dls_transformer_create(dls_transformer **out, dls_ctx *ctx,
                                  const dls_transformer_config *config,
                                  int max_B, int max_T);

/* The same, of layers that `change` may alter when they are built and nothing is planned
   yet. For tests that need other operations in the same structure. */
typedef dls_status dls_transformer_change(dls_transformer *t);
dls_status dls_transformer_create_with(dls_transformer **out, dls_ctx *ctx,
                                       const dls_transformer_config *config, int max_B,
                                       int max_T, dls_transformer_change *change);
void dls_transformer_free(dls_transformer *t);

/* Of a model that is cut (config.sharding): the communicators of its axes, kept by
   pointer. Before the first pass. */
void dls_transformer_connect(dls_transformer *t, const dls_axes *axes);

/* The positions (B, T) device, kept by pointer, of the tokens of the passes to come in
   sequences of T_whole that are spread over ranks (layers/token_order.h). */
void dls_transformer_place(dls_transformer *t, const int *positions, int T_whole);

/* Dropout in the passes to come: on, with masks keyed by seed, step, and the number of
   the micro-batch's first sequence in the batch of the step; or off, as at the start. */
void dls_transformer_drop(dls_transformer *t, uint64_t seed, int64_t step,
                          int64_t first_sequence);
void dls_transformer_keep(dls_transformer *t);

/* In the passes to come, calls the hook (kept by pointer; NULL: nobody) around each unit:
   0 the embedding, 1 ... L the blocks, L + 1 the last norm and the head. */
void dls_transformer_announce(dls_transformer *t, const dls_unit_hook *hook);

/* tokens, targets: (B, T) device; targets NULL computes logits only. Enqueues on
   the context's stream; the losses are at dls_transformer_losses, (B * T) device.
   B 0: no rows, but a part in what layers do together over ranks. */
dls_status dls_transformer_forward(dls_transformer *t, const int *tokens,
                                   const int *targets, int B, int T);
void *dls_transformer_losses(const dls_transformer *t);

/* Adds the gradient of loss_scale * sum(losses). Once per forward pass. */
dls_status dls_transformer_backward(dls_transformer *t, double loss_scale,
                                    const dls_grad_hook *hook);

/* The same in two halves; the model must be made with split_backward. */
dls_status dls_transformer_backward_input(dls_transformer *t, double loss_scale);
dls_status dls_transformer_backward_weight(dls_transformer *t,
                                           const dls_grad_hook *hook);

/* The scores after the last of tokens (1, T) device: out (V) on the host. Waits. */
dls_status dls_transformer_logits(dls_transformer *t, const int *tokens, int T,
                                  double *out);

/* declare the continuation */
/* Passes T more tokens of B sequences through the model, appending to the cache. tokens,
   positions: (B, T) device. The scores behind the last token of each are at
   dls_transformer_scores, (B, V) device, unless the cache says quiet. */
dls_status dls_transformer_continue(dls_transformer *t, const int *tokens,
                                    const int *positions, const dls_cache *cache, int B,
                                    int T);
void *dls_transformer_scores(const dls_transformer *t);
#ifdef __cplusplus
}
#endif
#endif

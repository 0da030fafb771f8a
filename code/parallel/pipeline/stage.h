/* code/parallel/pipeline/stage.h: from chapters/05-pipeline-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* A contiguous range of a transformer's units with forward and backward passes of its
 * own, and memory for several micro-batches under way.
 */
#ifndef DLS_PARALLEL_PIPELINE_STAGE_H
#define DLS_PARALLEL_PIPELINE_STAGE_H

#include "model/transformer.h"
#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a stage */
/* Makes the model of a configuration: dls_transformer_create, or a test's own. */
typedef dls_status dls_model_maker(dls_transformer **out, dls_ctx *ctx,
                                   const dls_transformer_config *config, int max_B,
                                   int max_T);

/* Device bytes: of a slot's three blocks, and of what all slots share. */
typedef struct dls_stage_bytes {
    size_t stash, early, gradients, working;
} dls_stage_bytes;

typedef struct dls_stage_slot {
    dls_pass pass;
    void *stash, *early, *gradients;    /* NULL: not taken */
    void *x;                            /* (B * T, C) in one of the first two */
    int reserved;                       /* 1: taken for a forward pass that is to come */
} dls_stage_slot;

typedef struct dls_stage_block {
    void *memory;
    size_t bytes;
    int taken;
    struct dls_stage_block *next;
} dls_stage_block;

typedef struct dls_stage {
    dls_transformer *model;     /* of units config.from_unit ... config.to_unit - 1 */
    int first, last;            /* 1: has the embedding; the head */
    int deferred;               /* 1: planned for I and W apart */
    int slots;
    dls_stage_slot *slot;       /* [slots] */
    dls_stage_bytes bytes;
    char *host;                 /* (slots, plan.host) on the host */
    void *working;              /* scratch and temporary */
    void *beside;               /* the same again, for backward passes; or NULL */
    void *spare;                /* gradients of the backward that comes next */
    int cut;                    /* 1: the layers are, over ranks; then the blocks are: */
    dls_stage_block *blocks;
} dls_stage;

/* A micro-batch on its way in. */
typedef struct dls_stage_input {
    int B, T;
    const int *tokens, *targets;    /* (B, T) device: for the first; for the last */
    double loss_scale;
    int drops;                      /* 1: dropout, keyed by the next two */
    uint64_t seed, first_sequence;
    dls_params *params;             /* NULL: the model's; else with other values */
} dls_stage_input;

/* declare the stage calls */
/* The stage of `config`'s units, for `slots` micro-batches of up to (max_B, max_T).
 * config->split_backward says whether I and W will come apart. */
dls_status dls_stage_create(dls_stage **out, dls_ctx *ctx,
                            const dls_transformer_config *config, dls_model_maker *make,
                            int max_B, int max_T, int slots);
void dls_stage_free(dls_stage *s);

/* The same sizes before there is a stage; *fixed: what the model takes besides. */
dls_status dls_stage_predict(const dls_transformer_config *part, int max_B, int max_T,
                             dls_dtype dtype, dls_stage_bytes *out, size_t *fixed);

/* Sets s->bytes from s->model's plan, s->first, s->last and s->deferred. */
void dls_stage_add_up(dls_stage *s);

/* All on the context's stream. x, y, dx, dy (B * T, C) device, free for others when the
 * call's operations are done. The first stage has no x and dx; the last has no dy, and
 * its y is the losses (B * T), of the accumulator type.
 * DLS_ERR_STATE: a slot that is taken, or not. */
dls_status dls_stage_forward(dls_stage *s, int slot, const dls_stage_input *in, void *y,
                             const void *x);
dls_status dls_stage_backward_input(dls_stage *s, int slot, void *dx, const void *dy);
dls_status dls_stage_backward_weight(dls_stage *s, int slot);
dls_status dls_stage_backward(dls_stage *s, int slot, void *dx, const void *dy);

/* Takes the memory of the slot's next forward pass now. */
dls_status dls_stage_reserve(dls_stage *s, int slot);

/* Takes a second working memory, so that a forward and a backward pass of the stage may
 * be under way at once. */
dls_status dls_stage_pair(dls_stage *s);

/* Gives back what the slot holds, whatever it was about to do. */
dls_status dls_stage_forget(dls_stage *s, int slot);

/* What an action adds to the bytes of its slot; less than 0: it gives back. */
ptrdiff_t dls_stage_adds(const dls_stage_bytes *b, const dls_action *a);

#ifdef __cplusplus
}
#endif
#endif

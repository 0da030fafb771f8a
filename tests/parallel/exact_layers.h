/* tests/parallel/exact_layers.h: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole-number operations for the layers of a transformer, whatever it is cut into. */
#ifndef DLS_TESTS_PARALLEL_EXACT_LAYERS_H
#define DLS_TESTS_PARALLEL_EXACT_LAYERS_H

#include <string.h>

#include "exact_ops.h"
#include "model/transformer.h"

/* Most tokens of a batch and of a sequence, most units of a model, and most columns
 * between two products, for which every number stays below 2^24. */
enum { EXACT_MOST_TOKENS = 512, EXACT_MOST_T = 32, EXACT_MOST_BLOCKS = 30,
       EXACT_MOST_HIDDEN = 32, EXACT_MOST_HEADS = 48, EXACT_MOST_EXPERTS = 144 };

/* As dls_transformer_create: the same structure with exact kinds. Dropout, if there is
 * any, with a probability of one half. */
dls_status exact_transformer(dls_transformer **out, dls_ctx *ctx,
                             const dls_transformer_config *config, int max_B, int max_T);

/* Exchanges the kinds of a builder's layers. */
dls_status exact_exchange(dls_layer *all);

/* 1: an expert layer. */
static inline int exact_has_experts(const dls_layer *l)
{
    return strcmp(l->kind->name, "moe") == 0;
}

/* Initial values: -1, 0, 1 by (name, index in the whole tensor). host (elements),
 * accumulator type. */
void exact_layers_fill(const dls_params *set, void *host);

/* Their kinds. */
extern const dls_layer_kind exact_norm_kind, exact_relu_kind, exact_gate_kind,
    exact_attention_kind, exact_head_kind, exact_block_kind;

#endif

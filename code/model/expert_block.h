/* code/model/expert_block.h: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The expert layer of a block, as the model's configuration describes it. */
#ifndef DLS_MODEL_EXPERT_BLOCK_H
#define DLS_MODEL_EXPERT_BLOCK_H
#include "layers/layer.h"
#include "model/config.h"

/* 1: block number `i` has experts in place of its MLP. */
int dls_block_has_experts(const dls_transformer_config *c, int i);

/* Registers NAME.router, NAME.expert.J and NAME.shared. (N, C) -> (N, C) */
dls_layer *dls_block_experts(dls_build *b, const char *name,
                             const dls_transformer_config *c, double std,
                             double out_std);
#endif

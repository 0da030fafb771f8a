/* code/model/block.h: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/* The block of a transformer, as its configuration describes it. */
#ifndef DLS_MODEL_BLOCK_H
#define DLS_MODEL_BLOCK_H
#include "layers/layer.h"
#include "model/config.h"

/* Registers NAME.ln1, NAME.attention, NAME.ln2, NAME.mlp. std: of the initial weights;
   out_std: of the two projections into the residual stream. (N, C) -> (N, C) */
dls_layer *dls_block(dls_build *b, const char *name, const dls_transformer_config *c,
                     double std, double out_std);

/* The norm that the configuration chooses. (N, C) -> (N, C) */
dls_layer *dls_block_norm(dls_build *b, const char *name,
                          const dls_transformer_config *c);
#endif

/* tests/parallel/exact_model.h: from chapters/04-data-parallelism-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A transformer whose arithmetic is exact in f32: every number is a small whole one.
 * Three blocks, odd sizes, tied head. It is a dls_transformer: use the same calls. */
#ifndef DLS_TESTS_PARALLEL_EXACT_MODEL_H
#define DLS_TESTS_PARALLEL_EXACT_MODEL_H

#include "model/transformer.h"

enum { EXACT_V = 11, EXACT_T = 5, EXACT_C = 7, EXACT_F = 13, EXACT_BLOCKS = 3 };

/* unplaced: as in the configuration of a transformer. Free with dls_transformer_free. */
dls_status exact_model_create(dls_transformer **out, dls_ctx *ctx, int unplaced,
                              int max_B);

/* The same as a maker of stages (parallel/pipeline/stage.h): the units, the choice of a
 * split backward, `unplaced` and the number of blocks are the configuration's. */
dls_transformer_config exact_model_config(void);
dls_status exact_model_make(dls_transformer **out, dls_ctx *ctx,
                            const dls_transformer_config *config, int max_B, int max_T);

/* Initial values: -1, 0, 1 by (name, index). host (elements), accumulator type. */
void exact_model_fill(const dls_params *set, void *host);

#endif

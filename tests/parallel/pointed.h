/* tests/parallel/pointed.h: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Models whose dense layers have points, as expert layers do. */
#ifndef DLS_TESTS_PARALLEL_POINTED_H
#define DLS_TESTS_PARALLEL_POINTED_H

#include "parallel/pipeline/stage.h"

/* As dls_transformer_create and exact_model_make; behind each layer of the model, all the
 * way down, the pass calls the hook. */
dls_status pointed_make(dls_transformer **out, dls_ctx *ctx,
                        const dls_transformer_config *config, int max_B, int max_T);
dls_status pointed_exact_make(dls_transformer **out, dls_ctx *ctx,
                              const dls_transformer_config *config, int max_B, int max_T);

/* What ran, in order: f and b for a layer of a forward and of a backward pass. */
extern char pointed_log[1 << 16];
extern int pointed_count, pointed_fails;    /* fails: at this point of a forward pass */
extern dls_recompute pointed_recompute;     /* of pointed_make's models */

#endif

/* code/train/state.h: from chapters/08-expert-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* What a checkpoint keeps of a whole model: its parameters, and the biases of its
 * routers behind them.
 */
#ifndef DLS_TRAIN_STATE_H
#define DLS_TRAIN_STATE_H
#include "train/slices.h"
#ifdef __cplusplus
extern "C" {
#endif
/* declare the kept state */
/* The list of an uncut model, without memory; "X.router.bias" (E) for each
 * X.router.weight whose choice has a bias. Free with dls_params_free. */
dls_status dls_state_list(const dls_transformer_config *c, dls_params *out);

/* Adds the biases of this rank's routers, which lie behind *elements of its arrays, and
 * counts them there. saved 1: over all ranks each once. */
dls_status dls_state_slices(const dls_trainer *t, int saved, dls_slices *out,
                            size_t *elements);

/* Between the device and values (host, accumulator type), where the first is. Waits. */
dls_status dls_state_fetch(dls_trainer *t, void *values);
dls_status dls_state_put(dls_trainer *t, const void *values);
#ifdef __cplusplus
}
#endif
#endif

/* code/layers/internal.h: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the sources of code/layers, and by nobody else. */
#ifndef DLS_LAYERS_INTERNAL_H
#define DLS_LAYERS_INTERNAL_H
#include "kernels/dropout.h"
#include "layers/layer.h"

/* A bare layer in the builder's list; NULL and nothing done after a failure. */
dls_layer *dls_layer_make(dls_build *b, const dls_layer_kind *kind, int in, int out);

/* Registers LAYER.SUFFIX; -1 after a failure. */
int dls_layer_param(dls_build *b, const char *layer, const char *suffix,
                    dls_param story);

/* declare layers over ranks */
/* See context_layer.c. */
extern const dls_layer_kind dls_attention_over_ranks;
int dls_layer_is_scattered(const dls_pass *p);
dls_status dls_layer_drop_scattered(const dls_layer *l, const dls_pass *p, void *out,
                                    const void *x);

/* The mask of a layer's output in this pass, if its rows are a stretch of the step's. */
dls_dropout dls_layer_mask(const dls_layer *l, const dls_pass *p);

/* out = x under the layer's mask; the same call serves the gradient. (N, l->out) */
dls_status dls_layer_drop(const dls_layer *l, const dls_pass *p, void *out,
                          const void *x);

/* 1: W does not read x, so that x may be forgotten after I. */
int dls_layer_spares_x(const dls_layer *l);

/* Reserves the place of a layer's output: in scratch if it is discarded, in the early
 * stash if the next layer, its only reader, spares it (NULL: somebody else reads). */
size_t dls_layer_value(const dls_layer *inner, const dls_layer *next, dls_plan *plan);

/* The W of a layer without parameters. */
dls_status dls_layer_no_weights(const dls_layer *l, dls_pass *p, const void *dy,
                                const void *x);

/* Copies the list of inner layers and makes room for their slots; 0 after a failure. */
int dls_layer_keep(dls_build *b, dls_layer *l, dls_layer *const *inner, int n);
#endif

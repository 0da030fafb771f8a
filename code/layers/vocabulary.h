/* code/layers/vocabulary.h: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* The token table cut over ranks: embedding and loss. */
#ifndef DLS_LAYERS_VOCABULARY_H
#define DLS_LAYERS_VOCABULARY_H
#include "layers/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif
/* declare the cut vocabulary */
/* Gives the layer its band of the rows of a table (story: V, C), which is cut. */
void dls_vocabulary_cut(const dls_build *b, dls_layer *l, dls_param *story);

/* From a band of the logits (N, l->vocabulary), the losses (N) on every rank, and the
 * gradient in the logits' place. Three all-reduces of N numbers; N = B * T. */
dls_status dls_vocabulary_losses(const dls_layer *l, dls_pass *p, void *losses,
                                 void *logits);

/* Bytes it needs of the pass's temporary room. */
size_t dls_vocabulary_room(size_t N, dls_dtype dtype);
#ifdef __cplusplus
}
#endif
#endif

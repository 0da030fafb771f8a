/* code/kernels/vocabulary.h: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* Cross-entropy of logits whose columns are cut over ranks: what a rank does alone,
 * before, between and behind three all-reduces of N numbers each.
 *
 *   scan -- all-reduce MAX of most -- rescale -- all-reduce SUM of sum, right -- finish
 */
#ifndef DLS_KERNELS_VOCABULARY_H
#define DLS_KERNELS_VOCABULARY_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the cut cross entropy */
/* A rank's band of the vocabulary: V of `whole` columns, from number `first` on. */
typedef struct dls_band { int first, V, whole; } dls_band;

/* Of each row's band: the largest logit, twice, the sum of exp(logit - largest), and the
 * target's logit, 0 if another rank has it, NaN if nobody has (target >= whole). */
dls_status dls_vocabulary_scan(dls_ctx *ctx,
                               void *own, void *most,   // (N) acc
                               void *sum, void *right,  // (N) acc
                               const void *logits,      // (N, band V)
                               const int *targets,      // (N)
                               dls_band band, int N);

/* sum, so far measured from `own`, is measured from `most`. */
dls_status dls_vocabulary_rescale(dls_ctx *ctx,
                                  void *sum,         // (N) acc
                                  const void *own,   // (N) acc
                                  const void *most,  // (N) acc
                                  int N);

/* With most, sum and right those of the whole rows: the losses, and logits becomes its
 * own gradient, scale * (softmax - one_hot(target)); rules as for dls_cross_entropy. */
dls_status dls_vocabulary_finish(dls_ctx *ctx,
                                 void *losses,         // (N) acc
                                 void *logits,         // (N, band V); overwritten
                                 const void *most,     // (N) acc
                                 const void *sum,      // (N) acc
                                 const void *right,    // (N) acc
                                 const int *targets,   // (N)
                                 dls_band band, double scale, int N);

#ifdef __cplusplus
}
#endif
#endif

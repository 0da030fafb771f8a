/* code/kernels/cross_entropy.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy in one, per position. */
#ifndef DLS_KERNELS_CROSS_ENTROPY_H
#define DLS_KERNELS_CROSS_ENTROPY_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the cross entropy */
/* losses[n] = -log softmax(logits[n])[targets[n]]; keeps lse[n] for the backward pass.
 * A negative target gives 0, one beyond the vocabulary NaN. Logits must be finite. */
dls_status dls_cross_entropy_forward(dls_ctx *ctx,
                                     void *losses,        // (N) acc
                                     void *lse,           // (N) acc
                                     const void *logits,  // (N, V)
                                     const int *targets,  // (N)
                                     int N, int V);

/* dlogits = scale * (softmax(logits) - one_hot(target)), 0 where the target is negative.
 * dlogits may be logits. */
dls_status dls_cross_entropy_backward(dls_ctx *ctx,
                                      void *dlogits,       // (N, V)
                                      const void *logits,  // (N, V)
                                      const void *lse,     // (N) acc
                                      const int *targets,  // (N)
                                      double scale, int N, int V);

#ifdef __cplusplus
}
#endif
#endif

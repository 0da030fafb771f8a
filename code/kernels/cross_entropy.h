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
/* losses[n] = -log softmax(logits[n])[targets[n]], and logits[n] becomes its own
 * gradient, scale * (softmax - one_hot(target)); the columns from V to row - 1 are not
 * read, and become 0. A negative target: both 0. A target >= V: the loss is NaN. A row
 * that has no softmax (with NaN or +inf, or all -inf): all NaN. */
dls_status dls_cross_entropy(dls_ctx *ctx,
                             void *losses,        // (N) acc
                             void *logits,        // (N, row), V columns used; overwritten
                             const int *targets,  // (N)
                             double scale, int N, int V, int row);

/* The losses alone, and lse[n] for a backward pass. */
dls_status dls_cross_entropy_forward(dls_ctx *ctx,
                                     void *losses,        // (N) acc
                                     void *lse,           // (N) acc
                                     const void *logits,  // (N, row)
                                     const int *targets,  // (N)
                                     int N, int V, int row);

/* The gradient alone. dlogits may be logits. */
dls_status dls_cross_entropy_backward(dls_ctx *ctx,
                                      void *dlogits,       // (N, row)
                                      const void *logits,  // (N, row)
                                      const void *lse,     // (N) acc
                                      const int *targets,  // (N)
                                      double scale, int N, int V, int row);

#ifdef __cplusplus
}
#endif
#endif

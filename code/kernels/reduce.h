/* code/kernels/reduce.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums over whole arrays, and the coefficient for clipping a gradient by its norm. */
#ifndef DLS_KERNELS_REDUCE_H
#define DLS_KERNELS_REDUCE_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the reductions */
/* out = sum of x, accumulated in double. At most 64 sums may be in flight per device. */
dls_status dls_sum(dls_ctx *ctx,
                   void *out,      // (1) acc
                   const void *x,  // (n)
                   size_t n);

/* out += sum of x * x, accumulated in double. */
dls_status dls_square_sum(dls_ctx *ctx,
                          double *out,    // (1), double whatever ctx->dtype is; added to
                          const void *x,  // (n)
                          size_t n);

/* norm = sqrt(square_sum); coef = min(1, max_norm / norm), 1 where max_norm <= 0, and 0
 * where the norm is not finite: dls_adamw then leaves everything as it is. */
dls_status dls_clip_coefficient(dls_ctx *ctx,
                                double *coef,              // (1)
                                double *norm,              // (1)
                                const double *square_sum,  // (1)
                                double max_norm);

#ifdef __cplusplus
}
#endif
#endif

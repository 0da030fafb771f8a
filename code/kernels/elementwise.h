/* code/kernels/elementwise.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Elementwise sums and scales. */
#ifndef DLS_KERNELS_ELEMENTWISE_H
#define DLS_KERNELS_ELEMENTWISE_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare additions and scales */
/* out = a + b; out may be a or b. */
dls_status dls_add(dls_ctx *ctx,
                   void *out,      // (n)
                   const void *a,  // (n)
                   const void *b,  // (n)
                   size_t n);

/* x = alpha x, in place. */
dls_status dls_scale(dls_ctx *ctx,
                     void *x,  // (n)
                     double alpha, size_t n);

#ifdef __cplusplus
}
#endif
#endif

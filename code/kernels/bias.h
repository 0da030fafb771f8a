/* code/kernels/bias.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The bias of a linear layer. */
#ifndef DLS_KERNELS_BIAS_H
#define DLS_KERNELS_BIAS_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the bias */
/* x[n, c] += bias[c], in place. */
dls_status dls_bias_add(dls_ctx *ctx,
                        void *x,           // (N, C)
                        const void *bias,  // (C)
                        int N, int C);

/* Adds the column sums of dout to dbias; the order of the sum is fixed. */
dls_status dls_bias_backward(dls_ctx *ctx,
                             void *dbias,       // (C) acc, added to
                             const void *dout,  // (N, C)
                             int N, int C);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/layernorm.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Layer normalisation over the last axis (Ba, Kiros and Hinton 2016). */
#ifndef DLS_KERNELS_LAYERNORM_H
#define DLS_KERNELS_LAYERNORM_H

#include "base/status.h"
#include "tensor/tensor.h"

#define DLS_LAYERNORM_EPSILON 1e-5

#ifdef __cplusplus
extern "C" {
#endif

/* declare the layer norm */
/* out = (x - mean) * rstd * weight + bias; keeps mean and rstd for the backward pass.
 * A constant row gives out = bias up to rounding. out may be x. */
dls_status dls_layernorm_forward(dls_ctx *ctx,
                                 void *out,           // (N, C)
                                 void *mean,          // (N) acc
                                 void *rstd,          // (N) acc
                                 const void *x,       // (N, C)
                                 const void *weight,  // (C)
                                 const void *bias,    // (C)
                                 int N, int C);

/* Overwrites dx with the gradient of the input. dx may be dout. */
dls_status dls_layernorm_backward_input(dls_ctx *ctx,
                                        void *dx,            // (N, C)
                                        const void *dout,    // (N, C)
                                        const void *x,       // (N, C)
                                        const void *weight,  // (C)
                                        const void *mean,    // (N) acc
                                        const void *rstd,    // (N) acc
                                        int N, int C);

/* Adds the gradients of the parameters; the order of the sum over rows is fixed. */
dls_status dls_layernorm_backward_weight(dls_ctx *ctx,
                                         void *dweight,     // (C) acc, added to
                                         void *dbias,       // (C) acc, added to
                                         const void *dout,  // (N, C)
                                         const void *x,     // (N, C)
                                         const void *mean,  // (N) acc
                                         const void *rstd,  // (N) acc
                                         int N, int C);

#ifdef __cplusplus
}
#endif
#endif

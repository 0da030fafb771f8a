/* code/kernels/linear.h: from chapters/09-transformer-kernels-linear.md. Edit the chapter, or edit here and run "make untangle". */
/* Linear layers: products with a bias, and with GELU, in one pass where cublasLt can.
 *
 *   forward          pre = x W^T + b        out = gelu(pre)
 *   backward input   dx = dout W            dx = (dout W) * gelu'(pre)
 *   backward weight  dW += dout^T x         db += column sums of dout
 *
 * GELU is the tanh form of gelu.h, which is the one that cublasLt has.
 * DLS_LINEAR=fused|separate chooses; fused is the default. What cublasLt does not take,
 * f64 and some sizes, is computed separately all the same.
 */
#ifndef DLS_KERNELS_LINEAR_H
#define DLS_KERNELS_LINEAR_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the linear layer */
/* out = x weight^T + bias. Errors of all five: DLS_ERR_INPUT for a bad DLS_LINEAR. */
dls_status dls_linear_forward(dls_ctx *ctx,
                              void *out,           // (N, OC)
                              const void *x,       // (N, C)
                              const void *weight,  // (OC, C)
                              const void *bias,    // (OC), or NULL
                              int N, int C, int OC);

/* The same, then out = gelu(pre). */
dls_status dls_linear_gelu_forward(dls_ctx *ctx,
                                   void *out,           // (N, OC)
                                   void *pre,           // (N, OC), for the backward pass
                                   const void *x,       // (N, C)
                                   const void *weight,  // (OC, C)
                                   const void *bias,    // (OC), or NULL
                                   int N, int C, int OC);

/* dx = dout weight, overwriting dx. */
dls_status dls_linear_backward_input(dls_ctx *ctx,
                                     void *dx,            // (N, C)
                                     const void *dout,    // (N, OC)
                                     const void *weight,  // (OC, C)
                                     int N, int C, int OC);

/* The same through the GELU that made this layer's input of `pre`:
 * dpre = (dout weight) * gelu'(pre). */
dls_status dls_linear_gelu_backward_input(dls_ctx *ctx,
                                          void *dpre,          // (N, C)
                                          const void *dout,    // (N, OC)
                                          const void *weight,  // (OC, C)
                                          const void *pre,     // (N, C)
                                          int N, int C, int OC);

/* dweight = keep * dweight + dout^T x; with keep 0 it is not read. The column sums of
 * dout are added to dbias. */
dls_status dls_linear_backward_weight(dls_ctx *ctx, double keep,
                                      void *dweight,     // (OC, C) acc
                                      void *dbias,       // (OC) acc, added to, or NULL
                                      const void *dout,  // (N, OC)
                                      const void *x,     // (N, C)
                                      int N, int C, int OC);

#ifdef __cplusplus
}
#endif
#endif

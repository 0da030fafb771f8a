/* code/kernels/residual_norm.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* h = x + f and norm(h) in one pass, for LayerNorm and RMSNorm, with or without dropout
 * of the branch f; and backward, the gradient of the stream added in the same pass. */
#ifndef DLS_KERNELS_RESIDUAL_NORM_H
#define DLS_KERNELS_RESIDUAL_NORM_H

#include "base/status.h"
#include "kernels/dropout.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the residual norm */
typedef struct dls_residual_norm {
    int N, C;
    int centred;                 // 1: LayerNorm, with mean and bias; 0: RMSNorm
    double epsilon;              // positive
    const dls_dropout *dropout;  // of the branch; NULL: none
} dls_residual_norm;

/* h = x + dropout(f), out = norm(h). h may be x; mean and bias are NULL for RMSNorm.
 * The statistics are those of h as it is stored. Errors: DLS_ERR_INPUT, see epsilon. */
dls_status dls_residual_norm_forward(dls_ctx *ctx,
                                     void *h,             // (N, C)
                                     void *out,           // (N, C)
                                     void *mean,          // (N), accumulator type
                                     void *rstd,          // (N), accumulator type
                                     const void *x,       // (N, C), the stream
                                     const void *f,       // (N, C), the branch
                                     const void *weight,  // (C)
                                     const void *bias,    // (C)
                                     const dls_residual_norm *shape);

/* dx = dstream + the gradient of out through the norm; df = dx under the mask. dx may be
 * dstream or dout. Without dropout df is not written: it is dx. The gradients of weight
 * and bias are those of the norm alone, with h for its input. */
dls_status dls_residual_norm_backward(dls_ctx *ctx,
                                      void *dx,             // (N, C)
                                      void *df,             // (N, C); NULL: no dropout
                                      const void *dstream,  // (N, C), of h, from later
                                      const void *dout,     // (N, C)
                                      const void *h,        // (N, C)
                                      const void *weight,   // (C)
                                      const void *mean,     // (N), accumulator type
                                      const void *rstd,     // (N), accumulator type
                                      const dls_residual_norm *shape);

/* What the kernels are given: private to residual_norm.cu and its host version. */
typedef struct dls_residual_plan {
    int N, C, centred, dropped;
    double epsilon;
    uint64_t first, row;
    dls_dropout_gate gate;
} dls_residual_plan;

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/rmsnorm.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Root mean square normalisation over the last axis (Zhang and Sennrich 2019). */
#ifndef DLS_KERNELS_RMSNORM_H
#define DLS_KERNELS_RMSNORM_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the rms norm */
/* out = x * rstd * weight, rstd = 1 / sqrt(mean x^2 + epsilon). A row of zeros gives
 * zeros; a row whose mean square overflows gives rstd = 0. out may be x.
 * Errors: DLS_ERR_INPUT when epsilon is not positive in the accumulator type. */
dls_status dls_rmsnorm_forward(dls_ctx *ctx,
                               void *out,           // (N, C)
                               void *rstd,          // (N), accumulator type
                               const void *x,       // (N, C)
                               const void *weight,  // (C)
                               int N, int C, double epsilon);

/* Overwrites dx with the gradient of the input. dx may be dout. */
dls_status dls_rmsnorm_backward_input(dls_ctx *ctx,
                                      void *dx,            // (N, C)
                                      const void *dout,    // (N, C)
                                      const void *x,       // (N, C)
                                      const void *weight,  // (C)
                                      const void *rstd,    // (N), accumulator type
                                      int N, int C);

/* Adds the gradient of the weight; the order of the sum over rows is fixed. */
dls_status dls_rmsnorm_backward_weight(dls_ctx *ctx,
                                       void *dweight,     // (C), accumulator, added to
                                       const void *dout,  // (N, C)
                                       const void *x,     // (N, C)
                                       const void *rstd,  // (N), accumulator type
                                       int N, int C);

#ifdef __cplusplus
}
#endif
#endif

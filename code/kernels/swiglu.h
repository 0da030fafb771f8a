/* code/kernels/swiglu.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* The gated unit of Llama's MLP (Shazeer 2020): silu(gate) * up. */
#ifndef DLS_KERNELS_SWIGLU_H
#define DLS_KERNELS_SWIGLU_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare swiglu */
/* out = silu(gate) * up. A row of gate_up holds the F gates, then the F values. Finite
 * inputs are safe at any size; a gate of -infinity gives NaN. */
dls_status dls_swiglu_forward(dls_ctx *ctx,
                              void *out,            // (N, F)
                              const void *gate_up,  // (N, 2F)
                              int N, int F);

/* Overwrites dgate_up with the gradient of gate_up; the two may be one array. */
dls_status dls_swiglu_backward(dls_ctx *ctx,
                               void *dgate_up,       // (N, 2F)
                               const void *dout,     // (N, F)
                               const void *gate_up,  // (N, 2F)
                               int N, int F);

#ifdef __cplusplus
}
#endif
#endif

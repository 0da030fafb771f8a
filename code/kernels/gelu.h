/* code/kernels/gelu.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The Gaussian error linear unit in its tanh form (Hendrycks and Gimpel 2016), computed
 * as x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). */
#ifndef DLS_KERNELS_GELU_H
#define DLS_KERNELS_GELU_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#define DLS_GELU_SCALE 0.79788456080286535588 /* sqrt(2/pi) */
#define DLS_GELU_CUBIC 0.044715

#ifdef __cplusplus
extern "C" {
#endif

/* declare gelu */
/* out = gelu(x). Finite for |x| < 1e12 in f32; out may be x. */
dls_status dls_gelu_forward(dls_ctx *ctx,
                            void *out,      // (n)
                            const void *x,  // (n)
                            size_t n);

/* dx = dout * gelu'(x), overwriting dx; dx may be dout. */
dls_status dls_gelu_backward(dls_ctx *ctx,
                             void *dx,          // (n)
                             const void *dout,  // (n)
                             const void *x,     // (n)
                             size_t n);

/* The same for x Phi(x), without the fit ("gelu" in a Hugging Face configuration). */
dls_status dls_gelu_erf_forward(dls_ctx *ctx,
                                void *out,      // (n)
                                const void *x,  // (n)
                                size_t n);
dls_status dls_gelu_erf_backward(dls_ctx *ctx,
                                 void *dx,          // (n)
                                 const void *dout,  // (n)
                                 const void *x,     // (n)
                                 size_t n);

#ifdef __cplusplus
}
#endif
#endif

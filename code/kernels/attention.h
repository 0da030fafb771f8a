/* code/kernels/attention.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Causal multi-head attention with the weights kept in memory (Vaswani et al. 2017). */
#ifndef DLS_KERNELS_ATTENTION_H
#define DLS_KERNELS_ATTENTION_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the attention */
/* out = attention of each head; keeps the weights in att, with zeros above the diagonal.
 * A row of qkv holds queries, keys and values, C each, head after head. H divides C.
 * qkv must be finite: an infinity or NaN may spread to earlier positions too. */
dls_status dls_attention_forward(dls_ctx *ctx,
                                 void *out,        // (B, T, C)
                                 void *att,        // (B, H, T, T)
                                 const void *qkv,  // (B, T, 3C)
                                 int B, int T, int C, int H);

/* Overwrites dqkv with the gradient of qkv. scratch is used for the scores' gradients. */
dls_status dls_attention_backward(dls_ctx *ctx,
                                  void *dqkv,        // (B, T, 3C)
                                  void *scratch,     // (B, H, T, T)
                                  const void *dout,  // (B, T, C)
                                  const void *qkv,   // (B, T, 3C)
                                  const void *att,   // (B, H, T, T)
                                  int B, int T, int C, int H);

#ifdef __cplusplus
}
#endif
#endif

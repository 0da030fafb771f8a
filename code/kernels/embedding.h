/* code/kernels/embedding.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Token and position embedding. */
#ifndef DLS_KERNELS_EMBEDDING_H
#define DLS_KERNELS_EMBEDDING_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the embedding */
/* out = wte[tokens] + wpe[position]. Tokens must lie in 0 .. V-1. */
dls_status dls_embedding_forward(dls_ctx *ctx,
                                 void *out,          // (B, T, C)
                                 const int *tokens,  // (B, T)
                                 const void *wte,    // (V, C)
                                 const void *wpe,    // (at least T, C)
                                 int B, int T, int C);

/* Adds to dwte and dwpe. The same input gives the same bits on every run: each element is
 * summed by one thread, in ascending order of the position. */
dls_status dls_embedding_backward(dls_ctx *ctx,
                                  void *dwte,         // (V, C) acc, added to
                                  void *dwpe,         // (at least T, C) acc, added to
                                  const void *dout,   // (B, T, C)
                                  const int *tokens,  // (B, T)
                                  int B, int T, int C, int V);

#ifdef __cplusplus
}
#endif
#endif

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
/* out = wte[tokens] + wpe[positions]. Tokens must lie in 0 .. V-1, positions in wpe. */
dls_status dls_embedding_forward(dls_ctx *ctx,
                                 void *out,             // (B, T, C)
                                 const int *tokens,     // (B, T)
                                 const int *positions,  // (B, T); NULL: 0 .. T-1 in each
                                 const void *wte,       // (V, C)
                                 const void *wpe,       // (positions, C); NULL: none
                                 int B, int T, int C);

/* Adds to dwte and, unless it is NULL, to dwpe, for positions 0 .. T-1. The same input
 * gives the same bits on every run: each element is summed by one thread, in ascending
 * order of the position. */
dls_status dls_embedding_backward(dls_ctx *ctx,
                                  void *dwte,         // (V, C) acc, added to
                                  void *dwpe,         // (at least T, C) acc, added to
                                  const void *dout,   // (B, T, C)
                                  const int *tokens,  // (B, T)
                                  int B, int T, int C, int V);

/* The same with a part of the table, rows first ... first + V - 1 of it in wte and dwte:
 * a token outside of them has a row of zeros, and no gradient. Positions that dwpe is
 * added to at are different ones, and the same in all sequences. */
dls_status dls_embedding_part_forward(dls_ctx *ctx, void *out, const int *tokens,
                                      const int *positions, const void *wte,
                                      const void *wpe, int B, int T, int C, int first,
                                      int V);
dls_status dls_embedding_part_backward(dls_ctx *ctx, void *dwte, void *dwpe,
                                       const void *dout, const int *tokens,
                                       const int *positions, int B, int T, int C,
                                       int first, int V);

#ifdef __cplusplus
}
#endif
#endif

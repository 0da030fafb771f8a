/* code/kernels/permute.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows of tokens into the order of their experts, and back. Everything of the context's
 * type but where a comment says acc; place (n, k) int32 is from the router. */
#ifndef DLS_KERNELS_PERMUTE_H
#define DLS_KERNELS_PERMUTE_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the permutation */
/* xs (m, C): row place[t, j] := row t of x (n, C), for every place that is not negative.
 * The places are distinct. Rows of xs that nobody has are not touched. */
dls_status dls_permute(dls_ctx *ctx, void *xs, const void *x, const int *place, int n,
                       int k, int C);

/* y[t] (n, C) := base[t] + sum over j of weight[t, j] ys[place[t, j]], in the order of j;
 * negative places add nothing. base NULL: zeros, and it may be y. weight (n, k) acc;
 * NULL: ones, which makes this the gradient of dls_permute. */
dls_status dls_unpermute(dls_ctx *ctx, void *y, const void *base, const void *ys,
                         const void *weight, const int *place, int n, int k, int C);

/* The gradients of that: dys[place[t, j]] := weight[t, j] dy[t], and dweight[t, j] (n, k)
 * acc := <dy[t], ys[place[t, j]]>, 0 without a place. */
dls_status dls_unpermute_backward(dls_ctx *ctx, void *dys, void *dweight, const void *dy,
                                  const void *ys, const void *weight, const int *place,
                                  int n, int k, int C);

#ifdef __cplusplus
}
#endif
#endif

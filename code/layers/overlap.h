/* code/layers/overlap.h: from chapters/06-sequence-parallelism-overlap.md. Edit the chapter, or edit here and run "make untangle". */
/* Products of sliced rows: gathered while they are multiplied, or scattered meanwhile. */
#ifndef DLS_LAYERS_OVERLAP_H
#define DLS_LAYERS_OVERLAP_H
#include "layers/sharding.h"
#include "tensor/context.h"
#ifdef __cplusplus
extern "C" {
#endif

/* define a product of rows */
/* y (N, out) = x (N, in) by a weight, for all N rows or some of them. */
typedef struct dls_row_product {
    int N, in, out;
    int turned;                 /* 1: weight is (out, in), forward; 0: (in, out), back */
    const void *weight;
    const void *bias;           /* (out), turned only; NULL: none */
    const void *pre;            /* (N, out), else only: times gelu'(pre); NULL: not */
} dls_row_product;

/* declare the overlapped products */
/* x (N/t, in) is this rank's slice of the rows. y (N, out) = all the rows by the weight;
 * `whole` (N, in) is room for the others' rows. fill 1: it gets all rows, this rank's
 * too. In sharding.chunks pieces, rounded up to a multiple of t; 0, 1: all at once. */
dls_status dls_gather_product(const dls_axes *axes, dls_ctx *ctx,
                              const dls_row_product *p, void *y, void *whole,
                              const void *x, int fill);

/* y (N/t, out) = this rank's slice of the sum over all ranks of x (N, in) by the weight,
 * without bias. `partial` (N, out) is room. The sum's order is that of a ring. */
dls_status dls_product_scatter(const dls_axes *axes, dls_ctx *ctx,
                               const dls_row_product *p, void *y, void *partial,
                               const void *x);

/* What is enqueued on axes->stream after the first comes behind all of ctx so far; what
 * is enqueued on ctx after the second comes behind all of axes->stream so far. */
dls_status dls_axes_fork(const dls_axes *axes, dls_ctx *ctx);
dls_status dls_axes_join(const dls_axes *axes, dls_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/grouped.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Grouped products: rows in segments, each multiplied by the weight of its expert.
 *
 * DLS_GROUPED=cublas|tiles chooses: a cuBLAS call per segment (default), or one kernel of
 * our own for all segments. */
#ifndef DLS_KERNELS_GROUPED_H
#define DLS_KERNELS_GROUPED_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the groups */
/* A stretch of rows that go to one expert: when they come from several ranks, those of
 * one source. */
typedef struct dls_segment {
    int expert;                 /* 0 ... experts of this rank - 1 */
    int begin, count;           /* rows of the buffer; count may be 0 */
} dls_segment;

/* Rows in segments that do not overlap; several may have the same expert, and an expert
 * none. On the host, read during the call. Each expert's weight is (out, in). */
typedef struct dls_groups {
    const dls_segment *segment; /* [segments] */
    int segments, experts;
    int in, out;
} dls_groups;

/* declare the grouped products */
/* y (rows, out) := x (rows, in) weight^T in each segment; weight [experts] on the host
 * points to device matrices. Rows outside of all segments are neither read nor written.
 * Errors of all three: DLS_ERR_INPUT for a bad DLS_GROUPED. */
dls_status dls_grouped_forward(dls_ctx *ctx, const dls_groups *g, void *y, const void *x,
                               const void *const *weight);

/* dx (rows, in) := dy (rows, out) weight in each segment. */
dls_status dls_grouped_backward_input(dls_ctx *ctx, const dls_groups *g, void *dx,
                                      const void *dy, const void *const *weight);

/* dweight[e] (out, in) acc := keep[e] dweight[e] + dy^T x over all rows of expert e; keep
 * [experts] is 0 or 1. With 0 it is not read, and cleared if e has no rows. */
dls_status dls_grouped_backward_weight(dls_ctx *ctx, const dls_groups *g,
                                       void *const *dweight, const double *keep,
                                       const void *dy, const void *x);

#ifdef __cplusplus
}
#endif
#endif

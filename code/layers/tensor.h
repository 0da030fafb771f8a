/* code/layers/tensor.h: from chapters/06-tensor-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Tensor parallelism: products whose columns or rows are cut over ranks. */
#ifndef DLS_LAYERS_TENSOR_H
#define DLS_LAYERS_TENSOR_H
#include "layers/layer.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define a section */
/* A stretch of the rows or columns of a weight, `units` pieces of `width` each, none of
 * which may be cut: heads, or single columns with width 1. */
typedef struct dls_section { int units, width; } dls_section;

/* Cuts dimension `cut` of a parameter in sections, whose units add up to it, and returns
 * how many places of it this rank has. On one rank: all, and the parameter is whole. */
int dls_tensor_cut(const dls_build *b, dls_param *story, int cut,
                   const dls_section *section, int sections);

/* Which of n units this rank has. From t units on they are dealt out in bands that differ
 * by at most one; with fewer (t must be a multiple of n) several ranks have the same. */
dls_piece dls_tensor_units(const dls_sharding *s, int n);

/* declare the cut products */
/* A linear layer whose outputs are cut, in sections. (N, in) -> (N, this rank's part).
 * On one rank: dls_linear. In a model with sharding.sequence x is a slice of the rows,
 * and y has all of them. */
dls_layer *dls_column_linear(dls_build *b, const char *name, int in,
                             const dls_section *section, int sections, int bias,
                             double std);

/* A linear layer whose inputs are cut. (N, this rank's part of in) -> (N, out), or a
 * slice of its rows if the builder is `sliced`. The bias is added once, to the sum. */
dls_layer *dls_row_linear(dls_build *b, const char *name, dls_section in, int out,
                          int bias, double std);

/* declare gather and sum */
/* In front of a cut product stands "enter": gather on the way forward, sum on the way
 * back. Behind it stands "leave": sum on the way forward, gather on the way back. All
 * have `columns` columns and the type of the context; `sliced`: this rank has a slice of
 * the rows only, N / t of them. The stream is the context's. */

/* *whole = all rows of x (N, columns): x itself, or, if it is a slice (N / t, columns),
 * the slices of all ranks in the pass's temporary room. */
dls_status dls_tensor_gather(const dls_pass *p, int sliced, int columns,
                             const void **whole, const void *x);

/* Where a share (N, columns) of a sum is to be computed: in `sum` itself, or in the
 * temporary room, if the sum has a slice of the rows only. */
void *dls_tensor_share(const dls_pass *p, int sliced, void *sum);

/* sum = the ranks' shares added up (N, columns), or this rank's slice of it. */
dls_status dls_tensor_sum(const dls_pass *p, int sliced, int columns, void *sum,
                          void *share);

/* The group of the tensor axis; DLS_ERR_STATE: the model was not connected. */
dls_status dls_tensor_comm(const dls_pass *p, dls_comm **out);

/* DLS_ERR_INPUT: the rows of a micro-batch do not make t equal slices. */
dls_status dls_tensor_check_rows(int B, int T, int t);

/* Makes room for the two. */
void dls_tensor_room(dls_plan *plan, int sliced, int columns);
#ifdef __cplusplus
}
#endif
#endif

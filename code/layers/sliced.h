/* code/layers/sliced.h: from chapters/06-sequence-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Cut products between slices of rows, and their backward passes in one. Private to
 * layers/. */
#ifndef DLS_LAYERS_SLICED_H
#define DLS_LAYERS_SLICED_H
#include "layers/layer.h"
#ifdef __cplusplus
extern "C" {
#endif

/* declare the products of slices */
/* l: a column-parallel product. x, dx (N/t, in) slices, y, dy (N, this rank's out). */
dls_status dls_column_gathered(const dls_layer *l, dls_pass *p, void *y, const void *x);
dls_status dls_column_scattered(const dls_layer *l, dls_pass *p, void *dx,
                                const void *dy);

/* l: a row-parallel one. x, dx, pre (N, this rank's in), y, dy (N/t, out) slices. y is
 * without bias; dx is multiplied by gelu'(pre) unless that is NULL. Behind the second all
 * rows of dy are in the pass's temporary room. */
dls_status dls_row_scattered(const dls_layer *l, dls_pass *p, void *y, const void *x);
dls_status dls_row_gathered(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                            const void *pre);

/* I and W together, rows whole or sliced: gathers once what both need, and with
 * sharding.chunks puts the communication of the one beside the product of the other. */
dls_status dls_column_backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                               const void *x, void *y);
dls_status dls_row_backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                            const void *x, void *y);

/* Adds the gradients of weight and bias, all rows at hand; the bias of a row-parallel
 * product takes dy, the slice. In tensor.c. */
dls_status dls_column_weight(const dls_layer *l, dls_pass *p, const void *dy,
                             const void *whole_x);
dls_status dls_row_weight(const dls_layer *l, dls_pass *p, const void *dy,
                          const void *whole_dy, const void *x);

/* Room for the gathered rows of a product, and for shares beside them. */
void dls_column_room(const dls_layer *l, dls_plan *plan);

#ifdef __cplusplus
}
#endif
#endif

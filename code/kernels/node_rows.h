/* code/kernels/node_rows.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows on their way over nodes: which go on, and the sums on the way back. */
#ifndef DLS_KERNELS_NODE_ROWS_H
#define DLS_KERNELS_NODE_ROWS_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the kernels of nodes */
typedef struct dls_select {
    int rows, k;                // index (rows, k)
    int ranges, first, per;     // range r: experts first + r per ... + per - 1
    int width;                  // columns of place
} dls_select;

/* For each range r the rows of index that have a choice there, in order: list (copies),
 * from begin[r] on. place (rows, width) := where in the list each row stands, -1 behind
 * the last. list NULL: place (rows, k) says it for each choice, -1: outside. Device. */
dls_status dls_node_select(dls_ctx *ctx, const dls_select *s, const int *index,
                           const int *begin, int *list, int *place);

/* kept (rows, k) := index where place (rows, k) is at least 0, else -1. */
dls_status dls_node_keep(dls_ctx *ctx, int *kept, const int *index, const int *place,
                         int rows, int k);

/* copies (s->ranges) := rows of index with a choice in each range. Device. */
dls_status dls_node_tally(dls_ctx *ctx, const dls_select *s, const int *index, int *copies);

#ifdef __cplusplus
}
#endif
#endif

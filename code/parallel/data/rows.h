/* code/parallel/data/rows.h: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* A matrix whose last addition touches few rows: a tied embedding. All rows but those
 * that some rank touches are summed early.
 *
 *   after the head       copy = gradient; copy := sum; rows outside U := copy
 *   after the embedding  rows of U: gathered, summed, scattered
 *
 * Everything on the communication stream but the copy, which is the compute stream's. */
#ifndef DLS_PARALLEL_DATA_ROWS_H
#define DLS_PARALLEL_DATA_ROWS_H

#include "comm/comm.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare shared rows */
typedef struct dls_rows dls_rows;

/* grads (V, C) of the wire's type. Takes V * C elements and some small change. */
dls_status dls_rows_create(dls_rows **out, dls_comm *comm, dls_ctx *compute,
                           dls_ctx *wire, void *grads, int V, int C);
void dls_rows_free(dls_rows *r);

/* The bytes of that, and the scratch memory of its sums on the wire's stream. */
dls_status dls_rows_predict(dls_comm *comm, dls_dtype dtype, size_t V, size_t C,
                            size_t *buffers, size_t *scratch);

/* Collective, before the pass: the rows (n, host) that its last addition will touch on
 * this rank. DLS_ERR_INPUT: a row outside 0 .. V-1. */
dls_status dls_rows_touch(dls_rows *r, const int *rows, size_t n);

/* All additions but the last are on the compute stream. May be left out on all ranks,
 * when there are none: rows outside U are then taken to be final everywhere. */
dls_status dls_rows_partial(dls_rows *r);

/* The wire's stream has reached the last addition: complete the sum. */
dls_status dls_rows_sum(dls_rows *r);

/* The time of the last step's early part; its streams must have been synchronised. */
dls_status dls_rows_early(const dls_rows *r, double *seconds);
int dls_rows_count(const dls_rows *r); // |U| of this step

#ifdef __cplusplus
}
#endif
#endif

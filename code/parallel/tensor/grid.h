/* code/parallel/tensor/grid.h: from chapters/06-tensor-2d.md. Edit the chapter, or edit here and run "make untangle". */
/* Ranks in a square, or in several squares one above the other.
 *
 *   layer 0            layer 1            rank = (layer q + row) q + column
 *     0 1               4 5
 *     2 3               6 7               q 2, d 2
 *
 * A matrix on the grid is cut into q x q blocks; block (i, j) is with row i, column j. */
#ifndef DLS_PARALLEL_TENSOR_GRID_H
#define DLS_PARALLEL_TENSOR_GRID_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the grid */
typedef struct dls_grid {
    int q, d;                   // q x q ranks, d layers of them
    int row, column, layer;     // this rank's place
    dls_comm *in_row;           // my row's ranks, numbered by column; NULL: q is 1
    dls_comm *in_column;        // my column's ranks, numbered by row; NULL: q is 1
    dls_comm *in_depth;         // my place in all layers; NULL: d is 1
    cudaStream_t stream;        // communication
    cudaEvent_t ready[2], used[2];  // of two rooms, in turn
} dls_grid;

/* Collective over comm. DLS_ERR_INPUT: its size is not q q d. */
dls_status dls_grid_open(dls_grid *grid, dls_comm *comm, int q, int d);
void dls_grid_close(dls_grid *grid);    // after the streams are synchronised

/* Sums buf (n) over the layers, on `stream`. */
dls_status dls_grid_sum_depth(const dls_grid *grid, void *buf, size_t n, int dtype,
                              cudaStream_t stream);

/* cut a side */
/* Where part i of `parts` of n begins, and how large it is. */
static inline int dls_cut_at(int n, int parts, int i)
{
    return (int)((int64_t)n * i / parts);
}

static inline int dls_cut_size(int n, int parts, int i)
{
    return dls_cut_at(n, parts, i + 1) - dls_cut_at(n, parts, i);
}

#ifdef __cplusplus
}
#endif
#endif

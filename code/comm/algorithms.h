/* code/comm/algorithms.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Communication algorithms as pure functions from a step's number to what it does.
 * Private to comm/. Each rank has at most one peer that it sends to and one that it
 * receives from, for the whole operation. */
#ifndef DLS_COMM_ALGORITHMS_H
#define DLS_COMM_ALGORITHMS_H

#include <stddef.h>

/* define a step */
typedef struct dls_shape {
    int rank, world;
    int root;      // broadcast
    size_t count;  // elements
    size_t block;  // broadcast: elements per block
} dls_shape;

typedef struct dls_step {
    int sends, receives;         // 1: this step does
    size_t send_first, send_count;
    size_t recv_first, recv_count;
    int combine;                 // 1: reduce into the range; 0: overwrite it
    int finish;                  // 1: the range is complete afterwards (average divides)
} dls_step;

/* Fills *step and returns 1, or returns 0 if the operation has no step k. */
typedef int dls_algorithm(const dls_shape *shape, int k, dls_step *step);

dls_algorithm dls_ring_all_reduce, dls_chain_broadcast, dls_send_step, dls_recv_step;

/* Part i of `count` elements cut into n parts whose sizes differ by at most one. */
void dls_part(size_t count, int n, int i, size_t *first, size_t *size);

#endif

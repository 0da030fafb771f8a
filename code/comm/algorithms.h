/* code/comm/algorithms.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Communication algorithms as pure functions from a step's number to what it does.
 * Private to comm/. */
#ifndef DLS_COMM_ALGORITHMS_H
#define DLS_COMM_ALGORITHMS_H

#include <stddef.h>
#include <stdint.h>

/* define a step */
enum { DLS_COMM_RANKS = 64, DLS_COMM_COPIES = 2 * DLS_COMM_RANKS };

typedef enum dls_place { DLS_IN, DLS_OUT, DLS_SCRATCH, DLS_PLACES } dls_place;

typedef struct dls_shape {
    int rank, world, root;
    int per_node;          // ranks on a node, if they are the same number on all; else 0
    size_t count;          // elements of the vector, or of one rank's block
    size_t block;          // elements of a piece, where pieces are pipelined
    int varies;            // all-to-all-v: the sizes are amounts': in counts, in offsets,
    const size_t *amounts; //   out counts, out offsets, [world] each
} dls_shape;

typedef enum dls_how { DLS_STORE, DLS_OWN_FIRST, DLS_OWN_LAST } dls_how;

typedef struct dls_move {
    int peer;
    uint8_t place;           // dls_place of the range sent or written
    uint8_t how, own_place;  // receives: dls_how; place := own op arrived, or the reverse
    uint8_t finish;          // receives: the range is complete now (an average divides)
    size_t first, count, own_first;
} dls_move;

typedef struct dls_copy {
    uint8_t to, from; // dls_place
    size_t to_first, from_first, count;
} dls_copy;

typedef struct dls_step {
    int copies, sends, receives;
    dls_copy copy[DLS_COMM_COPIES];
    dls_move send[DLS_COMM_RANKS], receive[DLS_COMM_RANKS];
} dls_step;

/* declare the algorithms */
/* Fills *step and returns 1, or returns 0 if the operation has no step k. */
typedef int dls_steps(const dls_shape *shape, int k, dls_step *step);

dls_steps dls_ring_all_reduce, dls_ring_reduce_scatter, dls_ring_all_gather;
dls_steps dls_chain_broadcast, dls_chain_reduce;

dls_steps dls_direct_all_reduce, dls_direct_reduce_scatter, dls_direct_all_gather;
dls_steps dls_direct_gather, dls_direct_scatter, dls_direct_broadcast, dls_direct_reduce;
dls_steps dls_direct_all_to_all, dls_pairwise_all_to_all; // also with varying sizes
dls_steps dls_doubling_all_reduce, dls_halving_all_reduce, dls_halving_reduce_scatter;
dls_steps dls_bruck_all_gather, dls_bruck_all_to_all, dls_double_tree_all_reduce;
dls_steps dls_binomial_broadcast, dls_binomial_reduce, dls_binomial_gather;
dls_steps dls_binomial_scatter, dls_hierarchical_all_reduce;
int dls_hierarchical_fits(const dls_shape *shape);

/* Scratch memory that a rank needs, in elements. */
typedef size_t dls_scratch(const dls_shape *shape);
dls_scratch dls_ring_scratch, dls_doubling_scratch, dls_halving_scratch;
dls_scratch dls_bruck_gather_scratch, dls_bruck_exchange_scratch, dls_binomial_scratch;

/* Part i of `count` elements cut into n parts whose sizes differ by at most one. */
void dls_part(size_t count, int n, int i, size_t *first, size_t *size);

void dls_step_clear(dls_step *step);
void dls_step_copy(dls_step *step, dls_place to, size_t to_first, dls_place from,
                   size_t from_first, size_t count);
void dls_step_send(dls_step *step, int peer, dls_place place, size_t first, size_t count);
/* Adds a receive that stores, and returns it for changes. */
dls_move *dls_step_receive(dls_step *step, int peer, dls_place place, size_t first,
                           size_t count);
/* place[first, count) := own op arrived, with own in the same range of `own_place`. */
dls_move *dls_step_combine(dls_step *step, int peer, dls_place place, size_t first,
                           size_t count, dls_place own_place);

#endif

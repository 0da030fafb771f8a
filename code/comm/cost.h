/* code/comm/cost.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* What an algorithm costs: its steps, bytes and virtual time, found by asking all ranks
 * for their steps. Private to comm/ and to the command that prints costs. */
#ifndef DLS_COMM_COST_H
#define DLS_COMM_COST_H

#include "comm/collectives.h"
#include "comm/times.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the cost */
typedef struct dls_cost {
    double seconds; // from the common start to the end of the last rank
    uint64_t steps; // with messages, of the rank that has most
    uint64_t bytes; // sent by the rank that sends most
    uint64_t all_bytes; // by all ranks together
} dls_cost;

/* The cost for all ranks of shape (its rank is ignored), elements of `bytes` bytes, over
 * links (world, world). finish (world), or NULL: each rank's end. Not for all-to-all-v,
 * whose sizes one rank does not know. DLS_ERR_STATE: the ranks wait for each other, or a
 * message is never received. */
dls_status dls_cost_of(const dls_algorithm *algorithm, const dls_shape *shape,
                       const dls_link *links, size_t bytes, double *finish,
                       dls_cost *out);

/* Elements of a piece, where the algorithm cuts the vector into pieces. */
size_t dls_cost_block(const dls_algorithm *algorithm, const dls_shape *shape,
                      const dls_link *links, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif

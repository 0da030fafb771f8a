/* code/parallel/data/zero_lent.h: from chapters/04-data-parallelism-zero-lent.md. Edit the chapter, or edit here and run "make untangle". */
/* ZeRO whose whole values and gradients lie in memory that is lent to it, for as long as
 * somebody else's schedule says: made with dls_zero_options.lent, in stages 2 and 3.
 *
 *   values     gather .... arrive  F F F  leave           the memory goes to the next
 *   gradients                      open  B B B  scatter
 *
 * In place of dls_zero_begin_pass, its hooks and idle passes; the rest of a step is the
 * same. */
#ifndef DLS_PARALLEL_DATA_ZERO_LENT_H
#define DLS_PARALLEL_DATA_ZERO_LENT_H

#include "parallel/data/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a loan */
/* From dls_flat_buffer; `free` comes when its last user is done. */
typedef struct dls_loan {
    void *memory;
    cudaEvent_t free;
    int taken;
} dls_loan;

/* declare the loans */
/* The stage that is left: 0 where a copy is shared by a single rank, which then keeps all
 * of it and borrows nothing. */
int dls_zero_cuts(const dls_zero *zero);

/* Elements of all units when they are whole, padding included. */
size_t dls_zero_whole(const dls_zero *zero);

/* Stage 3. On the communication stream: all values into the loan (whole, model's type).
 * The compute stream waits for them at `arrive`; after `leave` there are none. */
dls_status dls_zero_gather(dls_zero *zero, dls_loan *loan);
dls_status dls_zero_arrive(dls_zero *zero);
dls_status dls_zero_leave(dls_zero *zero, dls_loan *loan);

/* Stages 2 and 3. Gradients, cleared, are made in the loan (whole, accumulator type)
 * until `scatter`, which adds their sums over the ranks to each rank's slices. */
dls_status dls_zero_open(dls_zero *zero, dls_loan *loan);
dls_status dls_zero_scatter(dls_zero *zero, dls_loan *loan);

#ifdef __cplusplus
}
#endif
#endif

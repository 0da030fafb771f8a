/* code/parallel/data/master.h: from chapters/04-data-parallelism-master.md. Edit the chapter, or edit here and run "make untangle". */
/* DataParallel: one process, several devices, one of them the master, which sends out
 * shares and parameters, and gathers losses and gradients. Every byte passes its port:
 *
 *     2 (n - 1) (alpha + S beta)   per step, for S bytes of parameters
 *
 * Replica 0 is the master's. The update is the caller's, on replica 0, as if it were
 * alone. */
#ifndef DLS_PARALLEL_DATA_MASTER_H
#define DLS_PARALLEL_DATA_MASTER_H

#include "model/transformer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the master */
typedef struct dls_master dls_master;

/* replicas (n): models of one configuration, replica i on a device and context of its
 * own. rows, T: the largest batch, of all devices together. They must outlive it.
 * DLS_ERR_INPUT: two replicas on one device, or models that differ. */
dls_status dls_master_create(dls_master **out, dls_transformer *const *replicas, int n,
                             int rows, int T);
void dls_master_destroy(dls_master *m); // waits; NULL is fine

/* Enqueues a step: tokens, targets (rows, T) on device 0. Afterwards replica 0 has the
 * gradient of loss_scale * (the sum of all losses), and losses (rows, T) are at
 * dls_master_losses, both on the master's stream. */
dls_status dls_master_step(dls_master *m, const int *tokens, const int *targets, int rows,
                           double loss_scale);
const void *dls_master_losses(const dls_master *m);

typedef struct dls_master_times { // virtual seconds of the last step
    double out;     // the links send shares and parameters
    double in;      // the links receive losses and gradients
    double step;    // from the first copy to the last addition
} dls_master_times;

/* The master's stream must have been synchronised since the step. */
dls_status dls_master_timing(const dls_master *m, dls_master_times *t);

#ifdef __cplusplus
}
#endif
#endif

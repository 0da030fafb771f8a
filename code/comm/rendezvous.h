/* code/comm/rendezvous.h: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* All ranks of a job come to one place and find out that they are all there. */
#ifndef DLS_COMM_RENDEZVOUS_H
#define DLS_COMM_RENDEZVOUS_H

#include "comm/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the store at url (rank 0 keeps it when it is tcp) and returns when all `world`
 * ranks have come, within `seconds`. DLS_ERR_COMM, on every rank: two ranks with one
 * number, ranks that disagree on the world size, ranks that do not come. */
dls_status dls_rendezvous_join(const char *url, int rank, int world, double seconds,
                               dls_store **out);

/* Returns when all have called it with the same name, a new one each time. It also
 * stands in the message of one that waits in vain. */
dls_status dls_rendezvous_barrier(dls_store *store, const char *name, int rank, int world,
                                  double seconds);

/* The last one to leave deletes what a file store leaves behind. Closes the store. */
void dls_rendezvous_leave(dls_store *store, int world);

#ifdef __cplusplus
}
#endif
#endif

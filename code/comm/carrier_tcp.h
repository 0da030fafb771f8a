/* code/comm/carrier_tcp.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Frames over sockets, one for each pair of ranks. Private to comm/. */
#ifndef DLS_COMM_CARRIER_TCP_H
#define DLS_COMM_CARRIER_TCP_H

#include "comm/carrier.h"
#include "comm/store.h"

/* Connects with all other ranks, which do the same, within `seconds`; the store tells
 * them the addresses. DLS_ERR_COMM names the rank that can't be reached. */
dls_status dls_carrier_tcp(dls_store *store, int rank, int world, double seconds,
                           dls_carrier **out);

#endif

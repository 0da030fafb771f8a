/* code/comm/transport_local.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The transport between processes that share memory. Private to comm/. */
#ifndef DLS_COMM_TRANSPORT_LOCAL_H
#define DLS_COMM_TRANSPORT_LOCAL_H

#include "comm/transport.h"

/* As rank `rank` of `world`, through the shared memory behind descriptor fd. */
dls_status dls_transport_local(int fd, int rank, int world, dls_transport **out);

dls_local *dls_transport_memory(dls_transport *t); // NULL: t is another transport

#endif

/* code/comm/join.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Entering the world by the transport that fits. Private to comm/. */
#ifndef DLS_COMM_JOIN_H
#define DLS_COMM_JOIN_H

#include "comm/identity.h"
#include "comm/transport.h"

/* The transport of this rank, by DLS_COMM or by what started it. */
dls_status dls_join(const dls_identity *who, dls_transport **out);

#endif

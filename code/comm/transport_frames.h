/* code/comm/transport_frames.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* A transport over any carrier of frames. Private to comm/. */
#ifndef DLS_COMM_TRANSPORT_FRAMES_H
#define DLS_COMM_TRANSPORT_FRAMES_H

#include "comm/carrier.h"
#include "comm/transport.h"

/* Owns the carrier from now on, whatever happens. */
dls_status dls_transport_frames(const char *name, dls_carrier *carrier,
                                dls_transport **out);

#endif

/* code/comm/carrier.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* What carries frames between ranks: sockets, or MPI. Self-contained, since the one for
 * MPI is a library of its own, loaded when it is wanted. Private to comm/. */
#ifndef DLS_COMM_CARRIER_H
#define DLS_COMM_CARRIER_H

#include <stddef.h>

enum { DLS_FRAME = 256 << 10 }; // largest, bytes

typedef void dls_deliver(void *to, int from, const void *frame, size_t bytes);

typedef struct dls_carrier dls_carrier;
struct dls_carrier {
    int rank, world;
    /* Takes a copy. 0; -1: the rank can't be reached any more. */
    int (*push)(dls_carrier *c, int to, const void *frame, size_t bytes);
    size_t (*backlog)(dls_carrier *c, int to); // bytes pushed and not sent
    /* Sends and receives what it can; waits up to `seconds` for a frame when there is
     * none. Returns how many came. */
    int (*poll)(dls_carrier *c, double seconds, dls_deliver *deliver, void *to);
    int (*lost)(dls_carrier *c, int rank);     // 1: the connection has ended
    void (*close)(dls_carrier *c);
};

#endif

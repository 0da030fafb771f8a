/* code/comm/transport.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* What the engine needs of whatever carries its messages.
 *
 * A message is a header and a payload, from one rank of the world to another within a
 * context. Messages of a context from one rank to another arrive in the order in which
 * they were first given to send(). Nothing here blocks but sleep(). All calls of a
 * process come from one thread at a time. Private to comm/. */
#ifndef DLS_COMM_TRANSPORT_H
#define DLS_COMM_TRANSPORT_H

#include "comm/comm.h"
#include "comm/local.h"
#include "comm/message.h"

/* define messages under way */
typedef struct dls_outgoing {
    int context, to;           // to: rank in the world
    int announced;             // the header is on its way
    dls_message header;        // header.bytes of payload follow it
    const unsigned char *from; // the payload, unchanged until the message is complete
    size_t moved;              // bytes that have left `from`; complete: header.bytes
    uint64_t note[2];          // the transport's own; 0 at first
} dls_outgoing;

typedef struct dls_incoming {
    int context, from;         // from: rank in the world
    int heard;                 // header is theirs
    dls_message header, expected; // expected: of a group's messages, for the engine
    unsigned char *into;
    const unsigned char *own;  // NULL: store; else into := own op arrived
    int own_last;              // 1: into := arrived op own
    int dtype;
    dls_reduce reduce;
    size_t element;            // bytes: only whole elements can be combined
    size_t moved;              // bytes that have come; complete: header.bytes
    uint64_t note[2];
} dls_incoming;

/* into (n) := a op b; into may be a or b. */
void dls_comm_combine(void *into, const void *a, const void *b, size_t n, int dtype,
                      dls_reduce op);

/* n bytes of the payload are at `from`: stores or combines them, and counts them. */
void dls_incoming_use(dls_incoming *m, const void *from, size_t n);

/* define a transport */
typedef struct dls_transport dls_transport;

typedef struct dls_transport_calls {
    const char *name;
    dls_status (*open)(dls_transport *t, int context);
    /* 1: something moved; 0: not now; -1: failed, see the status. */
    int (*send)(dls_transport *t, dls_outgoing *m);
    int (*hear)(dls_transport *t, dls_incoming *m); // 1: m->header has come
    int (*take)(dls_transport *t, dls_incoming *m); // of a message that was heard
    /* exchange pages between hosts */
    /* Shows page number `page` to all ranks of the world that look in this context. */
    void (*post)(dls_transport *t, int context, uint64_t page, const dls_local_board *board);
    /* Rank's page of this number; NULL: not posted yet. Good until it is two pages old. */
    const dls_local_board *(*look)(dls_transport *t, int context, int rank, uint64_t page);
    /* sleep and know fates */
    int (*quiet)(dls_transport *t);                 // see dls_local_quiet
    int (*sleep)(dls_transport *t, double seconds); // see dls_local_sleep
    int (*fate)(dls_transport *t, int rank);        // dls_fate
    int (*failed)(dls_transport *t);                // 1: somebody has
    dls_status (*check)(dls_transport *t, const char *doing); // see dls_local_check
    void (*fail)(dls_transport *t, const char *text);         // tells all that this rank did
    void (*leave)(dls_transport *t);                          // this rank is done
    void (*close)(dls_transport *t);
} dls_transport_calls;

struct dls_transport {
    const dls_transport_calls *calls;
    int rank, world;
};

#endif

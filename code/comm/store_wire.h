/* code/comm/store_wire.h: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* What a tcp store's client and server say to each other. Private to comm/.
 *
 *   request  | header | key | value | expected |       answer  | header | value or text |
 */
#ifndef DLS_COMM_STORE_WIRE_H
#define DLS_COMM_STORE_WIRE_H

#include "comm/store_private.h"

/* define the headers of the wire */
enum { DLS_STORE_MAGIC = 0x31534c44 }; // "DLS1"
enum { DLS_STORE_FINE, DLS_STORE_TIMED_OUT, DLS_STORE_REFUSED };

typedef struct dls_store_ask {
    uint32_t magic;
    uint8_t op, unused;
    uint16_t key;                        // bytes
    uint32_t bytes, expected;
    int64_t delta;
    uint32_t milliseconds, unused_too;   // to wait for the key
} dls_store_ask;

typedef struct dls_store_reply {
    uint32_t magic, status;
    int64_t number;
    uint32_t bytes, unused;
} dls_store_reply;

_Static_assert(sizeof(dls_store_ask) == 32 && sizeof(dls_store_reply) == 24,
               "no gaps: they travel as they are");

/* declare the server */
typedef struct dls_store_server dls_store_server;

/* Serves at host:port in a thread of its own; *chosen := the port. */
dls_status dls_store_serve(const char *url, const char *host, const char *port,
                           int *chosen, dls_store_server **out);
void dls_store_stop(dls_store_server *server);
#endif

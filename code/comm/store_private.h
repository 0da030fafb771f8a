/* code/comm/store_private.h: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The table behind a store, requests to it, and the two ways to get them there.
 * Private to comm/. */
#ifndef DLS_COMM_STORE_PRIVATE_H
#define DLS_COMM_STORE_PRIVATE_H

#include "comm/store.h"

/* define a request */
typedef enum dls_store_op {
    DLS_STORE_SET = 1, DLS_STORE_GET, DLS_STORE_WAIT, DLS_STORE_ADD, DLS_STORE_CHECK,
    DLS_STORE_DELETE, DLS_STORE_COMPARE, DLS_STORE_OPS
} dls_store_op;

typedef struct dls_store_request {
    int op;
    char key[DLS_STORE_KEY + 1];
    const void *value, *expected; // expected: of DLS_STORE_COMPARE
    size_t bytes, expected_bytes;
    int64_t delta;
} dls_store_request;

typedef struct dls_store_answer {
    int ready;         // 0: the key is not there yet, ask again
    int changed;       // the table is different now
    int64_t number;    // add: the sum; check, delete: 1 if it is or was there
    const void *value; // get, compare: in the table, until the next request
    size_t bytes;
} dls_store_answer;

/* declare the table of keys */
typedef struct dls_store_table dls_store_table;

dls_store_table *dls_store_table_create(void); // NULL: no memory
void dls_store_table_destroy(dls_store_table *table);

/* DLS_ERR_INPUT: an impossible request (a full table, a value that is no number). */
dls_status dls_store_apply(dls_store_table *table, const dls_store_request *request,
                           dls_store_answer *answer);

/* define a store */
struct dls_store {
    char url[300];
    int keeps; // 1: the table ends with this process
    /* Brings the request to the table and waits up to `seconds` for an answer that is
     * ready; the answer's value lives until the next request. */
    dls_status (*ask)(dls_store *store, const dls_store_request *request, double seconds,
                      dls_store_answer *answer);
    void (*close)(dls_store *store);
};

double dls_store_clock(void); // s, monotonic

/* A TCP connection to an address, non-blocking; -1 with errno, ETIMEDOUT at `until`. */
struct addrinfo;
int dls_store_connect(const struct addrinfo *a, double until);

/* Parsed parts of a URL. */
dls_status dls_store_tcp_open(const char *url, const char *host, const char *port,
                              int serve, double seconds, dls_store **out);
dls_status dls_store_file_open(const char *url, const char *path, dls_store **out);
#endif

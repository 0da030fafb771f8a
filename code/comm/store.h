/* code/comm/store.h: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* A table of small values that all ranks of a job can reach, before they can reach each
 * other. tcp://HOST:PORT: a thread of rank 0 keeps it. file:///PATH: a file keeps it.
 * A key has 1 to DLS_STORE_KEY bytes, a value up to DLS_STORE_VALUE. */
#ifndef DLS_COMM_STORE_H
#define DLS_COMM_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DLS_STORE_KEY = 250, DLS_STORE_VALUE = 1 << 20, DLS_STORE_KEYS = 1 << 16 };

typedef struct dls_store dls_store;

/* declare the store */
/* serve: 1 in the one process that keeps a tcp store (rank 0). The others try for
 * `seconds` to reach it. DLS_ERR_INPUT: the URL; DLS_ERR_COMM: port in use, nobody
 * there. */
dls_status dls_store_open(const char *url, int serve, double seconds, dls_store **out);
void dls_store_close(dls_store *store); // NULL is fine; the server's end is everybody's

/* As opened, with the port that was chosen for :0. */
const char *dls_store_url(const dls_store *store);

dls_status dls_store_set(dls_store *store, const char *key, const void *value,
                         size_t bytes);

/* Waits up to `seconds` for the key. *bytes := the value's size, which must fit `room`.
 * DLS_ERR_COMM: it did not come, or the store is gone. */
dls_status dls_store_get(dls_store *store, const char *key, void *value, size_t room,
                         size_t *bytes, double seconds);
dls_status dls_store_wait(dls_store *store, const char *key, double seconds);

/* *now := the key's number (0 when missing) + delta. Numbers are kept as decimal text. */
dls_status dls_store_add(dls_store *store, const char *key, int64_t delta, int64_t *now);

dls_status dls_store_check(dls_store *store, const char *key, int *there);
dls_status dls_store_delete(dls_store *store, const char *key, int *was_there);

/* Sets key to the text `wanted` if it holds the text `expected` ("": missing or empty).
 * current (room) := what it holds afterwards, as text. */
dls_status dls_store_compare_set(dls_store *store, const char *key, const char *expected,
                                 const char *wanted, char *current, size_t room);

#ifdef __cplusplus
}
#endif
#endif

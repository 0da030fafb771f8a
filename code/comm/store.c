/* code/comm/store.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The calls of a store: arguments checked, made into a request, sent to the table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/store_private.h"

enum { ANSWER_SECONDS = 2 }; // for requests that never wait for a key

/* open a store by its url */
double dls_store_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static dls_status open_tcp(const char *url, int serve, double seconds, dls_store **out)
{
    char host[128], *end;
    const char *colon = strrchr(url, ':'), *from = url + strlen("tcp://");
    long port = colon > from ? strtol(colon + 1, &end, 10) : -1;
    size_t n = colon > from ? (size_t)(colon - from) : 0;
    int bracket = n > 2 && from[0] == '[' && from[n - 1] == ']'; // [::1]:29500
    if (n == 0 || n >= sizeof host || port < 0 || port > 65535 || *end ||
        end == colon + 1)
        return DLS_FAIL(DLS_ERR_INPUT, "%.200s: expected tcp://HOST:PORT", url);
    snprintf(host, sizeof host, "%.*s", (int)n - 2 * bracket, from + bracket);
    return dls_store_tcp_open(url, host, colon + 1, serve, seconds, out);
}

dls_status dls_store_open(const char *url, int serve, double seconds, dls_store **out)
{
    *out = NULL;
    if (strncmp(url, "tcp://", 6) == 0)
        return open_tcp(url, serve, seconds, out);
    if (strncmp(url, "file:///", 8) == 0)
        return dls_store_file_open(url, url + 7, out);
    return DLS_FAIL(DLS_ERR_INPUT, "'%.200s' is no place to meet: expected "
                    "tcp://HOST:PORT or file:///PATH", url);
}

void dls_store_close(dls_store *store)
{
    if (store)
        store->close(store);
}

const char *dls_store_url(const dls_store *store) { return store->url; }

/* check and send a request */
static dls_status ask(dls_store *store, dls_store_request *r, const char *key,
                      double seconds, dls_store_answer *answer)
{
    size_t n = strlen(key);
    if (n == 0 || n > DLS_STORE_KEY)
        return DLS_FAIL(DLS_ERR_INPUT, "a key of %zu bytes: expected 1 to %d", n,
                        DLS_STORE_KEY);
    if (r->bytes > DLS_STORE_VALUE || r->expected_bytes > DLS_STORE_VALUE)
        return DLS_FAIL(DLS_ERR_INPUT, "a value of %zu bytes for key '%s': expected at "
                        "most %d", r->bytes, key, DLS_STORE_VALUE);
    snprintf(r->key, sizeof r->key, "%s", key);
    return store->ask(store, r, seconds, answer);
}

/* set get and wait */
dls_status dls_store_set(dls_store *store, const char *key, const void *value,
                         size_t bytes)
{
    dls_store_request r = {.op = DLS_STORE_SET, .value = value, .bytes = bytes};
    dls_store_answer a;
    return ask(store, &r, key, ANSWER_SECONDS, &a);
}

dls_status dls_store_get(dls_store *store, const char *key, void *value, size_t room,
                         size_t *bytes, double seconds)
{
    dls_store_request r = {.op = DLS_STORE_GET};
    dls_store_answer a;
    DLS_TRY(ask(store, &r, key, seconds, &a));
    if (a.bytes > room)
        return DLS_FAIL(DLS_ERR_INPUT, "the value of '%s' has %zu bytes, the buffer %zu",
                        key, a.bytes, room);
    if (a.bytes)
        memcpy(value, a.value, a.bytes);
    *bytes = a.bytes;
    return DLS_OK;
}

dls_status dls_store_wait(dls_store *store, const char *key, double seconds)
{
    dls_store_request r = {.op = DLS_STORE_WAIT};
    dls_store_answer a;
    return ask(store, &r, key, seconds, &a);
}

/* count and claim */
/* Requests whose answer is a number. */
static dls_status number(dls_store *store, int op, const char *key, int64_t delta,
                         int64_t *out)
{
    dls_store_request r = {.op = op, .delta = delta};
    dls_store_answer a;
    DLS_TRY(ask(store, &r, key, ANSWER_SECONDS, &a));
    *out = a.number;
    return DLS_OK;
}

dls_status dls_store_add(dls_store *store, const char *key, int64_t delta, int64_t *now)
{
    return number(store, DLS_STORE_ADD, key, delta, now);
}

dls_status dls_store_check(dls_store *store, const char *key, int *there)
{
    int64_t n = 0;
    DLS_TRY(number(store, DLS_STORE_CHECK, key, 0, &n));
    *there = (int)n;
    return DLS_OK;
}

dls_status dls_store_delete(dls_store *store, const char *key, int *was_there)
{
    int64_t n = 0;
    DLS_TRY(number(store, DLS_STORE_DELETE, key, 0, &n));
    *was_there = (int)n;
    return DLS_OK;
}

dls_status dls_store_compare_set(dls_store *store, const char *key, const char *expected,
                                 const char *wanted, char *current, size_t room)
{
    dls_store_request r = {.op = DLS_STORE_COMPARE, .value = wanted,
                           .bytes = strlen(wanted), .expected = expected,
                           .expected_bytes = strlen(expected)};
    dls_store_answer a;
    DLS_TRY(ask(store, &r, key, ANSWER_SECONDS, &a));
    snprintf(current, room, "%.*s", (int)a.bytes, a.bytes ? (const char *)a.value : "");
    return DLS_OK;
}

/* code/comm/store_table.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The table of a store: chained hashing, values copied in. Not thread-safe. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/store_private.h"

/* define the table */
enum { CHAINS = 4096 };

typedef struct entry {
    struct entry *next;
    char key[DLS_STORE_KEY + 1];
    size_t bytes;
    char *value; // of its own allocation
} entry;

struct dls_store_table {
    entry *chain[CHAINS];
    int keys;
};

dls_store_table *dls_store_table_create(void)
{
    return calloc(1, sizeof(dls_store_table));
}

/* find the link to a key */
static entry **find(dls_store_table *table, const char *key)
{
    uint32_t hash = 2166136261u; // FNV-1a
    for (const char *c = key; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    entry **link = &table->chain[hash % CHAINS];
    while (*link && strcmp((*link)->key, key) != 0)
        link = &(*link)->next;
    return link;
}

/* put and remove an entry */
static dls_status put(dls_store_table *table, entry **link, const char *key,
                      const void *value, size_t bytes)
{
    if (!*link && table->keys >= DLS_STORE_KEYS)
        return DLS_FAIL(DLS_ERR_INPUT, "the store is full: %d keys", DLS_STORE_KEYS);
    char *copy = malloc(bytes + 1);
    entry *e = *link ? *link : calloc(1, sizeof *e);
    if (!copy || !e) {
        free(copy);
        return DLS_FAIL(DLS_ERR_MEMORY, "the store: no memory for %zu bytes", bytes);
    }
    if (bytes)
        memcpy(copy, value, bytes);
    copy[bytes] = 0;
    table->keys += !*link;
    snprintf(e->key, sizeof e->key, "%s", key);
    free(e->value);
    e->value = copy;
    e->bytes = bytes;
    *link = e;
    return DLS_OK;
}

static void remove_entry(dls_store_table *table, entry **link)
{
    entry *e = *link;
    *link = e->next;
    free(e->value);
    free(e);
    table->keys--;
}

void dls_store_table_destroy(dls_store_table *table)
{
    for (int i = 0; table && i < CHAINS; i++)
        while (table->chain[i])
            remove_entry(table, &table->chain[i]);
    free(table);
}

/* add to a number */
static dls_status add(dls_store_table *table, entry **link, const dls_store_request *r,
                      int64_t *sum)
{
    const char *text = *link ? (*link)->value : "0";
    char digits[32], *end;
    errno = 0;
    intmax_t old = strtoimax(text, &end, 10);
    if (*end || end == text || errno || strlen(text) != (*link ? (*link)->bytes : 1))
        return DLS_FAIL(DLS_ERR_INPUT, "the store's key '%s' holds '%.40s', not a number "
                        "to add to", r->key, text);
    if (__builtin_add_overflow((int64_t)old, r->delta, sum))
        return DLS_FAIL(DLS_ERR_INPUT, "the store's key '%s': %s plus %" PRId64
                        " is too large", r->key, text, r->delta);
    int n = snprintf(digits, sizeof digits, "%" PRId64, *sum);
    return put(table, link, r->key, digits, (size_t)n);
}

/* compare and set */
static dls_status compare_set(dls_store_table *table, entry **link,
                              const dls_store_request *r, int *changed)
{
    size_t bytes = *link ? (*link)->bytes : 0;
    *changed = bytes == r->expected_bytes &&
               (bytes == 0 || memcmp((*link)->value, r->expected, bytes) == 0);
    return *changed ? put(table, link, r->key, r->value, r->bytes) : DLS_OK;
}

/* apply a request */
static void answer_value(dls_store_answer *answer, const entry *e)
{
    answer->value = e ? e->value : NULL;
    answer->bytes = e ? e->bytes : 0;
}

dls_status dls_store_apply(dls_store_table *table, const dls_store_request *r,
                           dls_store_answer *a)
{
    entry **link = find(table, r->key);
    dls_status status = DLS_OK;
    *a = (dls_store_answer){.ready = 1, .number = *link != NULL};
    switch (r->op) {
    case DLS_STORE_SET:
        status = put(table, link, r->key, r->value, r->bytes);
        a->changed = 1;
        break;
    case DLS_STORE_GET:
    case DLS_STORE_WAIT:
        a->ready = *link != NULL;
        if (r->op == DLS_STORE_GET)
            answer_value(a, *link);
        break;
    /* apply the requests that decide */
    case DLS_STORE_ADD:
        status = add(table, link, r, &a->number);
        a->changed = 1;
        break;
    case DLS_STORE_DELETE:
        if ((a->changed = *link != NULL))
            remove_entry(table, link);
        break;
    case DLS_STORE_COMPARE:
        status = compare_set(table, link, r, &a->changed);
        answer_value(a, *link);
        break;
    default: // check: the number says it
        break;
    }
    return status;
}

/* code/comm/rendezvous.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The rendezvous: claims, a count, and reports that reach everybody. */
#include "comm/rendezvous.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/store_private.h"

/* tell everybody what went wrong */
enum { TEXT = 500 };

/* Records the message for the others; returns status. */
static dls_status tell(dls_store *store, dls_status status)
{
    char text[TEXT], current[TEXT];
    snprintf(text, sizeof text, "%s", dls_status_message());
    if (dls_store_compare_set(store, "failure", "", text, current, TEXT) != DLS_OK)
        return DLS_FAIL(status, "%s", text); // the store is gone as well: no matter
    return DLS_FAIL(status, "%s", current);  // the first report counts
}

static dls_status hear(dls_store *store)
{
    char text[TEXT];
    size_t bytes;
    int there;
    DLS_TRY(dls_store_check(store, "failure", &there));
    if (!there)
        return DLS_OK;
    DLS_TRY(dls_store_get(store, "failure", text, sizeof text, &bytes, 1));
    return DLS_FAIL(DLS_ERR_COMM, "%.*s", (int)bytes, text);
}

/* claim a rank */
static dls_status claim(dls_store *store, int rank, int world)
{
    char key[32], mine[TEXT], theirs[TEXT], host[128] = "?";
    gethostname(host, sizeof host - 1);
    snprintf(mine, sizeof mine, "%d", world);
    DLS_TRY(dls_store_compare_set(store, "world", "", mine, theirs, TEXT));
    if (strcmp(mine, theirs) != 0)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d was started for a world of %d ranks, "
                        "others at %s for %s; give all the same world size", rank, world,
                        dls_store_url(store), theirs);
    snprintf(key, sizeof key, "rank/%d", rank);
    snprintf(mine, sizeof mine, "process %d on host %s", (int)getpid(), host);
    DLS_TRY(dls_store_compare_set(store, key, "", mine, theirs, TEXT));
    if (strcmp(mine, theirs) != 0)
        return DLS_FAIL(DLS_ERR_COMM, "two processes are rank %d of %d at %s: %s, and "
                        "%s%s", rank, world, dls_store_url(store), theirs, mine,
                        strncmp(dls_store_url(store), "file:", 5) == 0
                            ? " (or the file is left from an earlier job: delete it)"
                            : "");
    return DLS_OK;
}

/* name those who are missing */
static dls_status name_missing(dls_store *store, const char *prefix, int world,
                               double seconds, const char *what)
{
    char list[128] = "", key[80];
    int missing = 0;
    for (int r = 0; r < world; r++) {
        int there = 0;
        snprintf(key, sizeof key, "%s/%d", prefix, r);
        DLS_TRY(dls_store_check(store, key, &there));
        size_t n = strlen(list);
        if (!there && ++missing <= 8)
            snprintf(list + n, sizeof list - n, "%s%d", missing == 1 ? "" : ", ", r);
    }
    return DLS_FAIL(DLS_ERR_COMM, "%s at %s: after %g s %d of %d ranks had not come: "
                    "%s%s", what, dls_store_url(store), seconds, missing, world, list,
                    missing > 8 ? ", ..." : "");
}

/* wait for everybody */
static dls_status wait_for_all(dls_store *store, const char *prefix, int world,
                               double seconds, const char *what)
{
    char here[80], all[80];
    int64_t count;
    int there = 0;
    double until = dls_store_clock() + seconds;
    snprintf(here, sizeof here, "%s/here", prefix);
    snprintf(all, sizeof all, "%s/all", prefix);
    DLS_TRY(dls_store_add(store, here, 1, &count));
    if (count == world)
        DLS_TRY(dls_store_set(store, all, "", 0));
    while (!there) {
        double left = until - dls_store_clock();
        /* ends early when the key comes; why it ended otherwise is asked next */
        dls_store_wait(store, all, left < 0.2 ? (left > 0 ? left : 0) : 0.2);
        DLS_TRY(dls_store_check(store, all, &there));
        if (!there)
            DLS_TRY(hear(store));
        if (!there && left <= 0)
            return tell(store, name_missing(store, prefix, world, seconds, what));
    }
    return DLS_OK;
}

dls_status dls_rendezvous_barrier(dls_store *store, const char *name, int rank, int world,
                                  double seconds)
{
    char key[80];
    snprintf(key, sizeof key, "%.40s/%d", name, rank);
    DLS_TRY(dls_store_set(store, key, "", 0));
    return wait_for_all(store, name, world, seconds, name);
}

/* join and leave */
dls_status dls_rendezvous_join(const char *url, int rank, int world, double seconds,
                               dls_store **out)
{
    dls_store *store;
    dls_status status = DLS_OK;
    DLS_TRY(dls_store_open(url, rank == 0, seconds, &store));
    status = claim(store, rank, world);
    if (status != DLS_OK)
        tell(store, status);
    else
        status = wait_for_all(store, "rank", world, seconds, "rendezvous");
    if (status == DLS_OK) {
        *out = store;
        return DLS_OK;
    }
    if (store->keeps)
        usleep(300000); // the others still have to read why
    dls_store_close(store);
    return status;
}

void dls_rendezvous_leave(dls_store *store, int world)
{
    const char *url = store ? dls_store_url(store) : "";
    int64_t left = 0;
    if (!store)
        return;
    if (dls_store_add(store, "left", 1, &left) == DLS_OK && left == world) {
        dls_store_set(store, "left/all", "", 0);
        if (strncmp(url, "file://", 7) == 0)
            unlink(url + 7);
    } else if (store->keeps) {
        dls_store_wait(store, "left/all", 1);
    }
    dls_store_close(store);
}

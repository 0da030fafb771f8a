/* tests/comm/test_rendezvous.c: from chapters/04-data-parallelism-rendezvous-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Ranks that meet, and the mistakes that keep them from it. */
#include "comm/rendezvous.h"

#include "outcome.h"

/* meet at a place */
typedef struct meeting {
    char url[300];
    int world, wrong_world; // of rank 1, or 0
    int absent, twice;      // a rank that does not come; that says it is rank 1; or -1
    double seconds;
} meeting;

static dls_status meet(int rank, void *arg)
{
    const meeting *m = arg;
    dls_store *s;
    int world = rank == 1 && m->wrong_world ? m->wrong_world : m->world;
    if (rank == m->absent)
        return DLS_OK;
    if (rank == m->twice)
        rank = 1; // not 0, which keeps the store
    DLS_TRY(dls_rendezvous_join(m->url, rank, world, m->seconds, &s));
    DLS_TRY(dls_rendezvous_barrier(s, "ready", rank, world, m->seconds));
    dls_rendezvous_leave(s, world);
    return DLS_OK;
}

static void place(meeting *m, int in_a_file)
{
    if (in_a_file) {
        snprintf(m->url, sizeof m->url, "file:///tmp/dls-meeting-%d", (int)getpid());
        unlink(m->url + 7);
        return;
    }
    dls_store *s;
    expect_ok(dls_store_open("tcp://127.0.0.1:0", 1, 5, &s));
    snprintf(m->url, sizeof m->url, "%s", dls_store_url(s));
    dls_store_close(s);
}

/* test that all meet */
Test(comm, rendezvous_of_nine_and_of_one)
{
    for (int file = 0; file < 2; file++)
        for (int n = 1; n <= 9; n += 8) {
            meeting m = {.world = n, .absent = -1, .twice = -1, .seconds = 20};
            place(&m, file);
            const outcome *o = outcomes_of(n, meet, &m);
            for (int r = 0; r < n; r++)
                cr_assert_eq(o[r].status, DLS_OK, "rank %d: %s", r, o[r].message);
            cr_assert_neq(access(file ? m.url + 7 : "/no", F_OK), 0,
                          "the last one to leave left %s behind", m.url);
        }
}

/* test mistakes at a meeting */
/* Every rank but `except` ends with these words, within 30 s. */
static void expect_all(meeting *m, int n, int except, const char *one, const char *two)
{
    for (int file = 0; file < 2; file++) {
        place(m, file);
        const outcome *o = outcomes_of(n, meet, m);
        for (int r = 0; r < n; r++) {
            if (r == except)
                continue;
            cr_assert_eq(o[r].status, DLS_ERR_COMM, "rank %d: %s", r, o[r].message);
            EXPECT_WORDS(o[r].message, one, two);
            cr_assert_lt(o[r].seconds, 30.0);
        }
        unlink(m->url + 7);
    }
}

Test(comm, rendezvous_names_the_ranks_that_do_not_come)
{
    meeting m = {.world = 4, .absent = 2, .twice = -1, .seconds = 0.4};
    expect_all(&m, 4, 2, "1 of 4 ranks had not come: 2", "rendezvous at ");
}

Test(comm, rendezvous_reports_a_world_size_that_differs)
{
    meeting m = {.world = 3, .wrong_world = 4, .absent = -1, .twice = -1, .seconds = 20};
    expect_all(&m, 3, -1, "was started for a world of ", "give all the same world size");
}

Test(comm, rendezvous_reports_two_ranks_with_one_number)
{
    meeting m = {.world = 4, .absent = -1, .twice = 3, .seconds = 20};
    expect_all(&m, 4, -1, "two processes are rank 1 of 4", "process ");
}

Test(comm, rendezvous_reports_a_port_in_use)
{
    meeting m = {.world = 1, .absent = -1, .twice = -1, .seconds = 5};
    dls_store *other;
    expect_ok(dls_store_open("tcp://127.0.0.1:0", 1, 5, &other));
    snprintf(m.url, sizeof m.url, "%s", dls_store_url(other));
    const outcome *o = outcomes_of(1, meet, &m);
    cr_assert_eq(o[0].status, DLS_ERR_COMM);
    EXPECT_WORDS(o[0].message, m.url, "is in use on this host", "choose another port");
    dls_store_close(other);
}

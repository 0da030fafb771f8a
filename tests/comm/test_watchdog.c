/* tests/comm/test_watchdog.c: from chapters/04-data-parallelism-faults-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Ranks that stop, spin, skip and disagree: the watchdog's words, and the recorder's. */
#include "failure.h"

#include <signal.h>

#include "comm/flight.h"
#include "comm/store.h"

/* let a rank stand still */
enum { BEFORE_THE_CALL = 0, AFTER_THE_CALL = 1, IN_A_BARRIER = 2, SPINS = 4 };

static void stand_still(int how)
{
    static volatile unsigned turns;
    if (!(how & SPINS))
        raise(SIGSTOP);
    for (;;)
        turns++;
}

static dls_status stand_still_somewhere(int rank, void *arg)
{
    int how = *(int *)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    for (int i = 0; i < 5; i++)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    if (rank == 2 && !(how & AFTER_THE_CALL))
        stand_still(how);
    if (how & IN_A_BARRIER)
        return dls_comm_barrier(comm);
    DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_MAX, 0));
    if (rank == 2)
        stand_still(how);
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

/* test ranks that stand still */
Test(comm, the_watchdog_names_the_rank_and_its_last_call)
{
    const char *missing[] = {
        "rank 2 has not called all-reduce of 100 f32 (max) at chapters", "(collective 5",
        "in which ranks 0, 1 and 3 wait", "its last call",
        "all-reduce of 100 f32 (sum)", "(collective 4", "nothing has moved for", NULL};
    const char *called[] = {
        "rank 2 has not begun all-reduce of 100 f32 (max) at chapters",
        "in which ranks 0, 1 and 3 wait", NULL};
    const char *barrier[] = {"rank 2 has not called barrier at chapters", "(host call 0)",
        "in which ranks 0, 1 and 3 wait", "all-reduce of 100 f32 (sum)", NULL};
    const char *const *words[] = {missing, called, barrier};
    const int cases[] = {BEFORE_THE_CALL, AFTER_THE_CALL, IN_A_BARRIER};
    setenv("DLS_WATCHDOG", "0.4", 1);
    for (int i = 0; i < 3; i++)
        for (int spins = 0; spins < (i ? 1 : 2); spins++) {
            const char *process = spins ? "process runs, and has not looked at its device"
                                        : "its process is stopped";
            int how = cases[i] | (spins ? SPINS : 0);
            expect_failure(4, stand_still_somewhere, &how, words[i]);
            cr_assert(strstr(dls_status_message(), process), "%s",
                      dls_status_message());
        }
}

/* let roots and algorithms differ */
static dls_status broadcast_from_two_roots(int rank, void *arg)
{
    dls_comm *comm;
    float *buf;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buf, 4096));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 3, DLS_F32, DLS_SUM, 0));
    DLS_TRY(dls_comm_broadcast(comm, buf, 9, DLS_F32, 1 - rank, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(comm, a_mismatch_without_messages_is_reported_with_both_sites)
{
    const char *words[] = {
        "found a mismatch: rank 1 calls broadcast of 9 f32 root rank 0 at chapters/04",
        "(collective 1", "but rank 0 calls broadcast of 9 f32 root rank 1 at chapters/04",
        NULL};
    expect_failure(2, broadcast_from_two_roots, NULL, words);
}

static dls_status reduce_in_two_ways(int rank, void *arg)
{
    dls_comm *comm;
    float *buf;
    (void)arg;
    setenv("DLS_ALGORITHM", rank == 2 ? "all_reduce:ring" : "all_reduce:tree", 1);
    DLS_TRY(test_start(&comm, &buf));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(comm, different_algorithms_are_reported_with_both_sites)
{
    const char *words[] = {"all-reduce of 100 f32 (sum) at chapters/04", "(collective 0",
                           "rank 2", "ring", "tree", NULL};
    for (int n = 3; n <= 5; n++)
        expect_failure(n, reduce_in_two_ways, NULL, words);
}

/* test records without a launcher */
static char flight_path[] = "/tmp/dls-flights-XXXXXX";

static dls_status disagree_alone(int rank, void *arg)
{
    dls_comm *comm;
    float *buf;
    (void)arg;
    unsetenv("DLS_RECORDER_FD");
    setenv("DLS_FLIGHT", flight_path, 1);
    DLS_TRY(test_start(&comm, &buf));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 7, DLS_F32, DLS_SUM, 0));
    DLS_TRY(dls_comm_all_reduce(comm, buf, rank == 1 ? 8 : 9, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(comm, ranks_without_a_launcher_write_their_own_records)
{
    const char *words[] = {"rank 1 calls all-reduce of 8 f32", NULL};
    dls_flight f = {0};
    dls_finding found;
    char path[64];
    int fd = mkstemp(flight_path);
    cr_assert(fd >= 0);
    expect_failure(3, disagree_alone, NULL, words);
    for (int r = 0; r < 3; r++) {
        snprintf(path, sizeof path, "%s.%d", flight_path, r);
        cr_assert_eq(dls_flight_read(path, &f), DLS_OK, "%s", dls_status_message());
        unlink(path);
    }
    dls_flight_find(&f, &found);
    cr_assert(found.kind == DLS_FINDING_MISMATCH && found.rank == 1, "%s", found.text);
    cr_assert_eq(found.record.number, 1);
    dls_flight_free(&f);
    close(fd);
    unlink(flight_path);
}

/* lose the store of a job */
static int survivors[2], port[2];

static dls_status lose_the_store(int rank, void *arg)
{
    dls_store *store;
    char url[64] = "tcp://127.0.0.1:0";
    (void)arg;
    if (rank == 0) {
        DLS_TRY(dls_store_open(url, 1, 5, &store));
        snprintf(url, sizeof url, "%s", dls_store_url(store));
        for (int r = 1; r < 3; r++)
            EXPECT(write(port[1], url, sizeof url) > 0, "pipe");
        usleep(200000);
        raise(SIGKILL);
    }
    EXPECT(read(port[0], url, sizeof url) > 0, "pipe");
    DLS_TRY(dls_store_open(url, 0, 5, &store));
    dls_status status = dls_store_wait(store, "what nobody sets", 60);
    if (strstr(dls_status_message(), "is gone: rank 0"))
        EXPECT(write(survivors[1], "x", 1) == 1, "pipe");
    return status;
}

Test(comm, a_job_whose_store_vanishes_ends_and_says_so)
{
    const char *words[] = {"rank 0", NULL}; // a survivor or the launcher is first
    char buffer[8];
    cr_assert(pipe(survivors) == 0 && pipe(port) == 0);
    expect_failure(3, lose_the_store, NULL, words);
    close(survivors[1]);
    cr_assert_eq(read(survivors[0], buffer, sizeof buffer), 2, "both survivors noticed");
}

/* test slow ranks */
static dls_status be_slow(int rank, void *arg)
{
    dls_comm *comm;
    float *buf;
    (void)arg;
    DLS_TRY(test_start(&comm, &buf));
    usleep(1200000);
    for (int i = 0; i < 8; i++) {
        usleep(rank == i % 3 ? 200000 : 0);
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_SUM, 0));
        DLS_CUDA(cudaDeviceSynchronize());
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, the_watchdog_waits_for_slow_ranks)
{
    setenv("DLS_WATCHDOG", "2", 1);
    expect_ranks(3, be_slow, NULL);
}

/* test wrong limits */
static dls_status do_nothing(int rank, void *arg)
{
    (void)rank, (void)arg;
    return DLS_OK;
}

Test(comm, wrong_limits_and_faults_are_refused_in_one_line)
{
    const char *bad[] = {"soon", "-1", "nan", "inf", "1s"};
    for (int i = 0; i < 5; i++) {
        setenv("DLS_WATCHDOG", bad[i], 1);
        cr_assert_eq(dls_run_ranks(2, do_nothing, NULL), DLS_ERR_INPUT);
        cr_assert(strstr(dls_status_message(), "expected seconds, or 0"));
    }
    setenv("DLS_WATCHDOG", "0", 1);
    cr_assert_eq(dls_run_ranks(2, do_nothing, NULL), DLS_OK);
    const char *faults[] = {"kill", "kill:1", "kill:1:2:3", "maim:0:1", "kill:-1:1",
                            "kill:0:0", ":0:1"};
    for (int i = 0; i < 7; i++) {
        setenv("DLS_FAULT", faults[i], 1);
        cr_assert_eq(dls_run_ranks(2, be_slow, NULL), DLS_ERR_INPUT);
        cr_assert(strstr(dls_status_message(), "expected kill, stop, spin, skip, "));
    }
}

/* tests/comm/test_recorder.c: from chapters/04-data-parallelism-faults-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The flight recorder: what it keeps, what it forgets, and never half a record. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/recorder.h"

/* open two ends of a recorder */
static dls_recorder launcher, rank;

/* The launcher's end and that of rank 1 of 2. */
static void open_both(const char *records)
{
    char fd[16];
    setenv("DLS_RECORDER", records, 1);
    cr_assert_eq(dls_recorder_create(2, &launcher), DLS_OK);
    snprintf(fd, sizeof fd, "%d", launcher.fd);
    setenv("DLS_RECORDER_FD", fd, 1);
    cr_assert_eq(dls_recorder_attach(1, 2, &rank), DLS_OK);
}

static dls_record numbered(uint64_t n)
{
    dls_record r = {.kind = DLS_RECORD_COLLECTIVE, .number = n, .count = 3 * n,
                    .peer = -1};
    snprintf(r.name, sizeof r.name, "op %llu", (unsigned long long)n);
    return r;
}

/* test what is kept */
Test(comm, recorder_keeps_the_last_records_oldest_first)
{
    dls_record seen[8];
    open_both("8");
    cr_assert_eq(dls_recorder_read(&launcher, 1, seen), 0);
    for (uint64_t n = 0; n < 21; n++) {
        dls_record r = numbered(n);
        cr_assert_eq(dls_recorder_call(&rank, &r), n + 1);
        int kept = n < 7 ? (int)n + 1 : 8;
        cr_assert_eq(dls_recorder_read(&launcher, 1, seen), kept);
        for (int i = 0; i < kept; i++)
            cr_assert(seen[i].number == n + 1 - (uint64_t)(kept - i) &&
                      seen[i].count == 3 * seen[i].number && seen[i].called > 0);
    }
    cr_assert_str_eq(seen[7].name, "op 20");
    cr_assert_eq(dls_recorder_read(&launcher, 0, seen), 0, "the other's are its own");
    cr_assert_eq(atomic_load(&dls_recorder_of(&launcher, 1)->pid), getpid());
    // killed after drawing a ticket, before its record was written
    atomic_fetch_add((_Atomic uint64_t *)&dls_recorder_of(&rank, 1)->calls, 1);
    cr_assert_eq(dls_recorder_read(&launcher, 1, seen), 7);
    cr_assert_eq(seen[6].number, 20);
}

/* test changes of a record */
Test(comm, recorder_notes_what_becomes_of_a_call)
{
    dls_record seen[8], r = numbered(0);
    open_both("8");
    uint64_t first = dls_recorder_call(&rank, &r);
    dls_recorder_begin(&rank, first, 1.5);
    dls_recorder_move(&rank, first, 77);
    dls_recorder_read(&launcher, 1, seen);
    cr_assert(seen[0].began >= seen[0].called && seen[0].ended == 0);
    cr_assert(seen[0].virtual_began == 1.5 && seen[0].bytes == 77);
    for (uint64_t n = 1; n <= 8; n++) { // the last of them takes its slot
        r = numbered(n);
        dls_recorder_call(&rank, &r);
    }
    dls_recorder_end(&rank, first, 78, 9);
    cr_assert_eq(dls_recorder_read(&launcher, 1, seen), 8);
    cr_assert(seen[7].number == 8 && seen[7].ended == 0 && seen[7].virtual_ended == 0);
    cr_assert_eq(atomic_load(&dls_recorder_of(&launcher, 1)->ends), 1, "but it ended");
    dls_recorder_end(&rank, 9, 99, 2.5);
    dls_recorder_read(&launcher, 1, seen);
    cr_assert(seen[7].ended > 0 && seen[7].virtual_ended == 2.5);
}

Test(comm, a_recorder_that_is_not_there_takes_everything)
{
    dls_recorder none = {.head = NULL};
    dls_record r = numbered(1);
    cr_assert_eq(dls_recorder_call(&none, &r), 0);
    dls_recorder_begin(&none, 0, 1);
    dls_recorder_move(&none, 0, 1);
    dls_recorder_end(&none, 0, 0, 1);
    dls_recorder_see(&none);
    dls_recorder_detach(&none);
}

/* test records under load */
static void write_for_ever(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); // also when the test fails
    for (uint64_t n = 0;; n++) {
        dls_record r = {.kind = DLS_RECORD_HOST, .number = n, .count = 3 * n,
                        .bytes = n ^ 0xffff, .members = 7 * n, .virtual_called = n,
                        .virtual_began = n, .virtual_ended = n};
        dls_recorder_call(&rank, &r);
    }
}

Test(comm, a_reader_never_sees_half_a_record)
{
    dls_record r[1];
    open_both("1");
    pid_t writer = fork();
    if (writer == 0)
        write_for_ever();
    for (int i = 0, seen = 0; i < 200000 || seen < 1000; i++) {
        if (dls_recorder_read(&launcher, 1, r) == 0)
            continue;
        seen++;
        double n = (double)r->number;
        cr_assert(r->number == r->ticket - 1 && r->count == 3 * r->number);
        cr_assert(r->bytes == (r->number ^ 0xffff) && r->members == 7 * r->number);
        cr_assert(r->virtual_called == n && r->virtual_began == n);
        cr_assert_eq(r->virtual_ended, n);
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    cr_assert_leq(dls_recorder_read(&launcher, 1, r), 1);
}

/* test the clock of a call */
static void leave(int signal)
{
    _exit(signal == SIGSEGV ? 7 : 1);
}

/* Takes a page of the slots away and calls. */
static void call_into_nothing(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *slots = (char *)(dls_recorder_of(&rank, 1) + 1);
    uintptr_t at = (uintptr_t)(slots + 100 * sizeof(dls_record_slot));
    dls_record r = numbered(100);
    signal(SIGSEGV, leave);
    mprotect((void *)(at - at % (uintptr_t)page), (size_t)page, PROT_NONE);
    dls_recorder_call(&rank, &r);
    _exit(0);
}

Test(comm, a_rank_that_has_called_has_moved)
{
    dls_record r = numbered(0);
    int how;
    open_both("256");
    const dls_recorder_rank *seen = dls_recorder_of(&launcher, 1);
    for (uint64_t n = 1; n <= 100; n++)
        dls_recorder_end(&rank, dls_recorder_call(&rank, &r), 0, 0);
    double before = atomic_load(&seen->moved);
    pid_t child = fork();
    if (child == 0)
        call_into_nothing();
    waitpid(child, &how, 0);
    cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 7, "the page was not missed");
    cr_assert_eq(atomic_load(&seen->calls), 101, "it has something left to do");
    cr_assert_gt(atomic_load(&seen->moved), before, "and its clock is an old one");
}

/* test wrong recorders */
static void expect_words(dls_status status, const char *words)
{
    cr_assert_eq(status, DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), words), "%s", dls_status_message());
}

Test(comm, wrong_recorders_are_refused_in_one_line)
{
    dls_recorder r;
    open_both("8");
    expect_words(dls_recorder_attach(0, 3, &r), "the launcher made records for 2 ranks");
    setenv("DLS_RECORDER_FD", "0", 1);
    expect_words(dls_recorder_attach(0, 2, &r), "DLS_RECORDER_FD=0: not the records");
    unsetenv("DLS_RECORDER_FD");
    setenv("DLS_RECORDER", "many", 1);
    expect_words(dls_recorder_attach(0, 2, &r), "DLS_RECORDER=many: expected");
    expect_words(dls_recorder_create(2, &r), "1 to 65536");
    unsetenv("DLS_RECORDER");
    cr_assert_eq(dls_recorder_attach(0, 2, &r), DLS_OK, "private, without a launcher");
    cr_assert_eq(r.records, 256);
    dls_recorder_detach(&r);
}

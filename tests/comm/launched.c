/* tests/comm/launched.c: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Ranks of a test that mpirun, or another launcher, starts.
 *
 *   test program, test T            mpirun -n 3 test program, test T, world 2
 *     world 1: mpirun ...             world 1: passed by
 *     world 2: mpirun ... ------->    world 2: fn(rank, arg), verdict into a file
 *     reads the verdicts  <-------    ends */
#include "launched.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "comm/identity.h"
#include "comm/launch.h"

enum { MOST = 4, TEXT = 2000 };

long test_checks;
static int worlds; // of this test so far

/* skip a world */
const char *test_folder(void)
{
    const char *folder = getenv("DLS_TEST_FOLDER");
    return folder ? folder : "/tmp";
}

/* A line for the summary. */
static void note(int n, const char *outcome, long checks)
{
    const char *path = getenv("DLS_TEST_LOG");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (!f)
        return;
    fprintf(f, "%s/%s %d %s %ld\n", criterion_current_test->category,
            criterion_current_test->name, n, outcome, checks);
    fclose(f);
}

int test_skips(int n)
{
    const char *mine = getenv("DLS_TEST_WORLD");
    worlds++;
    if (mine)
        return worlds != atoi(mine);
    if (!getenv("DLS_TEST_BY") || n <= MOST)
        return 0;
    note(n, "skipped", 0);
    return 1;
}

/* be a rank of a launcher */
static double real_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static _Noreturn void be_rank(dls_status (*fn)(int rank, void *arg), void *arg)
{
    char path[300];
    dls_identity who;
    dls_status status = dls_identity_adopt(&who);
    if (status == DLS_OK)
        status = fn(who.rank, arg);
    snprintf(path, sizeof path, "%s/rank.%d", test_folder(), who.rank);
    FILE *f = fopen(path, "w");
    if (f) {
        fprintf(f, "%d %.9f %ld %s", (int)status, real_time(), test_checks,
                status ? dls_status_message() : "");
        fclose(f);
    }
    _exit(status != DLS_OK);
}

/* read the verdicts */
typedef struct verdict {
    int rank, status;
    double time;
    long checks;
    char text[TEXT];
} verdict;

/* 0: the rank has left none. */
static int read_verdict(int rank, verdict *v)
{
    char path[300];
    *v = (verdict){.rank = rank};
    snprintf(path, sizeof path, "%s/rank.%d", getenv("DLS_TEST_FOLDER"), rank);
    FILE *f = fopen(path, "r");
    int n = f ? fscanf(f, "%d %lf %ld %1999[^\n]", &v->status, &v->time, &v->checks,
                       v->text) : 0;
    if (f)
        fclose(f);
    return n >= 3;
}

static dls_status judge(int n)
{
    verdict v, first = {.rank = -1};
    int missing = -1;
    long checks = 0;
    for (int r = 0; r < n; r++) {
        if (!read_verdict(r, &v))
            missing = r;
        checks += v.checks;
        if (v.status && (first.rank < 0 || v.time < first.time))
            first = v;
    }
    note(n, "ran", checks);
    if (first.rank >= 0)
        return DLS_FAIL((dls_status)first.status, "rank %d failed: %s", first.rank,
                        first.text);
    return missing < 0 ? DLS_OK
                       : DLS_FAIL(DLS_ERR_STATE, "rank %d left no verdict", missing);
}

/* start a world */
static void empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    char file[600];
    for (struct dirent *e; folder && (e = readdir(folder)) != NULL;) {
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file); // "." and ".." stay
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

/* Runs this test's world of this number under the launcher. */
static void launch(const char *by, int n)
{
    char command[1200], program[300] = "";
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0)
        return;
    snprintf(command, sizeof command, "env -u BXFI_MAP DLS_TEST_WORLD=%d timeout 100 "
             "%.300s %d %s --jobs 1 --filter '%s/%s' >%s/output 2>&1", worlds, by, n,
             program, criterion_current_test->category, criterion_current_test->name,
             getenv("DLS_TEST_FOLDER"));
    (void)!system(command);
}

dls_status test_run_ranks(int n, dls_status (*fn)(int rank, void *arg), void *arg)
{
    const char *by = getenv("DLS_TEST_BY");
    char folder[] = "/tmp/dls-world-XXXXXX";
    if (getenv("DLS_TEST_WORLD"))
        be_rank(fn, arg);
    if (!by)
        return dls_run_ranks(n, fn, arg);
    if (!mkdtemp(folder))
        return DLS_FAIL(DLS_ERR_IO, "no folder for a world");
    setenv("DLS_TEST_FOLDER", folder, 1);
    launch(by, n);
    dls_status status = judge(n);
    empty_folder(folder);
    unsetenv("DLS_TEST_FOLDER");
    return status;
}

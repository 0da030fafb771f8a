/* tests/comm/outcome.h: from chapters/04-data-parallelism-rendezvous-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* For tests of what every one of several forked processes says in the end. */
#ifndef DLS_TESTS_COMM_OUTCOME_H
#define DLS_TESTS_COMM_OUTCOME_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/log.h"
#include "base/status.h"

/* fork and collect outcomes */
typedef struct outcome {
    dls_status status;
    int signal;       // that ended it
    double seconds;
    char message[600];
} outcome;

static inline double outcome_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Forks n processes that return fn(index, arg) and waits for them. Static memory. */
static inline const outcome *outcomes_of(int n, dls_status (*fn)(int, void *), void *arg)
{
    static pid_t pids[64];
    double start = outcome_clock();
    outcome *all = mmap(NULL, 64 * sizeof *all, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < n; i++)
        if ((pids[i] = fork()) == 0) {
            all[i].status = fn(i, arg);
            snprintf(all[i].message, sizeof all[i].message, "%s", dls_status_message());
            all[i].seconds = outcome_clock() - start;
            _exit(0);
        }
    for (int i = 0, how; i < n; i++) {
        waitpid(pids[i], &how, 0);
        all[i].signal = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    }
    return all;
}

/* expect words in a message */
static inline void expect_words(const char *message, const char *const words[])
{
    cr_assert(!strchr(message, '\n'), "more than a line: %s", message);
    for (int i = 0; words[i]; i++)
        cr_assert(strstr(message, words[i]), "no \"%s\" in: %s", words[i], message);
}

#define EXPECT_WORDS(message, ...) \
    expect_words(message, (const char *const[]){__VA_ARGS__, NULL})

static inline void expect_ok(dls_status status)
{
    cr_assert_eq(status, DLS_OK, "%s", dls_status_message());
}
#endif

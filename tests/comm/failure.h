/* tests/comm/failure.h: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* For tests of jobs that have to fail. */
#ifndef DLS_TESTS_COMM_FAILURE_H
#define DLS_TESTS_COMM_FAILURE_H

#include "world.h"

#include <time.h>

#include "base/log.h"

/* expect a failure of ranks */
static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The ranks must fail within 30 s, with all words (NULL-terminated) in the message. */
static inline void expect_failure(int n, dls_status (*fn)(int, void *), void *arg,
                                  const char *const words[])
{
    double start = seconds();
    if (test_skips(n))
        return;
    dls_log_set_level(DLS_LOG_NONE); // what is logged is expected
    dls_status status = test_run_ranks(n, fn, arg);
    cr_assert_eq(status, DLS_ERR_COMM, "status %s: %s", dls_status_name(status),
                 dls_status_message());
    cr_assert_lt(seconds() - start, 30.0);
    for (int i = 0; words[i]; i++)
        cr_assert(strstr(dls_status_message(), words[i]), "no \"%s\" in: %s", words[i],
                  dls_status_message());
}

#endif

/* tests/comm/launched.h: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Worlds of ranks: forked, or started by the launcher that $DLS_TEST_BY names. */
#ifndef DLS_TESTS_COMM_LAUNCHED_H
#define DLS_TESTS_COMM_LAUNCHED_H

#include "base/status.h"

extern long test_checks; // expectations of this process so far

const char *test_folder(void); // for files of this test

/* 1: the next world of n ranks is not to be run here: another one is, or it is too large
 * for $DLS_TEST_BY. Ask once for every world. */
int test_skips(int n);

/* As dls_run_ranks, by whoever starts the ranks. */
dls_status test_run_ranks(int n, dls_status (*fn)(int rank, void *arg), void *arg);

#endif

/* code/comm/ranks.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_run_ranks: n forked copies of the calling process, for tests. */
#include <stdio.h>
#include <unistd.h>

#include "comm/launch_private.h"

enum { LIMIT_SECONDS = 120 };

/* be a rank */
static void be_rank(dls_supervisor *s, int rank, dls_status (*fn)(int, void *), void *arg)
{
    char text[DLS_LOCAL_TEXT];
    dls_status_clear();
    dls_status status = fn(rank, arg);
    if (status != DLS_OK) {
        snprintf(text, sizeof text, "failed: %s", dls_status_message());
        dls_local_fail(&s->local, rank, status, text, 0);
    }
    fflush(NULL);
    _exit(status != DLS_OK);
}

/* tell the first failure */
static dls_status tell_failure(const dls_supervisor *s)
{
    int culprit = (int)atomic_load(&s->local.head->culprit) - 1;
    if (s->exit_status == 124)
        return DLS_FAIL(DLS_ERR_COMM, "%d ranks did not end within %d s", s->n,
                        LIMIT_SECONDS);
    if (culprit < 0)
        return s->exit_status ? DLS_FAIL(DLS_ERR_COMM, "the ranks were interrupted")
                              : DLS_OK;
    const dls_local_rank *rank = &s->local.ranks[culprit];
    return DLS_FAIL((dls_status)rank->status, "rank %d %s", culprit, rank->failure);
}

/* run forked ranks */
dls_status dls_run_ranks(int n, dls_status (*fn)(int rank, void *arg), void *arg)
{
    dls_supervisor s;
    DLS_TRY(dls_supervise_begin(&s, n, LIMIT_SECONDS));
    s.term_delay = s.kill_delay = 2;
    int failed = 0;
    for (int r = 0; r < n && !failed; r++) {
        pid_t pid = dls_supervise_fork(&s, r);
        if (pid == 0)
            be_rank(&s, r, fn, arg);
        failed = pid < 0;
    }
    if (failed)
        dls_supervise_stop(&s, SIGKILL);
    dls_supervise_wait(&s);
    dls_status status = failed ? DLS_FAIL(DLS_ERR_MEMORY, "cannot fork %d ranks", n)
                               : tell_failure(&s);
    dls_supervise_end(&s);
    return status;
}

/* code/comm/launch_private.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* What dls_launch and dls_run_ranks share. Private to comm/. */
#ifndef DLS_COMM_LAUNCH_PRIVATE_H
#define DLS_COMM_LAUNCH_PRIVATE_H

#include <signal.h>
#include <sys/types.h>

#include "comm/launch.h"
#include "comm/local.h"
#include "comm/recorder.h"

/* define a supervisor */
typedef struct dls_supervisor {
    int n, alive;
    pid_t pids[DLS_LOCAL_MAX_RANKS];  // 0: not started, or gone
    dls_local local;
    dls_recorder recorder;
    sigset_t watched, previous;       // signals taken by sigtimedwait; the mask before
    double term_delay, kill_delay;    // after the first failure; seconds
    double term_at, kill_at, limit_at;// on the monotonic clock; 0: not set
    int announce;                     // log the first failure when it happens
    int first;                        // rank that failed first; -1: none
    double watch;                     // limit of the watchdog, s; 0: none
    const char *flight;               // file for the records of a failure; NULL: none
    int tried, kept;                  // to write it; it was written
    char summary[1400];               // what it says; "": has been said
    int lost;                         // ranks that were lost
    int exit_status;                  // what dls_launch returns
} dls_supervisor;

dls_status dls_supervise_begin(dls_supervisor *s, int n, double limit_seconds);
pid_t dls_supervise_fork(dls_supervisor *s, int rank); // 0 in the child, -1: failed
void dls_supervise_wait(dls_supervisor *s);            // until the last one is gone
void dls_supervise_stop(dls_supervisor *s, int signal);
void dls_supervise_end(dls_supervisor *s);

/* The first failure: starts the countdown to the end of the others. */
void dls_supervise_fail(dls_supervisor *s, int rank, int exit_status);

/* declare the watchdog */
/* Reports an operation on which nothing has moved for too long (watchdog.c). */
void dls_watchdog_look(dls_supervisor *s);

/* Keeps the records as they are now: called at the first failure, before anybody is told
 * and dies of it. `fate` is what happened to rank `rank`; -1: to none of them. */
void dls_watchdog_keep(dls_supervisor *s, int rank, const char *fate);

dls_status dls_watchdog_limit(double *seconds); // DLS_WATCHDOG, or 600

/* In a rank: leaves the report to the launcher, which sees all ranks. */
void dls_watchdog_defer(double seconds);

#endif

/* code/comm/launch.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Starting the ranks of a job on this machine, and ending them together. */
#ifndef DLS_COMM_LAUNCH_H
#define DLS_COMM_LAUNCH_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the launcher */
typedef struct dls_launch_options {
    double grace_seconds; // between SIGTERM and SIGKILL once a rank has failed; 0: 2 s
    double limit_seconds; // the whole job may take so long; 0: no limit
    const char *flight;   // file for the ranks' records when the job fails; NULL: none
    int least, restarts;  // go on after a loss with so many ranks; so often; 0: do not
} dls_launch_options;

/* Runs argv (NULL-terminated, found through PATH) n times with DLS_RANK, DLS_WORLD_SIZE
 * and DLS_ARENA_FD set, and waits. When a rank dies, logs which and why and
 * ends the others; SIGINT, SIGTERM and SIGHUP are passed on. Call it from the main thread
 * of a process that may block these signals meanwhile. o may be NULL.
 * Returns the job's exit status: 0 when every rank returned 0, the status of the first
 * rank that failed, 128 + signal, 127 when the program can not be run.
 * A job that goes on after a loss starts argv again with the ranks that are left and with
 * DLS_RESTART=1, 2, ...; see chapters/04-data-parallelism-elastic.md. */
int dls_launch(int n, char *const argv[], const dls_launch_options *o);

/* Forks n ranks that each return fn(rank, arg), with the same environment. Memory is
 * copied, not shared. Returns DLS_OK when all did, else the first failure, its rank in
 * the message: "rank 2: ...". At most 120 s, then DLS_ERR_COMM. For tests. */
dls_status dls_run_ranks(int n, dls_status (*fn)(int rank, void *arg), void *arg);

#ifdef __cplusplus
}
#endif
#endif

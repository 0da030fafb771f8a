/* code/comm/supervise.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Watching the ranks of a job: fork, wait, and when one fails, end the others.
 *
 *   first failure -> (term_delay) SIGTERM to the rest -> (kill_delay) SIGKILL
 *
 * The loop takes signals synchronously (sigtimedwait), so there is no handler and nothing
 * that would have to be async-signal-safe. */
#include "comm/launch_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* begin to supervise */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

dls_status dls_supervise_begin(dls_supervisor *s, int n, double limit_seconds)
{
    memset(s, 0, sizeof *s);
    s->n = n;
    s->first = -1;
    s->limit_at = limit_seconds > 0 ? now() + limit_seconds : 0;
    DLS_TRY(dls_watchdog_limit(&s->watch));
    DLS_TRY(dls_recorder_create(n, &s->recorder));
    dls_status status = dls_local_create(n, &s->local);
    if (status != DLS_OK) {
        dls_recorder_detach(&s->recorder);
        close(s->recorder.fd);
        return status;
    }
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&s->watched);
    int signals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&s->watched, signals[i]);
    sigprocmask(SIG_BLOCK, &s->watched, &s->previous);
    fflush(NULL); // or each child would print what is still in our buffers
    return DLS_OK;
}

void dls_supervise_end(dls_supervisor *s)
{
    sigprocmask(SIG_SETMASK, &s->previous, NULL);
    int fd = s->local.fd;
    dls_local_detach(&s->local);
    close(fd);
    dls_recorder_detach(&s->recorder);
    close(s->recorder.fd);
}

/* fork a rank */
static void set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

pid_t dls_supervise_fork(dls_supervisor *s, int rank)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid > 0) {
        setpgid(pid, pid); // here and in the child: whoever comes first
        s->pids[rank] = pid;
        s->alive++;
    }
    if (pid != 0)
        return pid;
    /* become a rank */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &s->previous, NULL);
    set_number("DLS_RANK", rank);
    set_number("DLS_WORLD_SIZE", s->n);
    unsetenv("DLS_LOCAL_RANK"); // the device derives it from the cluster
    unsetenv("DLS_LAUNCHER");   // of this process, if another one started it
    set_number("DLS_ARENA_FD", s->local.fd);
    set_number("DLS_RECORDER_FD", s->recorder.fd);
    dls_watchdog_defer(s->watch);
    return 0;
}

/* note how a rank ended */
static void describe_end(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(text, size, "was killed by signal %d (SIG%s)", WTERMSIG(status),
                 name ? name : "?");
    } else {
        snprintf(text, size, "ended with exit status %d", WEXITSTATUS(status));
    }
}

void dls_supervise_fail(dls_supervisor *s, int rank, int exit_status)
{
    s->first = rank;
    s->exit_status = exit_status;
    s->term_at = now() + s->term_delay;
    s->kill_at = s->term_at + s->kill_delay;
}

static void note_end(dls_supervisor *s, int rank, int status)
{
    char text[128];
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        dls_local_done(&s->local, rank);
        return;
    }
    describe_end(status, text, sizeof text);
    if (WIFSIGNALED(status) && (s->kill_at == 0 || s->term_at > 0))
        s->lost++; // and not by a signal of ours
    if (s->first < 0 && s->kill_at == 0)
        dls_watchdog_keep(s, rank, text);
    dls_local_fail(&s->local, rank, DLS_ERR_COMM, text, 0);
    if (s->first >= 0 || s->kill_at > 0)
        return; // a consequence, not the cause
    dls_supervise_fail(s, rank, WIFSIGNALED(status) ? 128 + WTERMSIG(status)
                                                    : WEXITSTATUS(status));
    if (!s->announce)
        return;
    if (s->alive > 0)
        dls_log(DLS_LOG_ERROR, "rank %d %s; stopping the other %d rank%s", rank, text,
                s->alive, s->alive == 1 ? "" : "s");
    else
        dls_log(DLS_LOG_ERROR, "rank %d %s", rank, text);
}

/* reap the ranks that ended */
static void reap(dls_supervisor *s)
{
    for (int r = 0; r < s->n; r++) {
        siginfo_t info = {.si_pid = 0};
        int status, look = WEXITED | WNOHANG | WNOWAIT;
        if (s->pids[r] == 0 || waitid(P_PID, (id_t)s->pids[r], &info, look) ||
            info.si_pid == 0)
            continue;
        kill(-s->pids[r], SIGKILL); // what the rank may have started and left behind
        waitpid(s->pids[r], &status, 0);
        s->pids[r] = 0;
        s->alive--;
        note_end(s, r, status);
    }
}

/* send signals when due */
void dls_supervise_stop(dls_supervisor *s, int signal)
{
    for (int r = 0; r < s->n; r++)
        if (s->pids[r] && kill(-s->pids[r], signal) != 0)
            kill(s->pids[r], signal);
}

static void pass_on(dls_supervisor *s, int signal)
{
    int again = s->kill_at > 0;
    dls_watchdog_keep(s, -1, "");
    dls_supervise_stop(s, again ? SIGKILL : signal);
    if (again)
        return;
    s->kill_at = now() + s->kill_delay;
    s->exit_status = 128 + signal;
}

static void stop_when_due(dls_supervisor *s)
{
    double t = now();
    if (s->limit_at > 0 && t >= s->limit_at) {
        s->limit_at = 0;
        dls_watchdog_keep(s, -1, "");
        dls_log(DLS_LOG_ERROR, "the ranks ran past their time limit; stopping all %d",
                s->alive);
        s->exit_status = 124;
        s->kill_at = t;
    }
    if (s->term_at > 0 && t >= s->term_at) {
        s->term_at = 0;
        dls_supervise_stop(s, SIGTERM);
        dls_supervise_stop(s, SIGCONT); // a stopped process does not see SIGTERM
    }
    if (s->kill_at > 0 && t >= s->kill_at)
        dls_supervise_stop(s, SIGKILL);
}

/* wait for every rank */
void dls_supervise_wait(dls_supervisor *s)
{
    const struct timespec tick = {0, 100 * 1000000L};
    reap(s);
    while (s->alive > 0) {
        dls_watchdog_look(s);
        stop_when_due(s);
        int signal = sigtimedwait(&s->watched, NULL, &tick);
        if (signal > 0 && signal != SIGCHLD)
            pass_on(s, signal);
        reap(s);
    }
}

/* code/comm/launch.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_launch: the same program n times. See supervise.c for how they are watched. */
#include "comm/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/launch_private.h"

/* start the program once per rank */
/* 0, or the errno of what went wrong. */
static int start_all(dls_supervisor *s, char *const argv[])
{
    int report[2], error = 0;
    if (pipe2(report, O_CLOEXEC))
        return errno;
    for (int r = 0; r < s->n && !error; r++) {
        pid_t pid = dls_supervise_fork(s, r);
        if (pid < 0)
            error = errno;
        if (pid != 0)
            continue;
        /* become the program */
        execvp(argv[0], argv);
        error = errno;
        if (write(report[1], &error, sizeof error) < 0)
            _exit(126);
        _exit(127);
    }
    close(report[1]);
    int reported;
    if (!error && read(report[0], &reported, sizeof reported) == (ssize_t)sizeof reported)
        error = reported;
    close(report[0]);
    return error;
}

/* run a job once */
static int run_once(int n, char *const argv[], const dls_launch_options *o, int *lost)
{
    dls_supervisor s;
    if (dls_supervise_begin(&s, n, o->limit_seconds) != DLS_OK) {
        dls_log(DLS_LOG_ERROR, "%s", dls_status_message());
        return 1;
    }
    s.announce = 1;
    s.flight = o->flight;
    s.kill_delay = o->grace_seconds > 0 ? o->grace_seconds : 2;
    int error = start_all(&s, argv);
    if (error) {
        dls_log(DLS_LOG_ERROR, "cannot start %d ranks of '%s': %s", n, argv[0],
                strerror(error));
        s.announce = 0;
        dls_supervise_stop(&s, SIGKILL);
    }
    dls_supervise_wait(&s);
    if (s.kept)
        dls_log(DLS_LOG_INFO, "%s%s`dls flight %s` tells the ranks' last operations",
                s.summary, s.summary[0] ? "; " : "", s.flight);
    dls_supervise_end(&s);
    *lost = s.first < 0 ? 0 : s.lost;
    return error ? 127 : s.exit_status;
}

/* restart with the ranks that are left */
/* The ranks to go on with; 0: the job ends here. */
static int ranks_left(int n, int lost, int restarts, const dls_launch_options *o)
{
    if (o->least < 1 || lost == 0)
        return 0;
    if (restarts == o->restarts) {
        dls_log(DLS_LOG_ERROR, "no restart: %d of %d are used", restarts, o->restarts);
        return 0;
    }
    if (n - lost >= o->least && n > lost)
        return n - lost;
    dls_log(DLS_LOG_ERROR, "no restart: %d rank%s left, expected at least %d", n - lost,
            n - lost == 1 ? " is" : "s are", o->least);
    return 0;
}

int dls_launch(int n, char *const argv[], const dls_launch_options *given)
{
    dls_launch_options o = given ? *given : (dls_launch_options){0};
    double end = o.limit_seconds > 0 ? dls_recorder_now() + o.limit_seconds : 0;
    char number[16], path[4096];
    for (int restarts = 0, lost = 0;; restarts++) {
        int code = run_once(n, argv, &o, &lost);
        n = code == 0 ? 0 : ranks_left(n, lost, restarts, &o);
        if (n == 0)
            return code;
        dls_log(DLS_LOG_WARN, "restart %d of at most %d, with %d rank%s", restarts + 1,
                o.restarts, n, n == 1 ? "" : "s");
        /* prepare the restart */
        snprintf(number, sizeof number, "%d", restarts + 1);
        setenv("DLS_RESTART", number, 1);
        if (end > 0)
            o.limit_seconds = end - dls_recorder_now() > 0.1 ? end - dls_recorder_now() : 0.1;
        if (o.flight) {
            snprintf(path, sizeof path, "%s.%d", given->flight, restarts + 1);
            o.flight = path;
        }
    }
}

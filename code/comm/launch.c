/* code/comm/launch.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_launch: the same program n times. See supervise.c for how they are watched. */
#include "comm/launch.h"

#include <errno.h>
#include <fcntl.h>
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

/* launch a job */
int dls_launch(int n, char *const argv[], const dls_launch_options *o)
{
    dls_supervisor s;
    if (dls_supervise_begin(&s, n, o ? o->limit_seconds : 0) != DLS_OK) {
        dls_log(DLS_LOG_ERROR, "%s", dls_status_message());
        return 1;
    }
    s.announce = 1;
    s.kill_delay = o && o->grace_seconds > 0 ? o->grace_seconds : 2;
    int error = start_all(&s, argv);
    if (error) {
        dls_log(DLS_LOG_ERROR, "cannot start %d ranks of '%s': %s", n, argv[0],
                strerror(error));
        s.announce = 0;
        dls_supervise_stop(&s, SIGKILL);
    }
    dls_supervise_wait(&s);
    dls_supervise_end(&s);
    return error ? 127 : s.exit_status;
}

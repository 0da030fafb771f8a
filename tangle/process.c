/*
 * process.c - runs a program with its two outputs merged, and ends it when its time is
 * up.
 */
#include "tangle.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_OUTPUT = 4 << 20 };

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The child: a process group of its own, so that what it leaves behind can be ended with
 * it. */
static void child(char *const argv[], int in, int out, bool c_locale)
{
    setpgid(0, 0);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    const char *path = getenv("PATH");
    char here[4096];
    if (getcwd(here, sizeof here))
        setenv("PATH", keepf("%s/build/bin:%s", here, path ? path : "/usr/bin:/bin"), 1);
    if (c_locale)
        setenv("LC_ALL", "C", 1);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Takes what the pipe holds. False at its end. */
static bool drain(int fd, struct process *p)
{
    char buffer[65536];
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    if (p->output.n + (size_t)got <= MOST_OUTPUT)
        add(&p->output, buffer, (size_t)got);
    return got > 0;
}

/* Reads until the pipe closes or the program has ended (a background child may keep it
 * open). */
static void collect(int fd, pid_t pid, int timeout, struct process *p, int *status)
{
    int64_t end = now_ms() + (int64_t)timeout * 1000;
    bool open = true, ended = false;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (open && !ended) {
        struct pollfd wait = {fd, POLLIN, 0};
        poll(&wait, 1, 50);
        if (wait.revents)
            open = drain(fd, p);
        if (!wait.revents)
            ended = waitpid(pid, status, WNOHANG) == pid;
        if (!ended && now_ms() > end) {
            p->timed_out = true;
            kill(-pid, SIGKILL);
            break;
        }
    }
    while (!ended &&
           waitpid(pid, status, WNOHANG) == 0) { /* closed its output, still running */
        if (now_ms() > end && !p->timed_out) {
            p->timed_out = true;
            kill(-pid, SIGKILL);
        }
        poll(NULL, 0, 5);
    }
    kill(-pid, SIGKILL);
}

/* A file without a name that holds the program's standard input. */
static int input_file(slice input)
{
    FILE *f = tmpfile();
    if (!f)
        return -1;
    fwrite(input.p, 1, input.n, f);
    fflush(f);
    int fd = fcntl(fileno(f), F_DUPFD_CLOEXEC, 3);
    fclose(f);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

int process_run(char *const argv[], slice input, int timeout, bool c_locale,
                struct process *out)
{
    int pipe_fd[2], status = 0, in = input_file(input);
    if (in < 0 || pipe2(pipe_fd, O_CLOEXEC)) {
        if (in >= 0)
            close(in);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        child(argv, in, pipe_fd[1], c_locale);
    close(in);
    close(pipe_fd[1]);
    if (pid > 0) {
        setpgid(pid, pid);
        collect(pipe_fd[0], pid, timeout, out, &status);
        out->exit = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    close(pipe_fd[0]);
    return pid > 0 ? 0 : -1;
}

/* tests/comm/test_launch.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The launcher: environment, exit status, and that nobody is left behind. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "comm/launch.h"

/* launch in a child */
static char log_path[] = "/tmp/dls-launch-log-XXXXXX";
static char out_path[] = "/tmp/dls-launch-out-XXXXXX";

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static dls_launch_options options;  /* of the launches to come */

/* Starts n ranks of a shell script, which finds the name of an output file in $OUT. */
static pid_t launch(int n, const char *script)
{
    int log = mkstemp(log_path);
    close(mkstemp(out_path));
    setenv("OUT", out_path, 1);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {"sh", "-c", (char *)script, NULL};
        char *missing[] = {"/no/such/program", NULL};
        dup2(log, STDERR_FILENO);
        _exit(dls_launch(n, script ? argv : missing, &options));
    }
    close(log);
    return pid;
}

/* wait for the launch */
/* The launcher's exit status, or -1 when it took more than 30 s. */
static int wait_status(pid_t pid)
{
    double start = seconds();
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (seconds() - start > 30)
            return -1;
        usleep(20000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

/* The text of a file, for as long as the test runs. */
static const char *text_of(const char *path)
{
    char *text;
    size_t size;
    cr_assert_eq(dls_file_read(path, &text, &size), DLS_OK);
    return text;
}

/* Waits until every rank has written its process number; then they must all be gone. */
static void wait_for_pids(int n, pid_t *pids)
{
    for (int tries = 0, got = 0; got < n; tries++) {
        cr_assert_lt(tries, 1500, "the ranks did not start");
        usleep(20000);
        FILE *f = fopen(out_path, "r");
        for (got = 0; got < n && fscanf(f, "%d", &pids[got]) == 1; got++)
            ;
        fclose(f);
    }
}


/* A zombie that nobody has collected yet counts as gone. */
static int lives(pid_t pid)
{
    char path[32], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    if (f)
        fclose(f);
    return state != 'Z';
}

static void expect_gone(int n, const pid_t *pids)
{
    for (int tries = 0, left = n; left > 0; tries++) {
        cr_assert_lt(tries, 1500, "a process is still there");
        usleep(20000);
        left = 0;
        for (int i = 0; i < n; i++)
            left += lives(pids[i]);
    }
}

/* test what ranks are told */
Test(comm, launch_tells_each_rank_who_it_is)
{
    pid_t pid = launch(3,
                       "echo $DLS_RANK/$DLS_WORLD_SIZE $(($DLS_ARENA_FD > 2)) >> $OUT");
    cr_assert_eq(wait_status(pid), 0);
    const char *text = text_of(out_path);
    cr_assert(strstr(text, "0/3 1\n") && strstr(text, "1/3 1\n") &&
              strstr(text, "2/3 1\n"));
    cr_assert_str_eq(text_of(log_path), "", "a job that ends well says nothing");
}

Test(comm, launch_says_once_what_cannot_be_run)
{
    cr_assert_eq(wait_status(launch(3, NULL)), 127);
    const char *text = text_of(log_path);
    cr_assert(strstr(text, "cannot start 3 ranks of '/no/such/program': No such file"));
    cr_assert_eq(strchr(text, '\n')[1], 0, "more than one line: %s", text);
}

/* test how a dead rank ends the job */
Test(comm, launch_ends_all_when_one_is_killed)
{
    pid_t pids[8], pid = launch(4, "trap '' TERM; sleep 60 & echo $$ $! >> $OUT;"
                                   "while [ $(wc -l < $OUT) -lt 4 ]; do sleep 0.02; done;"
                                   "[ $DLS_RANK = 2 ] && kill -9 $$;"
                                   "[ $DLS_RANK = 3 ] && kill -STOP $$; wait");
    wait_for_pids(8, pids);
    cr_assert_eq(wait_status(pid), 128 + SIGKILL);
    const char *text = text_of(log_path);
    cr_assert(strstr(text, "rank 2 was killed by signal 9 (SIGKILL); "
                           "stopping the other 3 ranks\n"), "%s", text);
    cr_assert_eq(strchr(text, '\n')[1], 0, "more than one line: %s", text);
    expect_gone(8, pids);
}

Test(comm, launch_returns_the_status_of_the_first_failure)
{
    cr_assert_eq(wait_status(launch(3, "[ $DLS_RANK = 1 ] && exit 3; exec sleep 60")), 3);
    cr_assert(strstr(text_of(log_path), "rank 1 ended with exit status 3; "
                                        "stopping the other 2 ranks\n"));
}

/* test interrupts */
Test(comm, launch_passes_an_interrupt_on_and_waits)
{
    options.grace_seconds = 30;     // as long as a busy machine may take
    pid_t pids[2], pid = launch(2, "trap 'echo bye >> $OUT; exit 0' INT; echo $$ >> $OUT;"
                                   "while :; do sleep 0.05; done");
    wait_for_pids(2, pids);
    kill(pid, SIGINT);
    cr_assert_eq(wait_status(pid), 128 + SIGINT);
    const char *bye = strstr(text_of(out_path), "bye\n");
    cr_assert(bye && strstr(bye + 1, "bye\n"), "both ranks had time to say goodbye");
    expect_gone(2, pids);
}

Test(comm, ranks_die_with_their_launcher)
{
    pid_t pids[3], pid = launch(3, "echo $$ >> $OUT; exec sleep 30");
    wait_for_pids(3, pids);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    expect_gone(3, pids);
}

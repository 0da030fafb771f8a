/* tests/cli/test_training.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls train and dls sample from outside: equal numbers on any ranks, a killed rank. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../vgpu/trace_check.h"
#include "program.h"

#define DLS "build/bin/dls"
#define TRAIN "train --config tests/cli/small.yaml"

/* read the losses of a run */
static int read_column(const char *dir, const char *key, double *out, int room)
{
    char path[512], mark[64];
    size_t size;
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    snprintf(mark, sizeof mark, "\"%s\":", key);
    char *text = read_whole(path, &size), *at = text;
    cr_assert(text, "%s is missing", path);
    int n = 0;
    while (n < room && (at = strstr(at, mark)))
        out[n++] = strtod(at += strlen(mark), NULL);
    free(text);
    return n;
}

static char *train_small(const char *environment, int ranks, const char *more)
{
    char *dir = fresh_directory("train");
    outcome o = run_program("%s " DLS " run -n %d -- " TRAIN " --output %s %s",
                            environment, ranks, dir, more);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    return dir;
}

static double largest_difference(const char *a, const char *b, int steps)
{
    double x[64], y[64], worst = 0;
    cr_assert_eq(read_column(a, "loss", x, 64), steps);
    cr_assert_eq(read_column(b, "loss", y, 64), steps);
    for (int i = 0; i < steps; i++)
        worst = fmax(worst, fabs(x[i] - y[i]) / fabs(x[i]));
    return worst;
}

/* test equal losses */
Test(cli, ranks_agree_on_the_losses)
{
    char *one = train_small("", 1, "--set train.micro_batch=12");
    char *two = train_small("", 2, ""), *four = train_small("", 4, "");
    cr_expect_lt(largest_difference(one, two, 20), 1e-5);
    cr_expect_lt(largest_difference(one, four, 20), 1e-5);
    char *f64 = train_small("", 1, "--set train.dtype=f64");
    char *three = train_small("", 3, "--set train.dtype=f64");
    cr_expect_lt(largest_difference(f64, three, 20), 1e-10);
    cr_expect_gt(largest_difference(one, f64, 20), 1e-10, "f64 is not f64");
    free(one), free(two), free(four), free(f64), free(three);
}

Test(cli, simt_and_host_kernels_agree, .timeout = 120)
{
    const char *three_steps = "--set train.steps=3 --set train.checkpoint_every=0";
    char path[512];
    int messages, waits;
    char *host = train_small("DLS_KERNELS=host", 2, three_steps);
    char *simt = train_small("DLS_KERNELS=simt", 2, three_steps);
    double difference = largest_difference(host, simt, 3), x[64], y[64];
    cr_expect_lt(difference, 1e-5);
    cr_assert_eq(read_column(host, "virtual_seconds", x, 64), 3);
    cr_assert_eq(read_column(simt, "virtual_seconds", y, 64), 3);
    cr_expect_arr_eq(x, y, 3 * sizeof *x, "%.12g s, %.12g s", x[2], y[2]);
    outcome o = run_program("cmp %s/trace.json %s/trace.json", host, simt);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    snprintf(path, sizeof path, "%s/trace.json", host);
    check_trace(path, &messages, &waits);
    cr_expect_gt(messages, 0);
    cr_expect_gt(waits, 0);
    free(host), free(simt);
}

/* test equal virtual times */
Test(cli, virtual_times_and_memory_are_the_same_in_every_run)
{
    char *a = train_small("DLS_SEED=1", 4, ""), *b = train_small("DLS_SEED=99", 4, "");
    double x[64], y[64];
    cr_assert_eq(read_column(a, "virtual_seconds", x, 64), 20);
    cr_assert_eq(read_column(b, "virtual_seconds", y, 64), 20);
    cr_expect_arr_eq(x, y, 20 * sizeof *x);
    cr_expect_gt(x[0], 0);
    const char *files[] = {"metrics.jsonl", "memory-rank-0.json", "memory-rank-3.json",
                           "checkpoint-00000020.dls", "trace.json", "timeline.svg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        outcome o = run_program("cmp %s/%s %s/%s", a, files[i], b, files[i]);
        cr_expect_eq(o.exit_code, 0, "%s", o.output);
    }
    free(a), free(b);
}

/* find the process of a rank */
static int has_rank(pid_t pid, pid_t parent, const char *rank)
{
    char path[64];
    size_t size = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    char *stat = read_whole(path, &size);
    char *after = stat ? strrchr(stat, ')') : NULL;
    int child = after && atoi(after + 4) == (int)parent;
    free(stat);
    if (!child)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    char *environment = read_whole(path, &size);
    int found = 0;
    for (size_t i = 0; environment && i < size; i += strlen(environment + i) + 1)
        found |= strcmp(environment + i, rank) == 0;
    free(environment);
    return found;
}

static pid_t find_rank(pid_t launcher, const char *rank)
{
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));)
        if (atoi(e->d_name) > 0 && has_rank(atoi(e->d_name), launcher, rank))
            found = atoi(e->d_name);
    closedir(proc);
    return found;
}

/* test a killed rank */
static pid_t start_endless(const char *dir, const char *log)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    dup2(fd, 1), dup2(fd, 2);
    execl(DLS, DLS, "run", "-n", "3", "--flight", "", "--", "train", "--config",
          "tests/cli/small.yaml", "--output", dir, "--set", "train.steps=100000",
          "--set", "train.evaluate_every=0", (char *)NULL);
    _exit(126);
}

static int file_exists(const char *dir, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void wait_for_step(const char *dir, const char *checkpoint)
{
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/%s", dir, checkpoint);
    snprintf(to, sizeof to, "%s/kept", dir);
    for (int i = 0; i < 60000; i++, usleep(500))
        if (link(from, to) == 0)
            return;
    cr_assert_fail("no %s after 30 s", checkpoint);
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Kills a rank and returns the launcher's exit status. */
static int kill_rank(pid_t launcher, const char *rank)
{
    int status = 0;
    pid_t victim = find_rank(launcher, rank);
    cr_assert_gt(victim, 0, "no process with %s", rank);
    double start = seconds_now();
    kill(victim, SIGKILL);
    waitpid(launcher, &status, 0);
    cr_expect_lt(seconds_now() - start, 30.0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Test(cli, a_killed_rank_ends_the_job_and_loses_nothing, .timeout = 120)
{
    char *calm = fresh_directory("calm"), *hurt = fresh_directory("hurt"), log[512];
    snprintf(log, sizeof log, "%s/log", hurt);
    pid_t a = start_endless(calm, "/dev/null");
    wait_for_step(calm, "checkpoint-00000060.dls");
    kill_rank(a, "DLS_RANK=0");

    pid_t b = start_endless(hurt, log);
    wait_for_step(hurt, "checkpoint-00000015.dls");
    cr_expect_neq(kill_rank(b, "DLS_RANK=1"), 0);
    size_t size;
    char *said = read_whole(log, &size), kept[512];
    cr_expect(strstr(said, "rank 1 was killed by signal 9 (SIGKILL)"), "%s", said);
    snprintf(kept, sizeof kept, "%s/kept", hurt);
    unlink(kept);
    cr_assert(!file_exists(hurt, "checkpoint-00000060.dls"), "it was killed too late");

    pid_t c = start_endless(hurt, log);
    wait_for_step(hurt, "checkpoint-00000060.dls");
    kill_rank(c, "DLS_RANK=2");
    char *resumed = read_whole(log, &size);
    cr_expect(strstr(resumed, "resuming after step"), "%s", resumed);
    outcome o = run_program("cmp %s/kept %s/kept", calm, hurt);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    free(calm), free(hurt), free(said), free(resumed);
}

/* test the messages of training */
static int count(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

Test(cli, a_mistake_in_the_configuration_is_told_once)
{
    outcome o = run_program(DLS " run -n 4 -- " TRAIN " --set train.stepz=3");
    cr_expect_eq(o.exit_code, 2);
    cr_expect_eq(count(o.output, "train.stepz"), 1, "%s", o.output);
    cr_expect(strstr(o.output, "train.steps"), "no suggestion in: %s", o.output);
    outcome none_at_all = run_program(DLS " run -n 4 -- " TRAIN
                                      " --set train.global_batch=0");
    cr_expect_eq(none_at_all.exit_code, 2);
    cr_expect_eq(count(none_at_all.output, "error: dls train"), 1, "%s",
                 none_at_all.output);
    outcome range = run_program(DLS " " TRAIN " --set train.beta1=1.5");
    cr_expect(range.exit_code == 2 && strstr(range.output, "train.beta1"), "%s",
              range.output);
    outcome none = run_program(DLS " train");
    cr_expect(none.exit_code == 2 && strstr(none.output, "--config"), "%s", none.output);
}

Test(cli, a_sample_is_reproducible_and_needs_a_checkpoint)
{
    char *dir = train_small("", 1, "--set train.steps=5");
    const char *sample = DLS " sample --checkpoint %s --prompt 'The ' --tokens 40"
                             " --seed %d";
    outcome a = run_program(sample, dir, 1), b = run_program(sample, dir, 1);
    outcome c = run_program(sample, dir, 2);
    cr_expect_eq(a.exit_code, 0, "%s", a.output);
    cr_expect_str_eq(a.output, b.output);
    cr_expect_str_neq(a.output, c.output);
    cr_expect_eq(strncmp(a.output, "The ", 4), 0);
    cr_expect_eq(strlen(a.output), 4 + 40 + 1);
    outcome bad = run_program(DLS " sample --checkpoint LICENSE");
    cr_expect(bad.exit_code == 2 && strstr(bad.output, "LICENSE"), "%s", bad.output);
    outcome empty = run_program(DLS " sample --checkpoint chapters");
    cr_expect(empty.exit_code == 2 && strstr(empty.output, "chapters"), "%s",
              empty.output);
    free(dir);
}

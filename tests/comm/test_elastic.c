/* tests/comm/test_elastic.c: from chapters/04-data-parallelism-faults-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls run --elastic: jobs that lose ranks and go on, and those that must not. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cli/program.h"
#include "comm/store.h"

#define DLS "build/bin/dls"
#define TRAIN_ALONE " train --config tests/cli/small.yaml --output "
#define TRAIN " --" TRAIN_ALONE

/* run a job with a fault */
static char *dir; // of the job that ran last

static outcome run_job(const char *environment, const char *options, const char *more)
{
    free(dir);
    dir = fresh_directory("elastic");
    return run_program("%s " DLS " run --flight %s/flight.json %s" TRAIN "%s %s",
                       environment, dir, options, dir, more);
}

static void expect_words(const outcome *o, const char *words)
{
    cr_expect(strstr(o->output, words), "no \"%s\" in:\n%s", words, o->output);
}

/* compare two trainings */
/* The losses by step; each step must be there once, in order. */
static void read_losses(const char *from, double losses[20])
{
    char path[512];
    size_t size;
    int steps = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", from);
    char *text = read_whole(path, &size);
    cr_assert(text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        int step;
        double loss;
        if (sscanf(line, "{\"step\":%d,\"loss\":%lf", &step, &loss) != 2)
            continue;
        cr_assert_eq(step, ++steps, "in %s", path);
        losses[step - 1] = loss;
    }
    cr_assert_eq(steps, 20);
    free(text);
}

static void expect_same_losses(const char *calm, const char *hurt)
{
    double a[20], b[20];
    read_losses(calm, a);
    read_losses(hurt, b);
    for (int i = 0; i < 20; i++)
        cr_expect_lt(fabs(a[i] - b[i]), 1e-5 * fabs(a[i]), "step %d: %.9g and %.9g",
                     i + 1, a[i], b[i]);
    outcome o = run_program("ls %s", hurt);
    int whole = 0;
    for (const char *at = o.output; (at = strstr(at, "checkpoint-")) != NULL; at++)
        whole++;
    cr_expect(whole == 2 && !strstr(o.output, "dls.part"), "not two whole checkpoints "
              "and no torn one: %s", o.output);
}

/* test that a job goes on */
static char *calm_run(void)
{
    outcome o = run_job("", "-n 4", "");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    return strdup(dir);
}

Test(comm, an_elastic_job_loses_a_rank_and_nothing_else, .timeout = 120)
{
    char *calm = calm_run();
    const char *faults[] = {"DLS_FAULT=kill:2:60", "DLS_WATCHDOG=3 DLS_FAULT=stop:0:75"};
    for (int i = 0; i < 2; i++) {
        outcome o = run_job(faults[i], "-n 4 --elastic", "");
        cr_expect_eq(o.exit_code, 0, "%s: %s", faults[i], o.output);
        expect_words(&o, "restart 1 of at most 3, with 3 ranks");
        expect_words(&o, "resuming after step ");
        expect_same_losses(calm, dir);
    }
    free(calm);
}

Test(comm, an_elastic_job_may_lose_ranks_again_and_again, .timeout = 120)
{
    char *calm = calm_run(), path[512];
    free(dir);
    dir = fresh_directory("elastic");
    snprintf(path, sizeof path, "%s/rank.sh", dir);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f, "if [ ${DLS_RESTART:-0} -lt 3 ]; then unset DLS_RESTART; "
               "export DLS_FAULT=kill:0:30; fi\nexec " DLS TRAIN_ALONE
               "%s --set resume=auto\n", dir);
    fclose(f);
    outcome o = run_program(DLS " run --flight '' -n 4 --elastic -- sh %s", path);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    expect_words(&o, "restart 3 of at most 3, with 1 rank\n");
    expect_same_losses(calm, dir);
    free(calm);
}

/* test that a job does not go on */
Test(comm, a_job_ends_when_it_should_not_go_on, .timeout = 120)
{
    outcome o = run_job("DLS_FAULT=kill:1:30", "-n 2", "");
    cr_expect_eq(o.exit_code, 137);
    cr_expect_null(strstr(o.output, "restart"));
    o = run_job("DLS_FAULT=kill:1:30", "-n 4 --elastic --min-ranks 4", "");
    cr_expect_eq(o.exit_code, 137);
    expect_words(&o, "no restart: 3 ranks are left, expected at least 4");
    o = run_job("DLS_FAULT=kill:1:30", "-n 2 --elastic --max-restarts 0", "");
    cr_expect_eq(o.exit_code, 137);
    expect_words(&o, "no restart: 0 of 0 are used");
    o = run_job("", "-n 2 --elastic", "--set train.stepz=1");
    cr_expect_eq(o.exit_code, 2);
    cr_expect_null(strstr(o.output, "restart"));
    o = run_program(DLS " run -n 2 --elastic --min-ranks 0 -- true");
    cr_expect_eq(o.exit_code, 2);
    expect_words(&o, "--min-ranks: expected 1 or more");
    o = run_program(DLS " run -n 2 --elastic --limit 1 -- sleep 9");
    cr_expect_eq(o.exit_code, 124);
}

/* test the record of a job */
Test(comm, the_record_of_a_killed_rank_survives_it, .timeout = 120)
{
    outcome o = run_job("DLS_FAULT=kill:2:60", "-n 4", "");
    cr_expect_eq(o.exit_code, 137);
    expect_words(&o, "rank 2 was killed by signal 9 (SIGKILL); stopping the other 3");
    expect_words(&o, "tells the ranks' last operations");
    o = run_program(DLS " flight %s/flight.json", dir);
    cr_expect_eq(o.exit_code, 0);
    expect_words(&o, "\nrank 2 has not ");
    expect_words(&o, "was killed by signal 9 (SIGKILL)");
    o = run_program(DLS " flight --json %s/flight.json", dir);
    expect_words(&o, "\"rank\": 2");
    expect_words(&o, "\"calls\": 59");
    o = run_program(DLS " flight %s/no.json", dir);
    cr_expect_eq(o.exit_code, 1);
    o = run_program(DLS " flight tests/cli/small.yaml");
    cr_expect_eq(o.exit_code, 2);
    o = run_program("ls -a %s | grep -c part", dir);
    cr_expect_str_eq(o.output, "0\n");
    o = run_job("", "-n 2", "--set train.stepz=1");
    o = run_program("ls %s", dir);
    cr_expect_str_eq(o.output, "", "nothing was called, nothing to record");
}

/* test faults of a training */
typedef struct ordered { const char *fault, *words[3]; } ordered;

static const ordered faults_of_ranks[] = {
    {"kill:2:60", {"rank 2 was killed by signal 9"}},
    {"stop:2:60", {"rank 2 has not called", "all-reduce", "nothing has moved"}},
    {"skip:2:60", {"rank 2 calls all-reduce of", ".md:", "(collective "}},
    {"count:2:60", {"rank 2 calls all-reduce of 4095 f32", "but rank", "(collective "}},
    {"type:2:60", {"rank 2 calls all-reduce of 4096 i32", "but rank", "(collective "}}};

static void expect_clean_end(const ordered *f, const char *calm, const char *mode)
{
    char environment[80];
    snprintf(environment, sizeof environment, "DLS_WATCHDOG=3 DLS_FAULT=%s", f->fault);
    outcome o = run_job(environment, "-n 4 --limit 60", mode);
    cr_expect(o.exit_code != 0 && o.exit_code != 124, "%s: status %d", f->fault,
              o.exit_code);
    for (int i = 0; i < 3 && f->words[i]; i++)
        cr_expect(strstr(o.output, f->words[i]), "%s: no \"%s\" in:\n%s", f->fault,
                  f->words[i], o.output);
    o = run_program(DLS " run -n 4 --limit 60" TRAIN "%s %s", dir, mode);
    cr_expect_eq(o.exit_code, 0, "%s: %s", f->fault, o.output);
    expect_words(&o, "resuming after step ");
    expect_same_losses(calm, dir);
}

static void expect_clean_ends(int from, int to)
{
    char *calm = calm_run();
    for (int i = from; i < to; i++)
        expect_clean_end(&faults_of_ranks[i], calm, "");
    free(calm);
}

Test(comm, a_training_with_a_lost_rank_loses_nothing, .timeout = 120)
{
    expect_clean_ends(0, 3);
}

Test(comm, a_training_with_a_mistake_ends_and_loses_nothing, .timeout = 120)
{
    expect_clean_ends(3, 5);
}

Test(comm, a_sharded_training_with_a_fault_loses_nothing, .timeout = 120)
{
    const ordered skip = {"skip:2:150", {"rank 2 calls ", "but rank", "(collective"}};
    char *calm = calm_run();
    expect_clean_end(&skip, calm, "--set data_parallel=zero3");
    free(calm);
}

/* test a training of another launcher */
static const char launcher[] =
    "export WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 DLS_RENDEZVOUS=file://$PWD/$2/store\n"
    "export DLS_FAULT=$1 DLS_WATCHDOG=2\n"
    "for r in 0 1 2; do RANK=$r LOCAL_RANK=$r " DLS TRAIN_ALONE "$2 & pids=\"$pids $!\"\n"
    "done; set -- $pids; wait $1; a=$?; wait $3; b=$?\n"
    "kill -KILL $2; wait $2; echo \"status $a $b\"\n";

static outcome run_without_launcher(const char *fault)
{
    char path[512];
    free(dir);
    dir = fresh_directory("elastic");
    snprintf(path, sizeof path, "%s/launcher.sh", dir);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(launcher, f);
    fclose(f);
    return run_program("timeout 60 sh %s %s %s 2>&1", path, fault, dir);
}

Test(comm, a_training_of_another_launcher_ends_and_loses_nothing, .timeout = 120)
{
    const ordered faults[] = {
        {"kill:1:60", {"rank 1 is gone: its connection has ended", "(collective "}},
        {"stop:1:60", {"no progress for 2 s", "(collective ", "for rank 1"}}};
    char *calm = calm_run();
    for (int i = 0; i < 2; i++) {
        outcome o = run_without_launcher(faults[i].fault);
        expect_words(&o, "status 1 1\n");
        for (int k = 0; k < 3 && faults[i].words[k]; k++)
            expect_words(&o, faults[i].words[k]);
        o = run_program(DLS " run -n 3 --limit 60" TRAIN "%s", dir);
        expect_words(&o, "resuming after step ");
        expect_same_losses(calm, dir);
    }
    free(calm);
}

/* test a training without its store */
/* Arguments: the store's port, also in hexadecimal, the folder, a fault, ranks. */
static const char start[] =
    "export WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 DLS_RENDEZVOUS=tcp://127.0.0.1:$1\n"
    "export DLS_FAULT=$4 DLS_WATCHDOG=15; port=$2\n"
    "sockets() { awk -v s=$1 '$2 ~ /:'$port'$/ && $4 == s { n++ } END { print n + 0 }' "
    "/proc/net/tcp; }; listening=0A connected=01\n"
    "for r in $5; do RANK=$r LOCAL_RANK=$r " DLS TRAIN_ALONE "$3 & pids=\"$pids $!\"\n"
    "done; set -- $pids\n";
static const char look[] =
    "until grep -q '^State:.T' /proc/$2/status; do sleep 0.05; done\n"
    "echo \"store $(sockets $listening) $(sockets $connected)\"; kill -CONT $2\n";
static const char wait_for_all[] =
    "for p; do wait $p; ended=\"$ended $?\"; done; echo \"status$ended\"\n";
static const char kill_the_host[] =
    "until [ $(sockets $connected) = 2 ]; do sleep 0.05; done\n"
    "echo \"store $(sockets $listening) $(sockets $connected)\"; kill -KILL $1\n";

/* A port that was free a moment ago. */
static int place_to_meet(void)
{
    dls_store *s;
    cr_assert_eq(dls_store_open("tcp://127.0.0.1:0", 1, 5, &s), DLS_OK);
    int port = atoi(strrchr(dls_store_url(s), ':') + 1);
    dls_store_close(s);
    return port;
}

static outcome meet_and_train(const char *fault, const char *ranks, const char *then)
{
    char path[512];
    int port = place_to_meet();
    snprintf(path, sizeof path, "%s/meet.sh", dir);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f, "%s%s%s", start, then, wait_for_all);
    fclose(f);
    return run_program("timeout 60 sh %s %d %04X %s '%s' '%s' 2>&1", path, port, port,
                       dir, fault, ranks);
}

Test(comm, a_training_does_not_need_its_store_after_the_meeting, .timeout = 120)
{
    char *calm = calm_run();
    free(dir);
    dir = fresh_directory("elastic");
    outcome o = meet_and_train("stop:1:60", "0 1 2", look);
    expect_words(&o, "store 0 0\n");
    expect_words(&o, "status 0 0 0\n");
    expect_same_losses(calm, dir);
    free(calm);
}

static int errors_in(const outcome *o)
{
    int n = 0;
    for (const char *at = o->output; (at = strstr(at, "error: ")) != NULL; at++)
        n++;
    return n;
}

Test(comm, a_training_whose_store_vanishes_ends_and_loses_nothing, .timeout = 120)
{
    char *calm = calm_run();
    free(dir);
    dir = fresh_directory("elastic");
    outcome o = meet_and_train("kill:0:60", "0 1 2", "");
    expect_words(&o, "rank 0 is gone: its connection has ended");
    expect_words(&o, "status 137 1 1\n");
    cr_expect_eq(errors_in(&o), 2, "a line of each survivor: %s", o.output);
    o = meet_and_train("", "0 1", kill_the_host);
    expect_words(&o, "store 1 2\n");
    expect_words(&o, "error: ");
    expect_words(&o, "the store at tcp://127.0.0.1:");
    expect_words(&o, "is gone: rank 0");
    expect_words(&o, "status 137 1\n");
    cr_expect_eq(errors_in(&o), 1, "%s", o.output);
    o = run_program(DLS " run -n 3 --limit 60" TRAIN "%s", dir);
    expect_words(&o, "resuming after step ");
    expect_same_losses(calm, dir);
    free(calm);
}

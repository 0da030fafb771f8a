/* tests/train/run.h: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A small training run on forked ranks, in a temporary directory. */
#ifndef TEST_TRAIN_RUN_H
#define TEST_TRAIN_RUN_H
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "comm/launch.h"
#include "tensor/bf16.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

/* describe a test run */
#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static char root[] = "/tmp/dls-train-XXXXXX";

static const char settings[] =
    "model: {vocabulary: 256, context: 16, layers: 2, heads: 2, channels: 16}\n"
    "data: {corpus: none, validation_fraction: 0.2}\n"
    "train: {steps: 20, global_batch: 12, micro_batch: 2, learning_rate: 0.003,\n"
    "        warmup_steps: 5, evaluate_every: 10, evaluate_windows: 7,\n"
    "        log_every: 4, checkpoint_every: 10}\n"
    "ddp: {bucket_bytes: 8192, first_bucket_bytes: 2048}\n"
    "resume: auto\n";

typedef struct run {
    const char *directory;      /* below root */
    const char *changes[14];     /* "train.steps=10": NULL ends */
    int die_at;                 /* rank 1 is killed after this step; 0: never */
} run;

static int traced;              /* 1: the first two steps of each run are */

/* make the test corpus */
static void make_corpus(void)
{
    static const char *const words[] = {"the ", "ring ", "rank ", "waits ", "for ",
                                        "gradient ", "bucket ", "and ", "sends.\n"};
    static char text[20000];
    char path[256];
    size_t n = 0;
    for (int i = 0; n + 16 < sizeof text; i++)
        n += (size_t)sprintf(text + n, "%s", words[dls_rng_u32(4, 4, i) % 9]);
    cr_assert_not_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/corpus.txt", root);
    OK(dls_file_write(path, text, n));
    dls_log_set_level(DLS_LOG_NONE);
}

static void remove_root(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    cr_assert_eq(system(command), 0);
}

/* run a rank of the test */
static dls_status load_settings(const run *r, dls_config **cfg, dls_train_config *c)
{
    char text[256];
    DLS_TRY(dls_config_parse("test.yaml", settings, sizeof settings - 1, cfg));
    snprintf(text, sizeof text, "data.corpus=%s/corpus.txt", root);
    DLS_TRY(dls_config_override(*cfg, text));
    snprintf(text, sizeof text, "output=%s/%s", root, r->directory);
    DLS_TRY(dls_config_override(*cfg, text));
    for (int i = 0; r->changes[i]; i++)
        DLS_TRY(dls_config_override(*cfg, r->changes[i]));
    DLS_TRY(dls_train_config_load(*cfg, c));
    c->trace_from = traced;
    c->trace_to = 2 * traced;
    return DLS_OK;
}

static dls_status train_and_die(const dls_train_config *c, dls_comm *comm, int at)
{
    dls_trainer *t;
    DLS_TRY(dls_trainer_create(&t, c, comm));
    while (t->step < c->steps) {
        DLS_TRY(dls_trainer_step(t));
        if (t->step == at && t->rank == 1)
            kill(getpid(), SIGKILL);
        if (t->step % c->checkpoint_every == 0)
            DLS_TRY(dls_trainer_save(t));
        t->meter.n = 0;
    }
    DLS_TRY(dls_ctx_sync(&t->ctx));
    dls_trainer_free(t);
    return DLS_OK;
}

static dls_status train_rank(int rank, void *arg)
{
    const run *r = arg;
    dls_config *cfg;
    dls_train_config c;
    dls_comm *comm;
    (void)rank;
    if (!freopen("/dev/null", "w", stdout))
        return DLS_FAIL(DLS_ERR_IO, "cannot silence the progress");
    DLS_TRY(load_settings(r, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    dls_status s = r->die_at ? train_and_die(&c, comm, r->die_at)
                             : dls_train_run(&c, comm);
    if (s == DLS_OK)
        dls_comm_destroy(comm);
    dls_config_free(cfg);
    return s;
}

/* read the numbers of a run */
/* The numbers behind a key in a run's metrics; returns how many. */
static inline int numbers_of(const char *directory, const char *key,
                             double *numbers)
{
    char path[256], *text;
    size_t size;
    int n = 0;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", root, directory);
    OK(dls_file_read(path, &text, &size));
    for (char *at = text; (at = strstr(at, key)) != NULL;)
        numbers[n++] = strtod(at += strlen(key), NULL);
    free(text);
    return n;
}
#endif

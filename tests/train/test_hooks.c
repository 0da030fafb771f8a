/* tests/train/test_hooks.c: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Training with communication hooks, against one rank and against other seeds. */
#include "run.h"

#include "train/replicated.h"

/* fetch the losses of a hooked run */
enum { STEPS = 20, LONG = 60 };

static void losses_of(int ranks, run r, int steps, double *losses)
{
    char path[512], *text;
    size_t size;
    int n = 0;
    OK(dls_run_ranks(ranks, train_rank, &r));
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", root, r.directory);
    OK(dls_file_read(path, &text, &size));
    for (char *at = text; n < steps && (at = strstr(at, "\"loss\":")) != NULL;)
        losses[n++] = strtod(at += 7, NULL);
    free(text);
    cr_assert_eq(n, steps);
}

/* test lossless training */
static void losses_within(double share, int ranks, run r, const double want[STEPS])
{
    double losses[STEPS];
    losses_of(ranks, r, STEPS, losses);
    for (int i = 0; i < STEPS; i++)
        cr_assert(fabs(losses[i] - want[i]) <= share * want[i],
                  "%s, step %d: %.17g, on one rank %.17g", r.directory, i + 1, losses[i],
                  want[i]);
}

static void same_losses(int ranks, run r, const double want[STEPS])
{
    losses_within(1e-5, ranks, r, want);
}

Test(train_hooks, lossless_hooks_train_like_one_rank)
{
    double want[STEPS];
    make_corpus();
    losses_of(1, (run){"one", {NULL}, 0}, STEPS, want);
    same_losses(3, (run){"plain", {NULL}, 0}, want);
    same_losses(3, (run){"wide", {"ddp.reduce_dtype=f64"}, 0}, want);
    same_losses(3, (run){"hard", {"ddp.find_unused=true", "ddp.reorder=true"}, 0}, want);
    same_losses(2, (run){"all", {"ddp.hook=top_k", "ddp.keep=1"}, 0}, want);
    remove_root();
}

Test(train_hooks, a_batch_smaller_than_the_world)
{
    double want[STEPS];
    make_corpus();
    losses_of(1, (run){"one", {"train.global_batch=2"}, 0}, STEPS, want);
    same_losses(3, (run){"three", {"train.global_batch=2"}, 0}, want);
    remove_root();
}

/* test the choice of rows */
Test(train_hooks, a_tied_embedding_in_two_parts_trains_like_one_rank)
{
    double want[STEPS];
    const char *const how[] = {"ddp.rows=always", "ddp.rows=never", "ddp.rows=auto"};
    make_corpus();
    losses_of(1, (run){"one", {"train.dtype=f64"}, 0}, STEPS, want);
    for (int i = 0; i < 3; i++)
        losses_within(1e-10, 3, (run){how[i], {"train.dtype=f64", how[i]}, 0}, want);
    const char *const few[] = {"train.dtype=f64", "train.global_batch=2", how[0]};
    losses_of(1, (run){"two", {few[0], few[1]}, 0}, STEPS, want);
    losses_within(1e-10, 3, (run){"few", {few[0], few[1], few[2]}, 0}, want);
    remove_root();
}

static int is_split(int world, const char *batch, const char *micro, const char *more)
{
    run r = {"run", {batch, micro, more}, 0};
    dls_config *cfg;
    dls_train_config c;
    OK(load_settings(&r, &cfg, &c));
    dls_train_place place;
    OK(dls_train_place_of(&c, 0, world, &place));
    int split = dls_replicated_options(&c, &place).rows_of;
    dls_config_free(cfg);
    return split;
}

Test(train_hooks, rows_are_split_when_the_tokens_are_fewer)
{
    const char *sixteen = "train.global_batch=16", *eighteen = "train.global_batch=18";
    const char *nine = "train.micro_batch=9";
    make_corpus();
    cr_expect(is_split(2, sixteen, "train.micro_batch=8", NULL));
    cr_expect(!is_split(1, sixteen, "train.micro_batch=8", NULL), "nothing is sent");
    cr_expect(!is_split(2, eighteen, nine, NULL));
    cr_expect(is_split(2, "train.global_batch=24", nine, NULL), "the last passes: 3");
    cr_expect(is_split(2, eighteen, nine, "ddp.rows=always"));
    cr_expect(!is_split(2, sixteen, nine, "ddp.rows=never"));
    cr_expect(!is_split(2, sixteen, nine, "ddp.hook=bf16"));
    cr_expect(!is_split(2, sixteen, nine, "ddp.overlap=false"));
    cr_expect(!is_split(2, sixteen, nine, "model.tied_head=no"));
    remove_root();
}

/* test lossy training */
/* A run of LONG steps on two ranks: the mean of the ten losses up to step `last`. */
static double mean_before(int last, const char *const settings[3])
{
    run r = {"run", {"train.steps=60", "resume=never", settings[0], settings[1],
                     settings[2]}, 0};
    double losses[LONG], sum = 0;
    losses_of(2, r, LONG, losses);
    for (int i = last - 10; i < last; i++)
        sum += losses[i] / 10;
    return sum;
}

static void band_of_seeds(double *least, double *most)
{
    const char *const seeds[][3] = {{"train.seed=1"}, {"train.seed=2"}, {"train.seed=3"}};
    *least = INFINITY;
    *most = -INFINITY;
    for (int i = 0; i < 3; i++) {
        double end = mean_before(LONG, seeds[i]);
        *least = fmin(*least, end);
        *most = fmax(*most, end);
    }
    double length = *most - *least;
    *least -= length;
    *most += length;
}

static void expect_end(const char *const settings[3], double least, double most)
{
    double end = mean_before(LONG, settings);
    cr_expect(end >= least && end <= most, "%s %s: ends at %.4f, band %.4f to %.4f",
              settings[0], settings[1] ? settings[1] : "", end, least, most);
}

static void expect_top_k(const char *keep, const char *ramp, double most)
{
    char rate[64], share[32];
    double k = strtod(keep, NULL);
    snprintf(rate, sizeof rate, "train.learning_rate=%.6f", 0.003 / sqrt(k));
    snprintf(share, sizeof share, "ddp.keep=%s", keep);
    double least = mean_before(LONG, (const char *const[3]){rate});
    run r = {"run", {"train.steps=60", "resume=never", "ddp.hook=top_k", rate, share,
                     ramp}, 0};
    double losses[LONG], end = 0;
    losses_of(2, r, LONG, losses);
    for (int i = LONG - 10; i < LONG; i++)
        end += losses[i] / 10;
    cr_expect(end >= least && end <= most, "keep %s: ends at %.4f, band %.4f to %.4f",
              keep, end, least, most);
}

Test(train_hooks, lossy_hooks_end_within_their_bands)
{
    const char *const prompt[][3] = {
        {"ddp.hook=bf16"}, {"ddp.hook=fp16"}, {"ddp.hook=powersgd", "ddp.rank=4"},
        {"ddp.hook=local_sgd", "ddp.period=2"}, {"ddp.hook=local_sgd", "ddp.period=5"}};
    const char *const one_bit[3] = {"ddp.hook=one_bit_adam", "ddp.warmup_steps=30"};
    const char *const plain[3] = {"train.seed=1"};
    double least, most;
    make_corpus();
    band_of_seeds(&least, &most);
    for (size_t i = 0; i < sizeof prompt / sizeof *prompt; i++)
        expect_end(prompt[i], least, most);
    expect_top_k("0.25", NULL, most);
    expect_top_k("0.1", NULL, most);
    expect_top_k("0.03", "ddp.ramp_steps=20", most);
    double earlier = mean_before(LONG * 3 / 4, plain);
    cr_assert(earlier < mean_before(30, plain));
    expect_end(one_bit, least, earlier);
    remove_root();
}

/* test the state of hooks */
static void remove_last(const char *directory)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r %s/%s/checkpoint-00000020.*", root,
             directory);
    cr_assert_eq(system(command), 0);
}

static void expect_same_run(const char *a, const char *b)
{
    char command[512];
    snprintf(command, sizeof command, "cd %s && diff -r -x 'memory*' %s %s", root, a, b);
    cr_assert_eq(system(command), 0, "%s and %s differ", a, b);
}


static const char *const keepers[][3] = {
    {"ddp.hook=top_k", "ddp.keep=0.1"},
    {"ddp.hook=top_k", "ddp.keep=0.1", "ddp.warmup_steps=8"},
    {"ddp.hook=powersgd", "ddp.rank=2", "train.dtype=f64"},
    {"ddp.hook=one_bit_adam", "ddp.warmup_steps=6"},
    {"ddp.hook=one_bit_adam", "ddp.warmup_steps=13"},
    {"ddp.hook=local_sgd", "ddp.period=5"},
    {"ddp.hook=bf16"}};

Test(train_hooks, a_resumed_run_is_the_run_that_was_not_stopped)
{
    make_corpus();
    for (size_t i = 0; i < sizeof keepers / sizeof *keepers; i++) {
        char names[2][16];
        for (int k = 0; k < 2; k++) {
            snprintf(names[k], sizeof names[k], "%s-%zu", k ? "again" : "once", i);
            run r = {names[k], {keepers[i][0], keepers[i][1], keepers[i][2]}, 0};
            OK(dls_run_ranks(3, train_rank, &r));
            if (k == 1)
                remove_last(names[k]);
            if (k == 1)
                OK(dls_run_ranks(3, train_rank, &r));
        }
        expect_same_run(names[0], names[1]);
    }
    remove_root();
}

Test(train_hooks, hooked_runs_continue_on_fewer_ranks)
{
    make_corpus();
    for (size_t i = 0; i < sizeof keepers / sizeof *keepers; i++) {
        double losses[STEPS];
        char name[16];
        snprintf(name, sizeof name, "run-%zu", i);
        run r = {name, {keepers[i][0], keepers[i][1], keepers[i][2]}, 13};
        cr_assert_neq(dls_run_ranks(3, train_rank, &r), DLS_OK);
        r.die_at = 0;
        losses_of(2, r, 10, losses);
        for (int k = 0; k < 10; k++)
            cr_assert(losses[k] > 0 && losses[k] < log(256), "%s %s: %g",
                      keepers[i][0], keepers[i][1], losses[k]);
    }
    remove_root();
}

/* tests/train/test_sample.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing tokens, and text from a trained model. */
#include "run.h"
#include "train/sample.h"

/* test the draw */
Test(train, a_draw_follows_the_distribution)
{
    const double logits[4] = {log(0.1), log(0.4), log(0.2), log(0.3)};
    int counts[4] = {0}, top[4] = {0};
    for (int i = 0; i < 10000; i++) {
        double u = dls_rng_uniform(1, 2, i);
        counts[dls_sample_token(logits, 4, 1, 0, u)]++;
        top[dls_sample_token(logits, 4, 1, 2, u)]++;
    }
    for (int i = 0; i < 4; i++)
        cr_assert(fabs(counts[i] / 1e4 - exp(logits[i])) < 0.02, "%d: %d", i, counts[i]);
    cr_assert_eq(top[0] + top[2], 0);
    cr_assert(fabs(top[1] / 1e4 - 4.0 / 7) < 0.02);
}

Test(train, a_cold_draw_takes_the_likeliest)
{
    const double logits[4] = {1, 3, 3, 2}, far[2] = {0, 800};
    cr_assert_eq(dls_sample_token(logits, 4, 0, 0, 0.999), 1, "ties go to the lower");
    cr_assert_eq(dls_sample_token(logits, 4, 0.01, 1, 0.999), 1);
    cr_assert_eq(dls_sample_token(far, 2, 0.001, 0, 1e-9), 1, "no overflow");
    cr_assert_eq(dls_sample_token(logits, 4, 1, 0, 1 - 1e-17), 0, "the last in the list");
}

/* test the text */
typedef struct spoken { char text[64]; int n; } spoken;

static dls_status hear(void *self, int token)
{
    spoken *s = self;
    s->text[s->n++] = (char)token;
    return DLS_OK;
}

static dls_status speak_twice(int rank, void *arg)
{
    (void)rank;
    spoken a = {.n = 0}, b = {.n = 0}, c = {.n = 0};
    dls_sample_options o = {arg, "the ", 40, 0.8, 20, 5, hear, &a};
    DLS_TRY(dls_sample_run(&o));
    o.self = &b;
    DLS_TRY(dls_sample_run(&o));
    o.self = &c;
    o.seed = 6;
    DLS_TRY(dls_sample_run(&o));
    if (a.n != 40 || memcmp(a.text, b.text, 40) != 0 || memcmp(a.text, c.text, 40) == 0)
        return DLS_FAIL(DLS_ERR_STATE, "the same seed must give the same text");
    o.temperature = -1;
    if (dls_sample_run(&o) != DLS_ERR_INPUT)
        return DLS_FAIL(DLS_ERR_STATE, "a negative temperature was accepted");
    return DLS_OK;
}

Test(train, a_seed_gives_its_text, .init = make_corpus, .fini = remove_root)
{
    char directory[256];
    run r = {"speech", {NULL}, 0};
    OK(dls_run_ranks(1, train_rank, &r));
    snprintf(directory, sizeof directory, "%s/speech", root);
    OK(dls_run_ranks(1, speak_twice, directory));
    snprintf(directory, sizeof directory, "%s", root);
    cr_assert_eq(dls_run_ranks(1, speak_twice, directory), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "no checkpoint in this directory"));
}

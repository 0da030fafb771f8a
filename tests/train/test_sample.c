/* tests/train/test_sample.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Text from a trained model and from a directory. */
#include "../base/expect.h"
#include "model/generate.h"
#include "model/hf.h"
#include "run.h"
#include "train/sample.h"

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
    dls_sample_options o = {.checkpoint = arg, .prompt = "the ", .tokens = 40, .seed = 5,
                            .draw = {0.8, 20, 0.95, 1.1}, .emit = hear, .self = &a};
    DLS_TRY(dls_sample_run(&o));
    o.self = &b;
    DLS_TRY(dls_sample_run(&o));
    o.self = &c;
    o.seed = 6;
    DLS_TRY(dls_sample_run(&o));
    if (a.n != 40 || memcmp(a.text, b.text, 40) != 0 || memcmp(a.text, c.text, 40) == 0)
        return DLS_FAIL(DLS_ERR_STATE, "the same seed must give the same text");
    o.draw.temperature = -1;
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

static dls_status speak(int rank, void *arg)
{
    const char *const *directories = arg;
    spoken said[2] = {{.n = 0}, {.n = 0}};
    (void)rank;
    for (int i = 0; i < 2; i++) {
        dls_sample_options o = {.checkpoint = directories[i], .prompt = "the ",
                                .tokens = 40, .seed = 5, .draw = {0.8, 20, 0.95, 1.1},
                                .emit = hear, .self = &said[i]};
        DLS_TRY(dls_sample_run(&o));
    }
    if (said[0].n != 40 || memcmp(said[0].text, said[1].text, 40) != 0)
        return DLS_FAIL(DLS_ERR_STATE, "a whole checkpoint and a sharded one differ");
    return DLS_OK;
}

Test(train, a_sharded_run_is_sampled, .init = make_corpus, .fini = remove_root)
{
    char paths[2][256];
    const char *directories[2] = {paths[0], paths[1]};
    run whole = {"whole", {"train.clip=0"}, 0}, cut = whole;
    cut.directory = "cut";
    cut.changes[1] = "data_parallel=zero1";
    OK(dls_run_ranks(1, train_rank, &whole));
    OK(dls_run_ranks(1, train_rank, &cut));
    snprintf(paths[0], sizeof paths[0], "%s/whole", root);
    snprintf(paths[1], sizeof paths[1], "%s/cut", root);
    OK(dls_run_ranks(1, speak, directories));
}

/* test a sampled directory */
static dls_status keep(void *self, int token)
{
    spoken *s = self;
    s->text[s->n++] = (char)(token % 128);
    return DLS_OK;
}

static dls_status keep_first(void *self, int sequence, int token)
{
    (void)sequence;
    return keep(self, token);
}

static void draw_directly(dls_transformer *t, spoken *to, const dls_draw *draw)
{
    dls_generator *g;
    const int prompt[3] = {300, 7, 12};
    const dls_generate_options o = {.draw = *draw, .seed = 9, .tokens = 40,
                                    .slides = 1, .emit = keep_first, .self = to};
    OK(dls_generator_create(&g, t, 1));
    OK(dls_generator_run(g, &(dls_prompt){prompt, 3, 0}, 1, &o));
    dls_generator_free(g);
}

static dls_status sample_directory(int rank, void *arg)
{
    (void)rank;
    dls_ctx ctx;
    dls_transformer *t;
    spoken a = {.n = 0}, b = {.n = 0};
    dls_hf_config c = {.bos = -1, .model = dls_transformer_llama(301, 20, 1, 2, 1, 8,
                                                                 12)};
    dls_sample_options o = {.model = arg, .dtype = DLS_F64, .prompt = "300, 7 12",
                            .ids = 1, .tokens = 40, .draw = {1, 0, 1, 1}, .seed = 9,
                            .emit = keep, .self = &a};
    OK(dls_ctx_create(&ctx, 0, DLS_F64));
    OK(dls_transformer_create(&t, &ctx, &c.model, 1, 20));
    OK(dls_params_initialise(&t->params, 1));
    OK(dls_hf_save(arg, &c, &t->params, 0));
    draw_directly(t, &b, &o.draw);
    dls_transformer_free(t);
    dls_ctx_destroy(&ctx);
    OK(dls_sample_run(&o));
    cr_assert(a.n == 40 && memcmp(a.text, b.text, 40) == 0);
    o.prompt = "300 x";
    EXPECT_ERROR(dls_sample_run(&o), DLS_ERR_INPUT,
                 "prompt: expected token numbers, got \"x\"");
    o.ids = 0;
    EXPECT_ERROR(dls_sample_run(&o), DLS_ERR_INPUT, "prompt: a vocabulary of 301 is not "
                 "one of bytes; token numbers are expected (--ids)");
    return DLS_OK;
}

Test(train, a_directory_is_sampled, .init = make_corpus, .fini = remove_root)
{
    char directory[256];
    snprintf(directory, sizeof directory, "%s/hf", root);
    OK(dls_run_ranks(1, sample_directory, directory));
}

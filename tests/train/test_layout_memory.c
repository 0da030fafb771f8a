/* tests/train/test_layout_memory.c: from chapters/07-together-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What was predicted for a rank of a layout is what the virtual device has counted. */
#include "run.h"

/* read the account of a rank */
static const char *const purposes[] = {"parameters", "gradients", "optimizer",
                                       "activations", "communication"};

/* Predicted and peak of each purpose, which must be the same; returns their sum. */
static size_t check_rank(const run *r, int rank, const char *what)
{
    char path[256], key[32], *text;
    size_t size, sum = 0, want, is;
    snprintf(path, sizeof path, "%s/%s/memory-rank-%d.json", root, r->directory, rank);
    OK(dls_file_read(path, &text, &size));
    for (int k = 0; k < 5; k++) {
        snprintf(key, sizeof key, "\"%s\":", purposes[k]);
        const char *at = strstr(text, key);
        cr_assert_not_null(at);
        cr_assert_eq(sscanf(at + strlen(key), "{\"predicted\":%zu,\"current\":%*u,"
                            "\"peak\":%zu", &want, &is), 2);
        cr_assert_eq(want, is, "%s, rank %d: %s %zu, predicted %zu", what, rank,
                     purposes[k], is, want);
        sum += is;
    }
    free(text);
    return sum;
}

static void weigh(int ranks, const run *r)
{
    char what[512] = "";
    run one = *r;
    for (int i = 0; r->changes[i]; i++) {
        strcat(what, r->changes[i]);
        strcat(what, " ");
    }
    cr_assert_eq(dls_run_ranks(ranks, train_rank, &one), DLS_OK, "%s: %s", what,
                 dls_status_message());
    for (int i = 0; i < ranks; i++)
        cr_assert_gt(check_rank(r, i, what), 0);
}

/* draw layouts to weigh */
typedef struct drawn { int ranks; char text[8][48]; } drawn;

static uint32_t roll(uint64_t seed, int k, uint32_t what, uint32_t sides)
{
    return (dls_rng_u32(seed, (uint32_t)k, what) >> 8) % sides;
}

static drawn draw(uint64_t seed, int k)
{
    static const char *const modes[] = {"ddp", "zero1", "zero2", "zero3"};
    static const char *const schedules[] = {"1f1b", "zb-h1", "zb-v", "gpipe",
                                            "interleaved"};
    static const char *const recompute[] = {"none", "selective", "full"};
    static const char *const ways[] = {"ring", "ulysses", "gather"};
    int size[4];
    for (uint32_t again = 0; again == 0 || size[0] * size[1] * size[2] * size[3] > 8;
         again += 4)
        for (uint32_t i = 0; i < 4; i++)        // tp, cp, pp, dp
            size[i] = i == 3 ? 1 + (int)roll(seed, k, again + i, 3)
                             : 1 << roll(seed, k, again + i, i == 0 ? 3 : 2);
    drawn d = {.ranks = size[0] * size[1] * size[2] * size[3]};
    snprintf(d.text[0], 48, "parallel.tp=%d", size[0]);
    snprintf(d.text[1], 48, "parallel.cp=%d", size[1]);
    snprintf(d.text[2], 48, "parallel.pp=%d", size[2]);
    snprintf(d.text[3], 48, "data_parallel=%s", modes[roll(seed, k, 90, 4)]);
    snprintf(d.text[4], 48, "model.recompute=%s", recompute[roll(seed, k, 91, 3)]);
    snprintf(d.text[5], 48, "parallel.context=%s", ways[roll(seed, k, 92, 3)]);
    snprintf(d.text[6], 48, "train.dtype=%s", roll(seed, k, 93, 2) ? "f32" : "bf16");
    if (size[2] > 1)
        snprintf(d.text[7], 48, "pipeline.schedule=%s", schedules[roll(seed, k, 94, 5)]);
    return d;
}

/* weigh layouts */
static void weigh_drawn(uint64_t seed, int n, const char *family)
{
    for (int k = 0; k < n; k++) {
        drawn d = draw(seed, k);
        run r = {"weighed", {"resume=never", "train.steps=2", "model.heads=8", family},
                 0};
        for (int i = 0; i < 8; i++)
            r.changes[4 + i] = d.text[i][0] ? d.text[i] : NULL;
        weigh(d.ranks, &r);
    }
}

Test(layout_memory, of_seeded_layouts_of_gpt, .init = make_corpus, .fini = remove_root)
{
    weigh_drawn(11, 6, "model.vocabulary=263");
}

Test(layout_memory, of_seeded_layouts_of_llama, .init = make_corpus,
     .fini = remove_root)
{
    weigh_drawn(12, 6, "model.family=llama");
}

Test(layout_memory, of_chosen_layouts, .init = make_corpus, .fini = remove_root)
{
    static const struct { int ranks; run r; } cases[] = {
        {8, {"all", {"resume=never", "parallel.tp=2", "parallel.pp=2",
                     "data_parallel=zero3", "train.global_batch=11"}, 0}},
        {4, {"trust", {"resume=never", "parallel.tp=2", "parallel.pp=2",
                       "pipeline.post_validation=true"}, 0}},
        {4, {"shared", {"resume=never", "parallel.tp=4", "model.heads=4",
                        "model.kv_heads=2", "model.family=llama"}, 0}},
        {4, {"pairs", {"resume=never", "parallel.pp=4", "model.layers=3",
                       "pipeline.schedule=dualpipe", "train.global_batch=20"}, 0}},
        {4, {"pairs2", {"resume=never", "parallel.pp=2", "data_parallel=zero3",
                        "pipeline.schedule=dualpipev", "train.micro_batch=1"}, 0}},
        {4, {"pairs3", {"resume=never", "parallel.pp=2", "parallel.tp=2",
                        "pipeline.schedule=dualpipe", "data_parallel=zero1",
                        "train.global_batch=15", "model.recompute=full"}, 0}}};
    for (int i = 0; i < 6; i++)
        weigh(cases[i].ranks, &cases[i].r);
}

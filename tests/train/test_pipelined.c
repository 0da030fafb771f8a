/* tests/train/test_pipelined.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole runs with pipelines: against one rank, and from one layout to another. */
#include "run.h"

/* compare a pipelined run */
/* The last numbers of two runs behind a key. */
static void assert_same(const char *a, const char *b, const char *key, int least)
{
    double x[64], y[64];
    int n = numbers_of(a, key, x), m = numbers_of(b, key, y);
    cr_assert_geq(m, least, "%s: %d times %s", b, m, key);
    cr_assert_geq(n, m);
    for (int i = 1; i <= m; i++)
        cr_assert(fabs(x[n - i] - y[m - i]) <= 1e-10 * x[n - i],
                  "%s, the last %s but %d: %.17g instead of %.17g", b, key, i - 1,
                  y[m - i], x[n - i]);
}

/* The losses, of evaluations, too. */
static void assert_same_end(const char *a, const char *b, int least)
{
    assert_same(a, b, "loss\":", least);
}

/* test pipelined runs */
Test(pipeline_train, pipelines_train_like_one_rank, .init = make_corpus,
     .fini = remove_root)
{
    static const struct { int ranks; run r; } cases[] = {
        {4, {"1f1b", {"train.dtype=f64", "parallel.pp=4"}, 0}},
        {2, {"zb-v", {"train.dtype=f64", "parallel.pp=2", "pipeline.schedule=zb-v",
                      "pipeline.partition=count"}, 0}},
        {4, {"both", {"train.dtype=f64", "parallel.pp=2", "train.global_batch=12",
                      "pipeline.schedule=zb-h1", "pipeline.microbatches=4"}, 0}},
        {4, {"cut", {"train.dtype=f64", "parallel.pp=2", "data_parallel=zero1",
                     "pipeline.schedule=zb-h1"}, 0}},
        {6, {"thirds", {"train.dtype=f64", "parallel.pp=2", "data_parallel=zero1",
                        "model.tied_head=true"}, 0}},
        {4, {"halves", {"train.dtype=f64", "parallel.pp=2", "data_parallel=zero2",
                        "pipeline.schedule=interleaved", "pipeline.chunks=2",
                        "zero.prefetch=0"}, 0}},
        {6, {"full", {"train.dtype=f64", "parallel.pp=2", "data_parallel=zero3",
                      "pipeline.schedule=bfs", "pipeline.chunks=2",
                      "zero.prefetch=0"}, 0}}};
    run one = {"one", {"train.dtype=f64"}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    for (int i = 0; i < 7; i++) {
        run r = cases[i].r;
        OK(dls_run_ranks(cases[i].ranks, train_rank, &r));
        assert_same_end("one", r.directory, 22);
    }
}

Test(pipeline_train, uneven_rows_and_dropout, .init = make_corpus, .fini = remove_root)
{
    run one = {"one", {"train.dtype=f64", "train.global_batch=11", "model.dropout=0.2",
                       "model.family=llama"}, 0};
    run two = {"two", {"train.dtype=f64", "train.global_batch=11", "model.dropout=0.2",
                       "model.family=llama", "parallel.pp=2"}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    OK(dls_run_ranks(4, train_rank, &two));
    assert_same_end("one", "two", 22);
}

static size_t activations_of(const char *directory)
{
    static const char key[] = "\"activations\":";
    char path[256], *text, *at;
    size_t size, peak = 0;
    snprintf(path, sizeof path, "%s/%s/memory-rank-0.json", root, directory);
    OK(dls_file_read(path, &text, &size));
    cr_assert_not_null(at = strstr(text, key));
    cr_assert_eq(sscanf(at + strlen(key), "{\"predicted\":%*u,\"current\":%*u,"
                        "\"peak\":%zu", &peak), 1, "%.120s", at);
    free(text);
    return peak;
}

Test(pipeline_train, recomputing_stages_hold_less, .init = make_corpus,
     .fini = remove_root)
{
    static const char *const ways[] = {"model.recompute=none",
                                       "model.recompute=selective",
                                       "model.recompute=full"};
    static const char *const schedules[] = {"pipeline.schedule=1f1b",
                                            "pipeline.schedule=zb-h1"};
    run one = {"one", {"train.dtype=f64"}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    for (int k = 0; k < 2; k++)
        for (size_t i = 0, before = SIZE_MAX, now; i < 3; i++, before = now) {
            run r = {"two", {"train.dtype=f64", "parallel.pp=2", "resume=never",
                             schedules[k], ways[i]}, 0};
            OK(dls_run_ranks(2, train_rank, &r));
            assert_same_end("one", "two", 22);
            now = activations_of("two");
            cr_assert(now > 0 && now < before, "%s, %s: %zu after %zu", schedules[k],
                      ways[i], now, before);
        }
}

Test(pipeline_train, memory_is_what_was_predicted, .init = make_corpus,
     .fini = remove_root)
{
    static const char *const purposes[] = {"parameters", "gradients", "optimizer"};
    static const char *const schedules[] = {
        "pipeline.schedule=zb-v", "pipeline.schedule=pipedream",
        "pipeline.schedule=1f1b", "pipeline.schedule=zb-h1",
        "pipeline.schedule=zb-v", "pipeline.schedule=chimera"};
    static const char *const more[] = {NULL, NULL, "pipeline.post_validation=true",
                                       "data_parallel=zero1", "data_parallel=zero2",
                                       "data_parallel=zero3"};
    for (int i = 0; i < 12; i++) {
        run r = {"memory", {schedules[i / 2], "parallel.pp=2",
                            "model.tied_head=false", "train.steps=2", "resume=never",
                            more[i / 2], i < 6 ? NULL : "zero.prefetch=0"}, 0};
        char path[256], key[32], *text;
        size_t size, want, is;
        OK(dls_run_ranks(i < 6 ? 2 : 6, train_rank, &r));
        snprintf(path, sizeof path, "%s/memory/memory-rank-%d.json", root, i % 2);
        OK(dls_file_read(path, &text, &size));
        for (int k = 0; k < 3; k++) {
            snprintf(key, sizeof key, "\"%s\":", purposes[k]);
            const char *at = strstr(text, key);
            cr_assert_not_null(at);
            cr_assert_eq(sscanf(at + strlen(key), "{\"predicted\":%zu,\"current\":%zu",
                                &want, &is), 2);
            cr_assert_eq(want, is, "%s, rank %d: %s %zu, predicted %zu",
                         schedules[i / 2], i % 2, purposes[k], is, want);
        }
        free(text);
    }
}

/* test steps on trust in runs */
Test(pipeline_train, steps_on_trust_train_like_steps_that_wait, .init = make_corpus,
     .fini = remove_root)
{
    static const struct { int ranks; const char *schedule, *clip; int most; } cases[] = {
        {3, "pipeline.schedule=1f1b", "train.clip=0.25", 20},
        {3, "pipeline.schedule=zb-h1", "train.clip=1.5", 19},
        {4, "pipeline.schedule=chimera", "train.clip=0.25", 20},
        {2, "pipeline.schedule=zb-v", "train.clip=0", 0}};
    for (int i = 0; i < 4; i++) {
        run waits = {"waits", {"train.dtype=f64", cases[i].schedule, cases[i].clip,
                               "parallel.pp=2", "resume=never"}, 0};
        run trusts = waits;
        double norms[64], clip = strtod(strchr(cases[i].clip, '=') + 1, NULL);
        trusts.directory = "trusts";
        trusts.changes[5] = "pipeline.post_validation=true";
        if (cases[i].ranks == 3)
            waits.changes[3] = trusts.changes[3] = "parallel.pp=3";
        OK(dls_run_ranks(cases[i].ranks, train_rank, &waits));
        OK(dls_run_ranks(cases[i].ranks, train_rank, &trusts));
        assert_same("waits", "trusts", "loss\":", 22);
        assert_same("waits", "trusts", "gradient_norm\":", 20);
        int n = numbers_of("trusts", "gradient_norm\":", norms), clipped = 0;
        for (int k = 0; k < n; k++)
            clipped += clip > 0 && norms[k] > clip;
        cr_assert(clipped <= cases[i].most && (clipped > 0) == (clip > 0),
                  "%s, %s: %d of %d clipped", cases[i].schedule, cases[i].clip, clipped,
                  n);
    }
}

/* test changes of layout */

Test(pipeline_train, slices_of_stages_change_their_layout, .init = make_corpus,
     .fini = remove_root)
{
    run whole = {"whole", {"train.dtype=f64"}, 0};
    double losses[64];
    run moved = {"moved", {"train.dtype=f64", "data_parallel=zero3",
                           "parallel.pp=2"}, 13};
    OK(dls_run_ranks(1, train_rank, &whole));
    cr_assert_neq(dls_run_ranks(6, train_rank, &moved), DLS_OK);
    moved.die_at = 0;
    moved.changes[3] = "pipeline.schedule=zb-v";
    OK(dls_run_ranks(4, train_rank, &moved));
    assert_same_end("whole", "moved", 11);
    cr_assert_eq(numbers_of("moved", "loss\":", losses), 11);
    run one = {"one", {"train.dtype=f64", "data_parallel=zero1",
                       "parallel.pp=2"}, 13};
    cr_assert_neq(dls_run_ranks(4, train_rank, &one), DLS_OK);
    one.changes[1] = NULL;
    one.die_at = 0;
    OK(dls_run_ranks(1, train_rank, &one));
    assert_same_end("whole", "one", 11);
    cr_assert_eq(numbers_of("one", "loss\":", losses), 11);
}

/* test refused pipelines */
Test(pipeline_train, bad_pipelines_are_refused_in_one_line, .init = make_corpus,
     .fini = remove_root)
{
    static const char *const cases[][4] = {     /* two changes, a message, a change */
        {"parallel.pp=3", NULL, "world size: expected a multiple of tp 1"},
        {"parallel.pp=2", "pipeline.schedule=2f2b", "pipeline.schedule: expected"},
        {"parallel.pp=2", "pipeline.schedule=forward-only", "does not train"},
        {"parallel.pp=2", "pipeline.microbatches=2", "at least 6 for the 12"},
        {"parallel.pp=2", "data_parallel=hybrid", "data_parallel: expected ddp or"},
        {"parallel.pp=2", "ddp.hook=bf16", "ddp.hook: expected none"},
        {"parallel.pp=2", "pipeline.partition=even", "pipeline.partition: expected"},
        {"parallel.pp=2", "pipeline.schedule=pipedream", "model.tied_head"},
        {"parallel.pp=2", "pipeline.post_validation=2", "pipeline.post_validation"},
        {"pipeline.schedule=pipedream", "pipeline.post_validation=true",
         "pipeline.post_validation: expected false", "parallel.pp=2"},
        {"data_parallel=zero1", "zero.offload=true", "1f1b with ZeRO: expected slices",
         "parallel.pp=2"},
        {"parallel.pp=2", "pipeline.chunks=3", "expected 1 chunk, got 3"},
        {"parallel.pp=2", "pipeline.pair_order=b x", "pipeline.pair_order: expected"},
        {"parallel.pp=2", "parallel.ppp=3", "parallel.ppp"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run r = {"bad", {cases[i][0], cases[i][1], cases[i][3]}, 0};
        cr_assert_neq(dls_run_ranks(2, train_rank, &r), DLS_OK, "%s %s", cases[i][0],
                      cases[i][1]);
        const char *message = dls_status_message();
        cr_assert_not_null(strstr(message, cases[i][2]), "%s: %s", cases[i][0], message);
        cr_assert_null(strchr(message, '\n'));
    }
}
Test(pipeline_train, a_checkpoint_changes_its_layout, .init = make_corpus,
     .fini = remove_root)
{
    run whole = {"whole", {"train.dtype=f64"}, 0};
    run to = {"to", {"train.dtype=f64"}, 13}, from = {"from", {"train.dtype=f64"}, 13};
    OK(dls_run_ranks(1, train_rank, &whole));
    from.changes[1] = "parallel.pp=4";
    cr_assert_neq(dls_run_ranks(4, train_rank, &from), DLS_OK);
    from.changes[1] = NULL;
    from.die_at = 0;
    OK(dls_run_ranks(1, train_rank, &from));
    assert_same_end("whole", "from", 11);
    cr_assert_neq(dls_run_ranks(2, train_rank, &to), DLS_OK);
    to.changes[1] = "parallel.pp=2";
    to.changes[2] = "pipeline.schedule=zb-v";
    to.die_at = 0;
    OK(dls_run_ranks(2, train_rank, &to));
    assert_same_end("whole", "to", 11);
}


/* tests/train/test_runs.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole runs: world sizes, determinism, resuming. */
#include "run.h"

/* read what a run left */
static char *contents(const char *directory, const char *name, size_t *size)
{
    char path[512], *data;
    snprintf(path, sizeof path, "%s/%s/%s", root, directory, name);
    OK(dls_file_read(path, &data, size));
    return data;
}

static int read_losses(const char *directory, double *losses)
{
    size_t size;
    char *text = contents(directory, "metrics.jsonl", &size);
    int n = 0;
    for (char *at = text; (at = strstr(at, "\"loss\":")) != NULL;)
        losses[n++] = strtod(at += 7, NULL);
    free(text);
    return n;
}

static void assert_same_file(const char *a, const char *b, const char *name)
{
    size_t n, m;
    char *x = contents(a, name, &n), *y = contents(b, name, &m);
    cr_assert(n == m && memcmp(x, y, n) == 0, "%s of %s and %s differ", name, a, b);
    free(x);
    free(y);
}

/* compare the world sizes */
static void assert_same_losses(const char *directory, const double *want, int n,
                               double tolerance)
{
    double losses[64];
    cr_assert_eq(read_losses(directory, losses), n);
    for (int i = 0; i < n; i++)
        cr_assert(fabs(losses[i] - want[i]) <= tolerance * want[i],
                  "%s, step %d: %.17g, on one rank %.17g", directory, i + 1, losses[i],
                  want[i]);
}

static double element(const dls_checkpoint *c, size_t i)
{
    float narrow;
    double wide;
    memcpy(&wide, (const char *)c->values + i * (c->dtype == DLS_F64 ? 8 : 4),
           c->dtype == DLS_F64 ? 8 : 4);
    memcpy(&narrow, &wide, sizeof narrow);
    return c->dtype == DLS_F64 ? wide : narrow;     // bf16: the masters, in f32
}

static void assert_same_values(const char *a, const char *b, double tolerance)
{
    char path[256];
    dls_checkpoint x, y;
    snprintf(path, sizeof path, "%s/%s", root, a);
    OK(dls_checkpoint_find(path, &x));
    snprintf(path, sizeof path, "%s/%s", root, b);
    OK(dls_checkpoint_find(path, &y));
    cr_assert_eq(x.elements, y.elements);
    for (size_t i = 0; i < x.elements; i++)
        cr_assert(fabs(element(&x, i) - element(&y, i)) <= tolerance,
                  "%s, value %zu: %.17g, on one rank %.17g", b, i, element(&y, i),
                  element(&x, i));
    dls_checkpoint_free(&x);
    dls_checkpoint_free(&y);
}

static void compare_worlds(const char *dtype, double losses_to, double values_to)
{
    static const char *const names[] = {"", "one", "two", "three", "four"};
    double want[64];
    for (int n = 1; n <= 4; n++) {
        run r = {names[n], {dtype}, 0};
        OK(dls_run_ranks(n, train_rank, &r));
        if (n == 1)
            cr_assert_eq(read_losses("one", want), 20);
        assert_same_losses(names[n], want, 20, losses_to);
        assert_same_values("one", names[n], values_to);
    }
    cr_assert(want[0] > 5.4 && want[19] < want[0] - 0.5, "it does not learn");
}

/* test the world sizes */
Test(train, worlds_agree_in_float32, .init = make_corpus, .fini = remove_root)
{
    compare_worlds("train.dtype=f32", 1e-5, 2e-3);
}

Test(train, worlds_agree_in_float64, .init = make_corpus, .fini = remove_root)
{
    compare_worlds("train.dtype=f64", 1e-10, 1e-10);
}

Test(train, worlds_agree_in_bfloat16, .init = make_corpus, .fini = remove_root)
{
    compare_worlds("train.dtype=bf16", 0x1p-9, 2e-3);
}

Test(train, worlds_drop_the_same, .init = make_corpus, .fini = remove_root)
{
    double want[64];
    run one = {"one", {"train.dtype=f64", "model.dropout=0.2", "model.family=llama"}, 0};
    run three = one;
    three.directory = "three";
    OK(dls_run_ranks(1, train_rank, &one));
    OK(dls_run_ranks(3, train_rank, &three));
    cr_assert_eq(read_losses("one", want), 20);
    assert_same_losses("three", want, 20, 1e-10);
    assert_same_values("one", "three", 1e-10);
}

Test(train, batches_that_do_not_divide_are_exact, .init = make_corpus,
     .fini = remove_root)
{
    double want[64];
    run one = {"one", {"train.dtype=f64", "train.global_batch=11"}, 0};
    run three = {"three", {"train.dtype=f64", "train.global_batch=11"}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    OK(dls_run_ranks(3, train_rank, &three));
    cr_assert_eq(read_losses("one", want), 20);
    assert_same_losses("three", want, 20, 1e-10);
    assert_same_values("one", "three", 1e-10);
}

/* test determinism */
Test(train, two_runs_write_the_same_bytes, .init = make_corpus, .fini = remove_root)
{
    static const char *const files[] = {"metrics.jsonl", "checkpoint-00000020.dls",
                                        "memory-rank-0.json", "memory-rank-1.json"};
    run a = {"a", {NULL}, 0}, b = {"b", {NULL}, 0}, c = {"c", {"ddp.overlap=false"}, 0};
    OK(dls_run_ranks(2, train_rank, &a));
    OK(dls_run_ranks(2, train_rank, &b));
    OK(dls_run_ranks(2, train_rank, &c));
    for (int i = 0; i < 4; i++)
        assert_same_file("a", "b", files[i]);
    assert_same_file("a", "c", "checkpoint-00000020.dls");
}

Test(train, emulated_threads_and_host_kernels_agree, .init = make_corpus,
     .fini = remove_root)
{
    double host[64];
    run a = {"host", {"train.steps=3"}, 0}, b = {"simt", {"train.steps=3"}, 0};
    setenv("DLS_KERNELS", "host", 1);
    OK(dls_run_ranks(1, train_rank, &a));
    setenv("DLS_KERNELS", "simt", 1);
    OK(dls_run_ranks(1, train_rank, &b));
    cr_assert_eq(read_losses("host", host), 3);
    assert_same_losses("simt", host, 3, 1e-5);
}

/* test resuming */
Test(train, a_torn_checkpoint_costs_steps_and_nothing_else, .init = make_corpus,
     .fini = remove_root)
{
    char path[256];
    run whole = {"whole", {NULL}, 0}, torn = {"torn", {NULL}, 0};
    OK(dls_run_ranks(2, train_rank, &whole));
    OK(dls_run_ranks(2, train_rank, &torn));
    int n = snprintf(path, sizeof path, "%s/torn", root);
    dls_checkpoint_path(path + n, sizeof path - (size_t)n, "", 20);
    cr_assert_eq(truncate(path, 5000), 0);
    OK(dls_run_ranks(2, train_rank, &torn));
    assert_same_file("whole", "torn", "checkpoint-00000020.dls");
    assert_same_file("whole", "torn", "metrics.jsonl");
}

Test(train, a_run_in_bfloat16_is_resumed_from_its_masters, .init = make_corpus,
     .fini = remove_root)
{
    char path[256];
    dls_checkpoint c;
    size_t unrounded = 0;
    run whole = {"whole", {"train.dtype=bf16", "model.family=llama", "model.dropout=0.1"},
                 0};
    run torn = whole;
    torn.directory = "torn";
    OK(dls_run_ranks(2, train_rank, &whole));
    OK(dls_run_ranks(2, train_rank, &torn));
    int n = snprintf(path, sizeof path, "%s/torn", root);
    dls_checkpoint_path(path + n, sizeof path - (size_t)n, "", 20);
    cr_assert_eq(truncate(path, 5000), 0);
    OK(dls_run_ranks(2, train_rank, &torn));
    assert_same_file("whole", "torn", "checkpoint-00000020.dls");
    assert_same_file("whole", "torn", "metrics.jsonl");
    OK(dls_checkpoint_load(path, &c));
    for (size_t i = 0; i < c.elements; i++) {
        float x = ((const float *)c.values)[i];
        unrounded += x != dls_widen_bf16(dls_narrow_bf16(x));
    }
    cr_assert_gt(unrounded, c.elements * 9 / 10, "masters have 24 bits");
    cr_assert_eq(c.model.kv_heads, 2);
    cr_assert_eq(c.model.mlp, DLS_MLP_SWIGLU);
    dls_checkpoint_free(&c);
}

Test(train, a_run_does_not_start_over_by_itself, .init = make_corpus, .fini = remove_root)
{
    char path[256];
    run r = {"torn", {NULL}, 0};
    OK(dls_run_ranks(2, train_rank, &r));
    for (int step = 10; step <= 20; step += 10) {
        int n = snprintf(path, sizeof path, "%s/torn", root);
        dls_checkpoint_path(path + n, sizeof path - (size_t)n, "", step);
        cr_assert_eq(truncate(path, 100 * step), 0);
    }
    cr_assert_eq(dls_run_ranks(2, train_rank, &r), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "none of its 2 checkpoints is good"),
                       "%s", dls_status_message());
}

Test(train, a_killed_rank_is_named_and_the_run_continues, .init = make_corpus,
     .fini = remove_root)
{
    run whole = {"whole", {NULL}, 0}, killed = {"killed", {NULL}, 13};
    OK(dls_run_ranks(3, train_rank, &whole));
    cr_assert_neq(dls_run_ranks(3, train_rank, &killed), DLS_OK);
    cr_assert_not_null(strstr(dls_status_message(), "rank 1"), "%s",
                       dls_status_message());
    killed.die_at = 0;
    OK(dls_run_ranks(3, train_rank, &killed));
    assert_same_file("whole", "killed", "checkpoint-00000020.dls");
}

Test(train, a_checkpoint_continues_on_another_number_of_ranks, .init = make_corpus,
     .fini = remove_root)
{
    run whole = {"whole", {"train.dtype=f64"}, 0};
    run moved = {"moved", {"train.dtype=f64"}, 13};
    OK(dls_run_ranks(1, train_rank, &whole));
    cr_assert_neq(dls_run_ranks(2, train_rank, &moved), DLS_OK);
    moved.die_at = 0;
    OK(dls_run_ranks(3, train_rank, &moved));
    assert_same_values("whole", "moved", 1e-10);
}

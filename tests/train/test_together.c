/* tests/train/test_together.c: from chapters/07-together-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole runs in layouts of several axes: against one rank, and from one to another. */
#include "run.h"

/* read a run of several axes */
static void assert_same(const char *a, const char *b, const char *key, double tolerance)
{
    double x[64], y[64];
    int n = numbers_of(a, key, x), m = numbers_of(b, key, y);
    cr_assert(n == m && n >= 8, "%s: %d times %s, %s: %d", a, n, key, b, m);
    for (int i = 0; i < n; i++)
        cr_assert(fabs(x[i] - y[i]) <= tolerance * fabs(x[i]),
                  "%s, %s number %d: %.17g instead of %.17g", b, key, i, y[i], x[i]);
}

/* run layouts of several axes */
typedef struct layout_run {
    int ranks;
    const char *changes[5];
} layout_run;

/* Each layout has the losses (of evaluations, too) and the norms of one rank. */
static void expect_same(const char *const common[6], const layout_run *cases, int n,
                        double tolerance)
{
    run one = {"one", {"train.steps=8", "train.evaluate_every=4", common[0], common[1],
                       common[2], common[3], common[4], common[5]}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    for (int i = 0; i < n; i++) {
        run r = one;
        int k = 0;
        r.directory = "many";
        while (r.changes[k])
            k++;
        r.changes[k++] = "resume=never";
        for (int j = 0; cases[i].changes[j]; j++)
            r.changes[k++] = cases[i].changes[j];
        OK(dls_run_ranks(cases[i].ranks, train_rank, &r));
        assert_same("one", "many", "loss\":", tolerance);
        assert_same("one", "many", "gradient_norm\":", tolerance);
    }
}

Test(together, layouts_train_like_one_rank, .init = make_corpus, .fini = remove_root)
{
    static const layout_run cases[] = {
        {2, {"parallel.tp=2", "parallel.sequence=false"}},
        {4, {"parallel.tp=2", "parallel.dp=2"}},
        {4, {"parallel.tp=2", "data_parallel=zero1"}},
        {6, {"parallel.tp=2", "data_parallel=zero2"}},
        {8, {"parallel.tp=2", "parallel.pp=2", "parallel.dp=2"}},
        {4, {"parallel.tp=2", "parallel.pp=2", "pipeline.schedule=zb-v",
             "pipeline.post_validation=true"}},
        {8, {"parallel.cp=2", "parallel.pp=2", "parallel.tp=2"}},
        {6, {"parallel.cp=2", "data_parallel=zero3", "parallel.context=gather",
             "parallel.tokens=striped"}}};
    expect_same((const char *[6]){"train.dtype=f64"}, cases, 8, 1e-10);
}

Test(together, shared_heads_odd_vocabularies_and_dropout, .init = make_corpus,
     .fini = remove_root)
{
    static const layout_run cases[] = {
        {4, {"parallel.tp=4"}},
        {8, {"parallel.tp=4", "parallel.pp=2", "pipeline.schedule=zb-h1"}},
        {8, {"parallel.tp=4", "data_parallel=zero3"}},
        {8, {"parallel.tp=4", "parallel.pp=2", "data_parallel=zero1",
             "pipeline.schedule=zb-v"}}};
    expect_same((const char *[6]){"train.dtype=f64", "model.family=llama",
                                  "model.heads=4", "model.kv_heads=2",
                                  "model.vocabulary=257", "model.dropout=0.2"},
                cases, 4, 1e-10);
}

Test(together, twenty_steps_in_single_precision, .init = make_corpus,
     .fini = remove_root)
{
    static const layout_run cases[] = {
        {8, {"parallel.tp=2", "parallel.pp=2", "parallel.dp=2"}},
        {8, {"parallel.tp=2", "parallel.cp=2", "data_parallel=zero3"}},
        {8, {"parallel.tp=2", "parallel.cp=2", "parallel.pp=2",
             "pipeline.schedule=zb-v"}}};
    run one = {"one", {"train.dtype=f32"}, 0};
    OK(dls_run_ranks(1, train_rank, &one));
    for (int i = 0; i < 3; i++) {
        run r = {"many", {"train.dtype=f32", "resume=never"}, 0};
        for (int k = 0; cases[i].changes[k]; k++)
            r.changes[2 + k] = cases[i].changes[k];
        OK(dls_run_ranks(cases[i].ranks, train_rank, &r));
        assert_same("one", "many", "loss\":", 1e-5);
    }
}

/* test what is said to be hidden */
/* A run whose ranks print into a file; rank 0 prints the progress. */
static dls_status print_rank(int rank, void *arg)
{
    char path[256];
    dls_config *cfg;
    dls_train_config c;
    dls_comm *comm;
    snprintf(path, sizeof path, "%s/printed-%d", root, rank);
    if (!freopen(path, "w", stdout))
        return DLS_FAIL(DLS_ERR_IO, "cannot print into %s", path);
    DLS_TRY(load_settings(arg, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_train_run(&c, comm));
    dls_comm_destroy(comm);
    dls_config_free(cfg);
    return DLS_OK;
}

static void expect_share(const layout_run *l, const char *said)
{
    static const char unit[] = "us/step (virtual)";
    run r = {"printed", {"resume=never", "train.steps=4", "train.evaluate_every=0"}, 0};
    char path[256], *text;
    size_t size;
    for (int i = 0; l->changes[i]; i++)
        r.changes[3 + i] = l->changes[i];
    OK(dls_run_ranks(l->ranks, print_rank, &r));
    snprintf(path, sizeof path, "%s/printed-0", root);
    OK(dls_file_read(path, &text, &size));
    char *at = strstr(text, unit);
    cr_assert_not_null(at, "%s", text);
    at += strlen(unit);
    at[strcspn(at, "\n")] = 0;
    const char *share = strchr(at, '%');
    cr_assert_str_eq(share ? share : at, said, "%d ranks, %s", l->ranks, l->changes[0]);
    free(text);
}

Test(together, the_share_that_was_hidden_is_the_data_axis_share, .init = make_corpus,
     .fini = remove_root)
{
    static const char *const plain = "% of communication hidden";
    static const char *const named = "% of the data axis' communication hidden";
    expect_share(&(layout_run){1, {NULL}}, "");
    expect_share(&(layout_run){2, {"data_parallel=zero1"}}, plain);
    expect_share(&(layout_run){2, {"parallel.tp=2"}}, "");
    expect_share(&(layout_run){2, {"parallel.pp=2"}}, "");
    expect_share(&(layout_run){2, {"parallel.cp=2"}}, named);
    expect_share(&(layout_run){4, {"parallel.tp=2", "data_parallel=zero3"}}, named);
}

/* count the bytes of a step */
typedef struct sent { uint64_t tensor, pipe, data; } sent;

static sent so_far(const dls_trainer *t)
{
    const dls_train_groups *g = &t->groups;
    return (sent){dls_comm_stats(g->tensor).wire_bytes,
                  dls_comm_stats(g->pipe).wire_bytes,
                  dls_comm_stats(g->data).wire_bytes};
}

/* What a rank sends along each axis in the second step. */
static dls_status step_twice(dls_trainer *t, sent *out)
{
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(dls_ctx_sync(&t->ctx));
    DLS_CUDA(cudaDeviceSynchronize());
    sent before = so_far(t);
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(dls_ctx_sync(&t->ctx));
    DLS_CUDA(cudaDeviceSynchronize());
    sent after = so_far(t);
    *out = (sent){after.tensor - before.tensor, after.pipe - before.pipe,
                  after.data - before.data};
    return DLS_OK;
}

/* test the bytes of a step */
static dls_status compare_sent(const dls_trainer *t, const sent *is)
{
    static const sent hand[] = {{24968, 2056, 15968}, {27912, 2056, 15072}};
    const sent *want = &hand[t->place.stage_rank];
    return is->tensor == want->tensor && is->pipe == want->pipe
        && is->data == want->data ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "stage %d: tp %llu, pp %llu, dp %llu bytes",
                   t->place.stage_rank, (unsigned long long)is->tensor,
                   (unsigned long long)is->pipe, (unsigned long long)is->data);
}

static dls_status count_rank(int rank, void *arg)
{
    dls_train_config c;
    dls_config *cfg;
    dls_comm *comm;
    dls_trainer *t;
    sent is = {0};
    (void)rank;
    setenv("DLS_ALGORITHM", "all_reduce:ring,all_gather:ring,reduce_scatter:ring", 1);
    DLS_TRY(load_settings(arg, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    DLS_TRY(step_twice(t, &is));
    DLS_TRY(compare_sent(t, &is));
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    dls_config_free(cfg);
    return DLS_OK;
}

Test(together, a_step_of_2x2x2_sends_what_was_worked_by_hand, .init = make_corpus,
     .fini = remove_root)
{
    run r = {"bytes", {"parallel.tp=2", "parallel.pp=2", "parallel.dp=2",
                       "train.global_batch=8", "pipeline.partition=count"}, 0};
    OK(dls_run_ranks(8, count_rank, &r));
}

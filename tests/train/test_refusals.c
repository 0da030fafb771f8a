/* tests/train/test_refusals.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Settings that are refused, and the memory that was promised. */
#include "run.h"

/* test refusals of training */
Test(train, bad_settings_are_refused_in_one_line, .init = make_corpus,
     .fini = remove_root)
{
    static const char *const cases[][2] = {
        {"train.steps=0", "train.steps: expected"},
        {"train.beta2=1", "train.beta2: expected"},
        {"train.warmup_steps=-1", "train.warmup_steps: expected"},
        {"train.minimum_learning_rate=1", "train.minimum_learning_rate: expected"},
        {"train.dtype=f16", "train.dtype: expected"},
        {"train.stepz=3", "train.steps"},
        {"ddp.keep=0.1", "ddp.keep: expected only with ddp.hook: top_k, got hook none"},
        {"data.corpus=/nowhere/text", "/nowhere/text"},
        {"data.validation_fraction=0", "data.validation_fraction: 0 of"},
        {"model.heads=3", "model.heads: expected a divisor of the 16 channels, got 3"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run r = {"bad", {cases[i][0]}, 0};
        cr_assert_neq(dls_run_ranks(2, train_rank, &r), DLS_OK, "%s", cases[i][0]);
        const char *message = dls_status_message();
        cr_assert_not_null(strstr(message, cases[i][1]), "%s: %s", cases[i][0], message);
        cr_assert_null(strchr(message, '\n'));
    }
}

Test(train, a_run_is_not_continued_with_other_settings, .init = make_corpus,
     .fini = remove_root)
{
    run first = {"run", {NULL}, 0}, other = {"run", {"train.seed=2"}, 0};
    OK(dls_run_ranks(1, train_rank, &first));
    cr_assert_eq(dls_run_ranks(1, train_rank, &other), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "setting \"train.seed=1\" there, "
                              "\"train.seed=2\" here"), "%s",
                       dls_status_message());
    /* refuse every other setting */
    static const char *const changes[] = {
        "model.context=8", "model.layers=1", "model.heads=1", "model.channels=32",
        "data.validation_fraction=0.25", "train.steps=21", "train.global_batch=11",
        "train.learning_rate=0.002", "train.minimum_learning_rate=0.001",
        "train.warmup_steps=6", "train.weight_decay=0.2", "train.beta1=0.8",
        "train.beta2=0.9", "train.epsilon=1e-7", "train.clip=2", "train.dtype=f64",
        "model.kv_heads=1", "model.head_size=4", "model.hidden=20", "model.norm=rmsnorm",
        "model.mlp=swiglu", "model.qkv_bias=no", "model.proj_bias=no", "model.mlp_bias=no",
        "model.tied_head=no", "model.embedding_dropout=0.1", "model.attention_dropout=0.1",
        "model.residual_dropout=0.1", "model.positions=rotary"};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char name[64];
        snprintf(name, sizeof name, "setting \"%.*s", (int)strcspn(changes[i], "=") + 1,
                 changes[i]);
        run changed = {"run", {changes[i]}, 0};
        cr_assert_eq(dls_run_ranks(1, train_rank, &changed), DLS_ERR_INPUT, "%s",
                     changes[i]);
        cr_assert_not_null(strstr(dls_status_message(), name), "%s: %s", changes[i],
                           dls_status_message());
    }
    other.changes[1] = "resume=never";
    OK(dls_run_ranks(1, train_rank, &other));
}

static dls_status check_memory(int rank, void *arg)
{
    dls_config *cfg;
    dls_train_config c;
    dls_comm *comm;
    dls_trainer *t;
    size_t want[DLS_MEM_PURPOSES];
    dls_gpu_memory is;
    DLS_TRY(load_settings(arg, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_train_predict_memory(&c, rank, dls_comm_size(comm), want));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    for (int i = 0; i < 3; i++)
        DLS_TRY(dls_trainer_step(t));
    DLS_TRY(dls_ctx_sync(&t->ctx));
    DLS_TRY(dls_gpu_memory_stats(t->ctx.device, &is));
    for (int i = 0; i < DLS_MEM_PURPOSES; i++)
        if (is.peak[i] != want[i] || is.current[i] != want[i])
            return DLS_FAIL(DLS_ERR_STATE, "%s: %zu bytes, predicted %zu",
                            dls_memory_purpose_name((dls_memory_purpose)i), is.peak[i],
                            want[i]);
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(train, memory_is_what_was_predicted, .init = make_corpus, .fini = remove_root)
{
    run r = {"memory", {"train.global_batch=11"}, 0};
    OK(dls_run_ranks(3, check_memory, &r));
    r.changes[1] = "train.dtype=f64";
    OK(dls_run_ranks(1, check_memory, &r));
    r.changes[1] = "train.dtype=bf16";
    r.changes[2] = "model.family=llama";
    r.changes[3] = "model.recompute=full";
    r.changes[4] = "model.dropout=0.1";
    OK(dls_run_ranks(2, check_memory, &r));
}

Test(train, memory_of_communication_is_what_was_predicted, .init = make_corpus,
     .fini = remove_root)
{
    const char *const runs[][5] = {
        {"ddp.rows=never"}, {"ddp.rows=always", "train.log_every=2000"},
        {"ddp.rows=always", "train.dtype=bf16"}, {"ddp.reduce_dtype=f64"},
        {"ddp.hook=bf16"}, {"ddp.hook=fp16", "train.dtype=bf16"},
        {"ddp.hook=powersgd", "ddp.warmup_steps=1"},
        {"ddp.hook=top_k", "ddp.keep=0.3"}, {"ddp.hook=top_k", "ddp.warmup_steps=1"},
        {"ddp.hook=one_bit_adam", "ddp.warmup_steps=1"},
        {"ddp.hook=local_sgd", "ddp.period=1", "train.dtype=f64"},
        {"data_parallel=zero1"}, {"data_parallel=zero1", "train.dtype=bf16"},
        {"data_parallel=zero2"}, {"data_parallel=zero3"},
        {"data_parallel=zero3", "zero.shard_size=2", "train.global_batch=3"},
        {"data_parallel=hybrid", "train.dtype=bf16", "zero.narrow_gradients=true"},
        {"data_parallel=zero2", "zero.offload=true", "train.dtype=bf16"}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        for (int n = 1; n <= 4; n++) {
            run r = {"memory", {runs[i][0], runs[i][1], runs[i][2], runs[i][3]}, 0};
            if (runs[i][1] && strstr(runs[i][1], "shard_size") && n % 2)
                continue;
            dls_status s = dls_run_ranks(n, check_memory, &r);
            cr_expect_eq(s, DLS_OK, "%s %s, %d ranks: %s", runs[i][0],
                         runs[i][1] ? runs[i][1] : "", n, dls_status_message());
        }
}

/* Makes the trainer that the run's settings ask for, and lets `check` have it. */
static dls_status with_trainer(void *run, dls_status (*check)(dls_trainer *t))
{
    dls_config *cfg;
    dls_train_config c;
    dls_comm *comm;
    dls_trainer *t;
    DLS_TRY(load_settings(run, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    DLS_TRY(check(t));
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static dls_status check_evaluation_of(dls_trainer *t)
{
    double first, second;
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(dls_trainer_evaluate(t, &first));
    dls_transformer_keep(t->model);
    DLS_TRY(dls_trainer_evaluate(t, &second));
    if (first != second)
        return DLS_FAIL(DLS_ERR_STATE, "evaluated with dropout: %g, without %g", first,
                        second);
    return DLS_OK;
}

static dls_status check_evaluation(int rank, void *arg)
{
    (void)rank;
    return with_trainer(arg, check_evaluation_of);
}

Test(train, nothing_is_dropped_in_an_evaluation, .init = make_corpus,
     .fini = remove_root)
{
    run r = {"drop", {"model.dropout=0.5"}, 0};
    OK(dls_run_ranks(1, check_evaluation, &r));
}

/* test the first step */
static dls_status fetch(const dls_trainer *t, double *values)
{
    DLS_TRY(dls_ctx_sync((dls_ctx *)&t->ctx));
    DLS_CUDA(cudaMemcpy(values, t->model->params.values,
                        t->model->params.elements * sizeof *values,
                        cudaMemcpyDeviceToHost));
    return DLS_OK;
}

static dls_status compare_step(const double *before, const double *after, size_t n,
                               double rate)
{
    size_t whole = 0;
    for (size_t i = 0; i < n; i++) {
        double length = fabs(after[i] - before[i]);
        if (length > rate * (1 + 1e-9))
            return DLS_FAIL(DLS_ERR_STATE, "value %zu moved by %g", i, length);
        whole += length > 0.99 * rate;
    }
    if (whole < n / 2)
        return DLS_FAIL(DLS_ERR_STATE, "only %zu of %zu made a whole step", whole, n);
    return DLS_OK;
}

static dls_status make_first_step_of(dls_trainer *t)
{
    static double before[20000], after[20000];
    if (t->model->params.elements > 20000)
        return DLS_FAIL(DLS_ERR_STATE, "the test's arrays are too small");
    DLS_TRY(fetch(t, before));
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(fetch(t, after));
    DLS_TRY(compare_step(before, after, t->model->params.elements, 0.003 / 5));
    return DLS_OK;
}

static dls_status make_first_step(int rank, void *arg)
{
    (void)rank;
    return with_trainer(arg, make_first_step_of);
}

Test(train, the_first_step_has_the_length_of_the_rate, .init = make_corpus,
     .fini = remove_root)
{
    run r = {"first", {"train.dtype=f64", "train.weight_decay=0", "train.clip=0"}, 0};
    OK(dls_run_ranks(2, make_first_step, &r));
}

/* test the second step */
static dls_status compare_windows(const dls_trainer *t, int64_t step)
{
    enum { ROWS = 12, T = 16 };
    uint64_t want[ROWS];
    int first, n, ids[2 * ROWS * T];
    const unsigned char *bytes = dls_corpus_bytes(t->corpus);
    dls_sampler_share(&t->training, t->rank, t->world, &first, &n);
    DLS_TRY(dls_sampler_windows(&t->training, step, first, n, want));
    DLS_TRY(dls_ctx_sync((dls_ctx *)&t->ctx));
    DLS_CUDA(cudaMemcpy(ids, t->batch.device, 2 * n * T * sizeof *ids,
                        cudaMemcpyDeviceToHost));
    for (int i = 0; i < n * T; i++)
        if (ids[i] != bytes[want[i / T] + i % T]
            || ids[n * T + i] != bytes[want[i / T] + i % T + 1])
            return DLS_FAIL(DLS_ERR_STATE, "rank %d, token %d of step %d is another's",
                            t->rank, i, (int)step);
    return DLS_OK;
}

static dls_status make_second_step_of(dls_trainer *t)
{
    for (int64_t step = 0; step < 2; step++) {
        DLS_TRY(dls_trainer_step(t));
        DLS_TRY(compare_windows(t, step));
    }
    return DLS_OK;
}

static dls_status make_second_step(int rank, void *arg)
{
    (void)rank;
    return with_trainer(arg, make_second_step_of);
}

Test(train, each_step_reads_its_own_windows, .init = make_corpus, .fini = remove_root)
{
    run r = {"second", {NULL}, 0};
    OK(dls_run_ranks(3, make_second_step, &r));
}

/* tests/train/test_shards.c: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* Sharded checkpoints: resharding, damage, and runs that change their mode. */
#include "run.h"

#include "model/transformer.h"
#include "train/shards.h"

/* make a state that knows its index */
typedef struct reshard { int stage, step, save; } reshard;

typedef struct shard_side {
    dls_comm *comm;
    dls_ctx ctx;
    dls_transformer *model;
    dls_zero *zero;
    dls_zero_slice slices[8];
    float *arrays;      // values, m, v: (elements) each
    dls_shard_state state;
    dls_checkpoint about;
} shard_side;

static dls_status open_shard_side(shard_side *s, const reshard *r)
{
    dls_transformer_config c = dls_transformer_gpt2(13, 6, 3, 2, 10);
    dls_zero_options o = {.stage = r->stage, .prefetch = 1};
    static char text[DLS_MODEL_SETTINGS];
    c.unplaced = 1;
    DLS_TRY(dls_comm_create(&s->comm, NULL));
    DLS_TRY(dls_ctx_create(&s->ctx, 0, DLS_F32));
    DLS_TRY(dls_transformer_create(&s->model, &s->ctx, &c, 1, 6));
    DLS_TRY(dls_zero_create(&s->zero, &s->ctx, &s->model->params, s->comm, &o));
    size_t n = dls_zero_elements(s->zero);
    s->arrays = calloc(3 * n, sizeof *s->arrays);
    for (int i = 0; i < dls_zero_slices(s->zero); i++)
        s->slices[i] = dls_zero_slice_at(s->zero, i);
    s->state = (dls_shard_state){.slices = s->slices, .n = dls_zero_slices(s->zero),
                                 .values = s->arrays, .m = s->arrays + n,
                                 .v = s->arrays + 2 * n};
    dls_transformer_settings(&c, text);
    s->about = (dls_checkpoint){.step = r->step, .dtype = DLS_F32, .settings = text,
                                .elements = s->model->params.elements,
                                .layout = dls_checkpoint_layout(&s->model->params)};
    return DLS_OK;
}

static dls_status save_side(shard_side *s)
{
    size_t n = dls_zero_elements(s->zero);
    for (int i = 0; i < s->state.n; i++)
        for (size_t k = 0; k < s->slices[i].count; k++)
            for (size_t a = 0; a < 3; a++)
                s->arrays[a * n + s->slices[i].at + k]
                    = (float)(a * 1000000 + s->slices[i].first + k);
    DLS_TRY(dls_zero_put(s->zero, s->state.values, s->state.m, s->state.v));
    memset(s->arrays, 0, 3 * n * sizeof *s->arrays);
    DLS_TRY(dls_zero_fetch(s->zero, s->state.values, s->state.m, s->state.v));
    dls_shard_state mine = s->state;
    mine.n = dls_zero_copy(s->zero) ? 0 : mine.n;
    return dls_shards_save(root, s->comm, &s->about, &mine);
}

/* What a reader must read of a checkpoint that `files` ranks wrote, in `ways` slices:
 * all heads, and the ranges that meet its slices, whole. */
static dls_status check_bytes_read(const shard_side *s, const dls_shards *saved, int ways)
{
    dls_shard_unit units[8];
    uint64_t want = 0;
    int n;
    DLS_TRY(dls_shard_plan(s->model->params.items, s->model->params.n, ways, 0,
                           units, &n));
    for (int i = 0; i < saved->files; i++)
        want += saved->file[i].head;
    for (int i = 0; i < n * ways; i++) {
        size_t first, count, meets = 0;
        dls_shard_slice(&units[i % n], i / n, &first, &count);
        for (int k = 0; k < s->state.n; k++)
            meets += first < s->slices[k].first + s->slices[k].count
                && s->slices[k].first < first + count && s->slices[k].count > 0;
        want += meets ? 3 * count * sizeof(float) : 0;
    }
    if (saved->bytes_read == want)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_STATE, "%llu bytes read, not %llu",
                    (unsigned long long)saved->bytes_read, (unsigned long long)want);
}

static dls_status load_side(shard_side *s)
{
    dls_shards saved;
    size_t n = dls_zero_elements(s->zero);
    DLS_TRY(dls_shards_find(root, INT64_MAX, &saved));
    if (saved.files == 0 || saved.about.step != s->about.step)
        return DLS_FAIL(DLS_ERR_STATE, "found step %lld", (long long)saved.about.step);
    DLS_TRY(dls_checkpoint_check_layout(&saved.about, &s->model->params));
    DLS_TRY(dls_shards_read(&saved, &s->state));
    DLS_TRY(check_bytes_read(s, &saved, s->about.step % 4 ? saved.files : 1));
    DLS_TRY(dls_zero_put(s->zero, s->state.values, s->state.m, s->state.v));
    DLS_TRY(dls_zero_fetch(s->zero, s->state.values, s->state.m, s->state.v));
    for (int i = 0; i < s->state.n; i++)
        for (size_t k = 0; k < s->slices[i].count; k++)
            for (size_t a = 0; a < 3; a++)
                if (s->arrays[a * n + s->slices[i].at + k]
                    != (float)(a * 1000000 + s->slices[i].first + k))
                    return DLS_FAIL(DLS_ERR_STATE, "array %zu, element %zu: %g", a,
                                    s->slices[i].first + k,
                                    s->arrays[a * n + s->slices[i].at + k]);
    dls_shards_close(&saved);
    return DLS_OK;
}

/* test resharding */
static dls_status save_or_load(int rank, void *arg)
{
    const reshard *r = arg;
    static shard_side s;
    (void)rank;
    DLS_TRY(open_shard_side(&s, r));
    DLS_TRY(r->save ? save_side(&s) : load_side(&s));
    dls_zero_destroy(s.zero);
    dls_transformer_free(s.model);
    dls_ctx_destroy(&s.ctx);
    dls_comm_destroy(s.comm);
    return DLS_OK;
}

static void run_shards(int n, int stage, int step, int save)
{
    reshard r = {stage, step, save};
    dls_status s = dls_run_ranks(n, save_or_load, &r);
    cr_assert_eq(s, DLS_OK, "%s by %d ranks, stage %d: %s", save ? "saved" : "loaded", n,
                 stage, dls_status_message());
}

Test(shards, saved_by_n_is_loaded_by_m)
{
    make_corpus();
    for (int n = 1; n <= 5; n++) {
        run_shards(n, n % 4, n, 1);
        for (int m = 1; m <= 5; m++)
            run_shards(m, (n + m) % 4, n, 0);
    }
    remove_root();
}

/* test damaged shards */
enum { FLIP_FIRST, CUT, REMOVE, FLIP_LAST };

static void damage(const char *directory, int step, const char *name, int how)
{
    char path[PATH_MAX], *data;
    size_t size;
    snprintf(path, sizeof path, "%s/%s/checkpoint-%08d.shards/%s", root, directory, step,
             name);
    OK(dls_file_read(path, &data, &size));
    data[how == FLIP_LAST ? size - 1 : 0] ^= how != CUT;
    if (how == REMOVE)
        cr_assert_eq(unlink(path), 0);
    else
        OK(dls_file_write(path, data, how == CUT ? size - 1 : size));
    free(data);
}

Test(shards, what_is_damaged_is_passed_over)
{
    make_corpus();
    const char *const names[] = {"rank-0001.dls", "manifest"};
    for (int f = 0; f < 2; f++)
        for (int how = FLIP_FIRST; how <= REMOVE; how++) {
            dls_shards s;
            run_shards(2, 1, 1, 1);
            run_shards(3, 3, 2, 1);
            run_shards(2, 2, 2, 0);
            damage(".", 2, names[f], how);
            OK(dls_shards_find(root, INT64_MAX, &s));
            cr_assert_eq(s.about.step, 1, "%s, %d", names[f], how);
            dls_shards_close(&s);
            run_shards(5, 3, 1, 0);
        }
    remove_root();
}

static void expect_same_shards(const char *a, const char *b)
{
    char command[512];
    snprintf(command, sizeof command, "cd %s && diff -r %s/checkpoint-00000020.shards "
             "%s/checkpoint-00000020.shards && diff %s/metrics.jsonl %s/metrics.jsonl",
             root, a, b, a, b);
    cr_assert_eq(system(command), 0, "%s and %s differ", a, b);
}

Test(shards, damage_that_one_rank_meets_sends_all_back)
{
    run calm = {"calm", {"data_parallel=zero2"}, 0}, hurt = calm;
    hurt.directory = "hurt";
    make_corpus();
    OK(dls_run_ranks(3, train_rank, &calm));
    OK(dls_run_ranks(3, train_rank, &hurt));
    damage("hurt", 20, "rank-0002.dls", FLIP_LAST);
    OK(dls_run_ranks(3, train_rank, &hurt));
    expect_same_shards("calm", "hurt");
    damage("hurt", 20, "rank-0002.dls", FLIP_LAST);
    damage("hurt", 10, "rank-0000.dls", FLIP_LAST);
    cr_assert_eq(dls_run_ranks(3, train_rank, &hurt), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "none of its 2 sharded checkpoints is good"),
              "%s", dls_status_message());
    remove_root();
}

Test(shards, what_one_rank_can_not_write_fails_on_all)
{
    char path[PATH_MAX];
    reshard r = {3, 2, 1};
    dls_shards s;
    make_corpus();
    run_shards(3, 2, 1, 1);
    snprintf(path, sizeof path, "%s/checkpoint-00000002.shards.part", root);
    OK(dls_file_write(path, "in the way", 10));
    cr_assert_eq(dls_run_ranks(3, save_or_load, &r), DLS_ERR_IO);
    cr_assert(strstr(dls_status_message(), "checkpoint") != NULL, "%s",
              dls_status_message());
    OK(dls_shards_find(root, INT64_MAX, &s));
    cr_assert_eq(s.about.step, 1);
    dls_shards_close(&s);
    remove_root();
}

/* run in every mode */
static void read_losses(const char *directory, double *losses, int n)
{
    char path[PATH_MAX], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", root, directory);
    OK(dls_file_read(path, &text, &size));
    for (int i = 0; i < n; i++)
        losses[i] = NAN;
    for (char *line = text; line; line = strchr(line, '\n')) {
        long long step;
        double loss;
        line += *line == '\n';
        if (sscanf(line, "{\"step\":%lld,\"loss\":%lf", &step, &loss) == 2 && step <= n)
            losses[step - 1] = loss;
        if (!*line)
            break;
    }
    free(text);
}

static void train_in_mode(int n, run r)
{
    dls_status s = dls_run_ranks(n, train_rank, &r);
    cr_assert_eq(s, DLS_OK, "%s, %d ranks: %s", r.directory, n, dls_status_message());
}

/* test that modes agree */
static const struct { int n; run run; } modes[] = {
    {1, {"one", {NULL}, 0}},
    {3, {"ddp", {"data_parallel=ddp", NULL}, 0}},
    {3, {"zero1", {"data_parallel=zero1", NULL}, 0}},
    {4, {"zero2", {"data_parallel=zero2", NULL}, 0}},
    {5, {"zero3", {"data_parallel=zero3", "zero.prefetch=2", NULL}, 0}},
    {3, {"keep", {"data_parallel=zero3", "zero.keep_forward=true", NULL}, 0}},
    {2, {"uneven", {"data_parallel=zero3", "train.evaluate_windows=5",
                    "train.micro_batch=1", NULL}, 0}},
    {4, {"copies", {"data_parallel=hybrid", "zero.shard_size=2", NULL}, 0}},
    {2, {"offload", {"data_parallel=zero2", "zero.offload=true", NULL}, 0}},
};

/* What the run predicted for each purpose is what its device had, and its peak. */
static void check_memory(const char *directory, int rank)
{
    const char *const names[] = {"parameters", "gradients", "optimizer", "activations"};
    char path[PATH_MAX], key[64], *text;
    size_t size, is[3];
    snprintf(path, sizeof path, "%s/%s/memory-rank-%d.json", root, directory, rank);
    OK(dls_file_read(path, &text, &size));
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "\"%s\":", names[i]);
        const char *at = strstr(text, key);
        cr_assert(at && sscanf(at + strlen(key), "{\"predicted\":%zu,\"current\":%zu,"
                               "\"peak\":%zu", &is[0], &is[1], &is[2]) == 3, "%s", text);
        cr_assert(is[0] > 0 && is[0] == is[1] && is[0] == is[2],
                  "%s, rank %d, %s: predicted %zu, current %zu, peak %zu", directory,
                  rank, names[i], is[0], is[1], is[2]);
    }
    free(text);
}

Test(shards, losses_of_all_modes_agree)
{
    double one[20], mine[20];
    make_corpus();
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        train_in_mode(modes[i].n, modes[i].run);
        read_losses(modes[i].run.directory, i ? mine : one, 20);
        check_memory(modes[i].run.directory, 0);
        check_memory(modes[i].run.directory, modes[i].n - 1);
        for (int k = 0; i && k < 20; k++)
            cr_assert(fabs(mine[k] - one[k]) <= 1e-5, "%s, step %d: %.9g and %.9g",
                      modes[i].run.directory, k + 1, mine[k], one[k]);
    }
    remove_root();
}

/* test that modes resume each other */
Test(shards, any_mode_resumes_any_other)
{
    static const char *const keys[] = {"data_parallel=ddp", "data_parallel=zero1",
                                       "data_parallel=zero3"};
    double whole[20], parts[20];
    make_corpus();
    train_in_mode(2, (run){"whole", {NULL}, 0});
    read_losses("whole", whole, 20);
    for (int from = 0; from < 3; from++)
        for (int to = 0; to < 3; to++) {
            char name[16];
            snprintf(name, sizeof name, "run-%d-%d", from, to);
            run r = {name, {keys[from], "train.steps=20", NULL}, 11};
            dls_run_ranks(2 + from, train_rank, &r); // rank 1 is killed after step 11
            train_in_mode(2 + to, (run){name, {keys[to], NULL}, 0});
            read_losses(name, parts, 20);
            for (int k = 10; k < 20; k++)
                cr_assert(fabs(parts[k] - whole[k]) <= 1e-5, "%s, step %d: %.9g, %.9g",
                          name, k + 1, parts[k], whole[k]);
        }
    remove_root();
}

/* tests/train/test_reshard.c: from chapters/07-together-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Checkpoints from one layout to another: the state is the same, bit for bit. */
#include "run.h"

#include "train/shards.h"
#include "train/slices.h"

/* hold a state against a checkpoint */
/* The whole state of a directory's newest checkpoint, of either kind: values, first and
 * second moments of 8 bytes each. */
static dls_status read_whole(const dls_trainer *t, char **whole)
{
    size_t n = t->whole.elements;
    dls_zero_slice all = {0, n, 0};
    dls_checkpoint c;
    dls_shards s;
    *whole = malloc(3 * n * 8);
    if (!*whole)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory");
    dls_shard_state to = {.slices = &all, .n = 1, .values = *whole, .m = *whole + n * 8,
                          .v = *whole + 2 * n * 8};
    DLS_TRY(dls_shards_find(t->config->output, INT64_MAX, &s));
    DLS_TRY(dls_checkpoint_find(t->config->output, &c));
    if (s.files > 0 && (!c.file || s.about.step > c.step))
        return dls_shards_read(&s, &to);
    memcpy(to.values, c.values, n * 8);
    memcpy(to.m, c.m, n * 8);
    memcpy(to.v, c.v, n * 8);
    return DLS_OK;
}

static dls_status compare_state(dls_trainer *t)
{
    dls_held_state h;
    char *whole;
    DLS_TRY(read_whole(t, &whole));
    DLS_TRY(dls_trainer_hold(t, &h, 0));
    DLS_TRY(dls_trainer_fetch(t, &h.state));
    const char *mine[] = {h.state.values, h.state.m, h.state.v};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < h.state.n; i++) {
            const dls_zero_slice *s = &h.state.slices[i];
            const char *there = whole + ((size_t)k * t->whole.elements + s->first) * 8;
            if (memcmp(mine[k] + s->at * 8, there, s->count * 8) != 0)
                return DLS_FAIL(DLS_ERR_STATE, "array %d, elements %zu ...: not what the "
                                "checkpoint has", k, s->first);
        }
    dls_trainer_drop(&h);
    free(whole);
    return DLS_OK;
}

/* Two steps and a checkpoint; or only a look at what was loaded. */
static int only_look;

static dls_status reshard_rank(int rank, void *arg)
{
    dls_train_config c;
    dls_config *cfg;
    dls_comm *comm;
    dls_trainer *t;
    (void)rank;
    DLS_TRY(load_settings(arg, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    if (only_look && t->step == 0)
        return DLS_FAIL(DLS_ERR_STATE, "nothing was loaded");
    for (int i = 0; i < 2 && !only_look; i++)
        DLS_TRY(dls_trainer_step(t));
    if (!only_look)
        DLS_TRY(dls_trainer_save(t));
    DLS_TRY(compare_state(t));
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    dls_config_free(cfg);
    return DLS_OK;
}

/* draw a layout */
typedef struct drawn { int ranks; char text[6][48]; } drawn;

/* Layout number `k` of a seed: sizes with a product of at most 8, a mode, a schedule. */
static drawn draw(uint64_t seed, uint32_t k)
{
    static const char *const modes[] = {"ddp", "zero1", "zero2", "zero3"};
    static const char *const schedules[] = {"1f1b", "zb-h1", "zb-v", "gpipe"};
    int size[4], ranks;                 // tp, pp, cp, dp
    for (uint32_t again = 0;; again++) {
        ranks = 1;
        for (uint32_t i = 0; i < 4; i++) {
            int draw = (int)(dls_rng_u32(seed, 100 * k + again, i) >> 8);
            size[i] = i < 2 ? 1 << draw % 3 : i == 2 ? 1 << draw % 2 : 1 + draw % 3;
            ranks *= size[i];
        }
        if (ranks <= 8 && size[1] <= 2)
            break;
    }
    drawn d = {.ranks = ranks};
    snprintf(d.text[0], sizeof *d.text, "parallel.tp=%d", size[0]);
    snprintf(d.text[1], sizeof *d.text, "parallel.pp=%d", size[1]);
    snprintf(d.text[2], sizeof *d.text, "parallel.cp=%d", size[2]);
    snprintf(d.text[3], sizeof *d.text, "data_parallel=%s",
             modes[dls_rng_u32(seed, k, 90) % 4]);
    snprintf(d.text[4], sizeof *d.text, "resume=auto");
    if (size[1] > 1)
        snprintf(d.text[4], sizeof *d.text, "pipeline.schedule=%s",
                 schedules[dls_rng_u32(seed, k, 91) % 4]);
    return d;
}

/* test chains of layouts */
static void run_drawn(const drawn *d, const char *const common[4], int look)
{
    run r = {"moved", {common[0], common[1], common[2], common[3]}, 0};
    int k = 0;
    while (r.changes[k])
        k++;
    for (int i = 0; i < 5; i++)
        r.changes[k++] = d->text[i];
    only_look = look;
    dls_status s = dls_run_ranks(d->ranks, reshard_rank, &r);
    cr_assert_eq(s, DLS_OK, "%d ranks, %s %s %s %s %s: %s", d->ranks, d->text[0],
                 d->text[1], d->text[2], d->text[3], d->text[4], dls_status_message());
}

/* A chain of layouts: each loads what the one before has saved, goes on, and saves. The
 * first and the last have their checkpoint in one file. */
static void reshard(uint64_t seed, int layouts, const char *const common[4])
{
    static const drawn one = {1, {"parallel.tp=1", "parallel.pp=1", "parallel.cp=1",
                                  "data_parallel=ddp", "resume=auto"}};
    run_drawn(&one, common, 0);
    for (int k = 0; k < layouts; k++) {
        drawn d = draw(seed, (uint32_t)k);
        run_drawn(&d, common, 1);
        run_drawn(&d, common, 0);
    }
    run_drawn(&one, common, 1);
    run_drawn(&one, common, 0);
}

static const char *const gpt[4] = {"train.dtype=f64", "model.heads=4",
                                   "model.vocabulary=259"};
static const char *const llama[4] = {"train.dtype=f64", "model.heads=4",
                                     "model.kv_heads=2", "model.family=llama"};

Test(reshard, gpt_with_a_seed, .init = make_corpus, .fini = remove_root)
{
    reshard(1, 4, gpt);
}

Test(reshard, gpt_with_another, .init = make_corpus, .fini = remove_root)
{
    reshard(2, 4, gpt);
}

Test(reshard, llama_with_a_seed, .init = make_corpus, .fini = remove_root)
{
    reshard(3, 4, llama);
}

Test(reshard, llama_with_another, .init = make_corpus, .fini = remove_root)
{
    reshard(4, 4, llama);
}

/* test resuming in a layout */
/* The bytes of all files of the last step's checkpoint. */
static void assert_same_checkpoint(const char *a, const char *b, int ranks)
{
    for (int i = 0; i <= ranks; i++) {
        char path[2][256], *data[2];
        size_t size[2];
        const char *both[] = {a, b};
        for (int k = 0; k < 2; k++) {
            int n = snprintf(path[k], 256, "%s/%s/checkpoint-00000009.shards/", root,
                             both[k]);
            snprintf(path[k] + n, 256 - (size_t)n, i < ranks ? "rank-%04d.dls"
                     : "manifest", i);
            OK(dls_file_read(path[k], &data[k], &size[k]));
        }
        cr_assert(size[0] == size[1] && memcmp(data[0], data[1], size[0]) == 0, "%s",
                  path[1]);
        free(data[0]);
        free(data[1]);
    }
}

static void resume_in(int ranks, const char *const changes[5])
{
    run whole = {"whole", {"resume=never", "train.steps=9", "train.checkpoint_every=4",
                           changes[0], changes[1], changes[2], changes[3], changes[4]},
                 0};
    run killed = whole;
    killed.directory = "killed";
    killed.die_at = 6;
    OK(dls_run_ranks(ranks, train_rank, &whole));
    cr_assert_neq(dls_run_ranks(ranks, train_rank, &killed), DLS_OK);
    killed.die_at = 0;
    killed.changes[0] = "resume=auto";
    OK(dls_run_ranks(ranks, train_rank, &killed));
    assert_same_checkpoint("whole", "killed", ranks);
}

Test(reshard, resumed_runs_end_in_the_same_bytes, .init = make_corpus,
     .fini = remove_root)
{
    resume_in(8, (const char *[5]){"parallel.tp=2", "parallel.pp=2", "parallel.dp=2",
                                   "model.dropout=0.1"});
    resume_in(8, (const char *[5]){"parallel.tp=2", "parallel.cp=2", "train.dtype=bf16",
                                   "data_parallel=zero2"});
}

/* refuse damaged parts */
/* One line, about `why`, and a run that did not begin. */
static void expect_refusal(const run *r, int ranks, const char *why)
{
    run again = *r;
    cr_assert_neq(dls_run_ranks(ranks, train_rank, &again), DLS_OK);
    const char *message = dls_status_message();
    cr_assert(strstr(message, why) && !strchr(message, '\n'), "%s", message);
}

Test(reshard, a_missing_part_and_a_changed_shape_are_one_line, .init = make_corpus,
     .fini = remove_root)
{
    run r = {"parts", {"train.steps=2", "parallel.tp=2"}, 0};
    char path[256];
    OK(dls_run_ranks(4, train_rank, &r));
    r.changes[2] = "model.vocabulary=300";
    expect_refusal(&r, 4, "model.vocabulary");
    r.changes[2] = "parallel.pp=2";
    snprintf(path, sizeof path, "%s/parts/checkpoint-00000002.shards/rank-0001.dls",
             root);
    cr_assert_eq(unlink(path), 0);
    expect_refusal(&r, 4, "none of its 1 sharded checkpoints is good");
}

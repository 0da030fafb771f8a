/* tests/train/test_expert_mesh.c: from chapters/08-expert-mesh-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Models with experts in the training program, over both meshes. */
#include "run.h"

#include "train/layout.h"
#include "train/predict.h"
#include "train/shards.h"
#include "train/slices.h"

/* describe a small mixture */
#define MIXTURE                                                                        \
    "train.dtype=f64", "train.global_batch=7", "train.micro_batch=1",                 \
    "model.heads=4", "model.moe.experts=8", "model.moe.chosen=2",                      \
    "model.moe.hidden=12"

static const char *const more[] = {"model.moe.shared=1", "model.moe.z_loss=0.01",
                                   "model.moe.aux_sequence=0.02",
                                   "model.moe.bias_rate=0.02", "train.steps=3",
                                   "train.checkpoint_every=3", "train.log_every=1",
                                   "train.evaluate_every=3"};

/* One layout: ranks, and its settings. */
typedef struct layout { int ranks; const char *set[6]; } layout;

/* The settings of a mixture in a layout, in `directory`. */
static dls_status load_mixture(const char *directory, const layout *l, dls_config **cfg,
                               dls_train_config *c)
{
    static const char *const base[] = {MIXTURE};
    run r = {.directory = directory, .changes = {"resume=auto"}};
    DLS_TRY(load_settings(&r, cfg, c));
    for (size_t i = 0; i < sizeof base / sizeof *base; i++)
        DLS_TRY(dls_config_override(*cfg, base[i]));
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        DLS_TRY(dls_config_override(*cfg, more[i]));
    for (int i = 0; i < 6 && l->set[i]; i++)
        DLS_TRY(dls_config_override(*cfg, l->set[i]));
    return dls_train_config_load(*cfg, c);
}

/* count over all foldings */
/* times[i] += 1 for each element of the whole model that a rank counts. */
static void count_rank(const dls_params *whole, const dls_train_place *p,
                       unsigned char *times)
{
    dls_counter who = {p->tensor_rank, p->holder, p->model.sharding.expert_tensor_rank,
                       p->expert_holder};
    dls_params set = {0};
    OK(dls_transformer_list(&p->model, &set));
    for (dls_stretch s = {0}; dls_counted_next(set.items, set.n, &who, NULL, 0, &s);)
        for (int i = 0; i < set.n; i++) {
            const dls_param *a = &set.items[i], *b = dls_params_find(whole, a->name);
            for (size_t e = a->offset; e < a->offset + a->count; e++)
                if (e >= s.first && e < s.first + s.count)
                    times[b->offset + dls_param_global(a, e - a->offset, NULL, NULL)]++;
        }
    dls_params_free(&set);
}

static void count_mesh(const dls_train_config *c, int world)
{
    dls_params whole = {0};
    OK(dls_transformer_list(&c->model, &whole));
    unsigned char *times = calloc(whole.elements, 1);
    for (int r = 0; r < world; r++) {
        dls_train_place p;
        OK(dls_train_place_of(c, r, world, &p));
        count_rank(&whole, &p, times);
    }
    for (size_t i = 0; i < whole.elements; i++)
        cr_assert_eq(times[i], 1, "tp %d, cp %d, ep %d, etp %d on %d ranks: element %zu "
                     "counts %d times", c->mesh.size[DLS_AXIS_TP],
                     c->mesh.size[DLS_AXIS_CP], c->mesh.ep, c->mesh.etp, world, i,
                     times[i]);
    free(times);
    dls_params_free(&whole);
}

Test(expert_mesh, every_folding_counts_each_element_once)
{
    dls_train_config c = {.model = dls_transformer_gpt2(64, 8, 1, 8, 16)};
    int n = 0;
    c.model.moe = (dls_moe){.experts = 8, .chosen = 2, .hidden = 16, .shared = 1};
    for (int tp = 1; tp <= 8; tp *= 2)
        for (int cp = 1; tp * cp <= 8; cp *= 2)
            for (int ep = 1; ep <= 8; ep *= 2)
                for (int etp = 1; ep * etp <= 8; etp *= 2, n++) {
                    c.mesh = (dls_mesh){.size = {tp, cp, 1, 0}, .ep = ep, .etp = etp};
                    c.sharding.sequence = tp > 1;
                    count_mesh(&c, 8);
                }
    cr_assert_eq(n, 100);
}

/* compare a training with one device */
static dls_status train_mixture(int rank, void *arg)
{
    const layout *l = arg;
    dls_train_config c;
    dls_config *cfg;
    dls_comm *comm;
    (void)rank;
    if (!freopen("/dev/null", "w", stdout))
        return DLS_FAIL(DLS_ERR_IO, "cannot silence the progress");
    DLS_TRY(load_mixture(l->ranks == 1 ? "one" : "many", l, &cfg, &c));
    c.resume = 0;
    DLS_TRY(dls_comm_create(&comm, NULL));
    dls_status s = dls_train_run(&c, comm);
    if (s == DLS_OK)
        dls_comm_destroy(comm);
    dls_config_free(cfg);
    return s;
}

/* The largest difference of two lists, by the size of the number. */
static double apart(const double *a, const double *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double size = fabs(a[i]) > 1e-3 ? fabs(a[i]) : 1e-3;
        double d = fabs(a[i] - b[i]) / size;
        worst = d > worst || !(d == d) ? d : worst;
    }
    return worst;
}

/* Values and moments of the newest checkpoint in a directory below the root. */
static double *state_of(const char *directory, size_t *n)
{
    char path[256];
    dls_shards s;
    snprintf(path, sizeof path, "%s/%s", root, directory);
    OK(dls_shards_find(path, INT64_MAX, &s));
    cr_assert_gt(s.files, 0);
    *n = 3 * s.about.elements;
    double *all = malloc(*n * sizeof *all);
    dls_zero_slice whole = {0, s.about.elements, 0};
    dls_shard_state to = {.slices = &whole, .n = 1, .values = all,
                          .m = all + s.about.elements, .v = all + 2 * s.about.elements};
    OK(dls_shards_read(&s, &to));
    dls_shards_close(&s);
    return all;
}

static void compare_key(const char *key, const char *what)
{
    double one[16], many[16];
    int n = numbers_of("one", key, one);
    cr_assert(n > 0 && numbers_of("many", key, many) == n, "%s: %s", what, key);
    cr_assert_lt(apart(one, many, (size_t)n), 1e-12, "%s: %s %.17g, not %.17g", what, key,
                 many[n - 1], one[n - 1]);
}

static void compare(const layout *l)
{
    char what[256] = "";
    size_t n, m;
    for (int i = 0; i < 6 && l->set[i]; i++)
        strcat(strcat(what, l->set[i]), " ");
    cr_assert_eq(dls_run_ranks(l->ranks, train_mixture, (void *)l), DLS_OK, "%s: %s",
                 what, dls_status_message());
    compare_key("\"loss\":", what);
    compare_key("\"gradient_norm\":", what);
    compare_key("\"validation_loss\":", what);
    double *one = state_of("one", &n), *many = state_of("many", &m);
    cr_assert_eq(n, m);
    cr_assert_lt(apart(one, many, n), 1e-9, "%s: the state differs", what);
    free(one);
    free(many);
}

/* test trainings with experts */
static void compare_all(const layout *l, int n)
{
    const layout one = {1, {NULL}};
    OK(dls_run_ranks(1, train_mixture, (void *)&one));
    for (int i = 0; i < n; i++)
        compare(&l[i]);
}

Test(expert_mesh, replicas_and_tensor_ranks_train_like_one_device, .init = make_corpus,
     .fini = remove_root)
{
    static const layout l[] = {
        {2, {"parallel.ep=2"}},
        {3, {"parallel.etp=3"}},
        {8, {"parallel.ep=8"}},
        {4, {"parallel.tp=2", "parallel.ep=4"}},
        {4, {"parallel.tp=4", "parallel.ep=2", "parallel.sequence=false"}},
        {8, {"parallel.tp=2", "parallel.cp=2", "parallel.ep=2", "parallel.etp=2"}},
        {4, {"parallel.cp=2", "parallel.ep=4"}},
        {2, {"parallel.tp=2"}}};
    compare_all(l, 8);
}

Test(expert_mesh, cut_states_train_like_one_device, .init = make_corpus,
     .fini = remove_root)
{
    static const layout l[] = {
        {4, {"parallel.ep=2", "data_parallel=zero1"}},
        {4, {"parallel.ep=2", "data_parallel=zero2"}},
        {8, {"parallel.ep=4", "data_parallel=zero3"}},
        {8, {"parallel.ep=8", "data_parallel=zero3", "zero.prefetch=0"}},
        {4, {"parallel.tp=2", "parallel.ep=2", "data_parallel=zero3"}},
        {2, {"parallel.tp=2", "data_parallel=zero3", "zero.keep_forward=true"}},
        {8, {"parallel.pp=2", "parallel.ep=2", "data_parallel=zero3"}},
        {4, {"parallel.ep=2", "data_parallel=zero2", "zero.offload=true"}}};
    compare_all(l, 8);
}

Test(expert_mesh, pipelines_train_like_one_device, .init = make_corpus,
     .fini = remove_root)
{
    static const layout l[] = {
        {4, {"parallel.pp=2", "parallel.ep=2"}},
        {8, {"parallel.pp=2", "parallel.tp=2", "parallel.ep=2", "parallel.etp=2",
             "pipeline.schedule=zb-h1"}},
        {8, {"parallel.pp=2", "parallel.ep=4", "pipeline.schedule=chimera",
             "pipeline.microbatches=2", "train.micro_batch=2"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.post_validation=true"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=dualpipev",
             "pipeline.microbatches=4"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=dualpipe",
             "pipeline.microbatches=4"}}};
    compare_all(l, 6);
}

/* compare a state with a checkpoint */
static dls_status compare_state(dls_trainer *t)
{
    dls_held_state h;
    size_t n;
    const double *whole = state_of("moved", &n), *at;
    DLS_TRY(dls_trainer_hold(t, &h, 0));
    DLS_TRY(dls_trainer_fetch(t, &h.state));
    const double *mine[] = {h.state.values, h.state.m, h.state.v};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < h.state.n; i++) {
            const dls_zero_slice *s = &h.state.slices[i];
            at = whole + (size_t)k * (n / 3) + s->first;
            if (memcmp(mine[k] + s->at, at, s->count * sizeof *at) != 0)
                return DLS_FAIL(DLS_ERR_STATE, "array %d, elements %zu ...: not what the "
                                "checkpoint has", k, s->first);
        }
    dls_trainer_drop(&h);
    free((double *)whole);
    return DLS_OK;
}

static dls_status move_rank(int rank, void *arg)
{
    const layout *l = arg;
    dls_train_config c;
    dls_config *cfg;
    dls_comm *comm;
    dls_trainer *t;
    (void)rank;
    DLS_TRY(load_mixture("moved", l, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    if (t->step > 0)
        DLS_TRY(compare_state(t));
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(dls_trainer_save(t));
    DLS_TRY(compare_state(t));
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    dls_config_free(cfg);
    return DLS_OK;
}

/* test resharding experts */
static void expect_biases(void)
{
    size_t n, nonzero = 0;
    double *all = state_of("moved", &n);
    for (size_t i = n / 3 - 2 * 8; i < n / 3; i++) {    // two layers of eight
        double steps = all[i] / 0.02;
        cr_assert_float_eq(steps, round(steps), 1e-9, "bias %g", all[i]);
        nonzero += all[i] != 0;
    }
    cr_assert_gt(nonzero, 4);
    free(all);
}

Test(expert_mesh, checkpoints_go_from_any_layout_to_any_other, .init = make_corpus,
     .fini = remove_root)
{
    static const layout l[] = {
        {4, {"parallel.ep=4"}},
        {8, {"parallel.tp=2", "parallel.ep=2", "parallel.etp=2", "data_parallel=zero3"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "data_parallel=zero1"}},
        {1, {NULL}},
        {3, {"parallel.etp=3"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=chimera",
             "pipeline.microbatches=4"}},
        {2, {"parallel.tp=2"}}};
    for (int i = 0; i < 7; i++)
        cr_assert_eq(dls_run_ranks(l[i].ranks, move_rank, (void *)&l[i]), DLS_OK,
                     "layout %d: %s", i, dls_status_message());
    expect_biases();
}

/* Three steps in `many`; or one more in `moved`. */
static dls_status step_rank(int rank, void *arg)
{
    const layout *l = arg;
    int steps = l->set[5] ? 1 : 3;
    dls_train_config c;
    dls_config *cfg;
    dls_comm *comm;
    dls_trainer *t;
    (void)rank;
    DLS_TRY(load_mixture(steps == 1 ? "moved" : "many", l, &cfg, &c));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_trainer_create(&t, &c, comm));
    for (int i = 0; i < steps; i++) {
        DLS_TRY(dls_trainer_step(t));
        t->meter.n = 0;
    }
    DLS_TRY(dls_trainer_save(t));
    dls_trainer_free(t);
    dls_comm_destroy(comm);
    dls_config_free(cfg);
    return DLS_OK;
}

static void resume_in(layout l)
{
    size_t n, m;
    OK(dls_run_ranks(l.ranks, step_rank, &l));
    l.set[5] = "resume=auto";
    for (int i = 0; i < 3; i++)
        OK(dls_run_ranks(l.ranks, step_rank, &l));
    double *straight = state_of("many", &n), *resumed = state_of("moved", &m);
    cr_assert(n == m && memcmp(straight, resumed, n * sizeof *resumed) == 0,
              "%s %s: a resumed run differs", l.set[0], l.set[1]);
    free(straight);
    free(resumed);
}

Test(expert_mesh, resumed_runs_end_in_the_same_bits, .init = make_corpus,
     .fini = remove_root)
{
    resume_in((layout){4, {"parallel.ep=2", "data_parallel=zero2"}});
}

Test(expert_mesh, resumed_pipelines_end_in_the_same_bits, .init = make_corpus,
     .fini = remove_root)
{
    resume_in((layout){4, {"parallel.pp=2", "parallel.ep=2", "model.dropout=0.1"}});
}

/* test the memory of layouts */
static void check_memory(int rank, const char *what)
{
    char path[256], *text;
    size_t size, want, is;
    int n = 0;
    snprintf(path, sizeof path, "%s/weighed/memory-rank-%d.json", root, rank);
    OK(dls_file_read(path, &text, &size));
    for (char *at = text; (at = strstr(at, "{\"predicted\":")) != NULL; at++, n++) {
        cr_assert_eq(sscanf(at, "{\"predicted\":%zu,\"current\":%*u,\"peak\":%zu", &want,
                            &is), 2);
        cr_assert_eq(want, is, "%s: rank %d, purpose %d: %zu, predicted %zu", what, rank,
                     n, is, want);
    }
    cr_assert_geq(n, 5);
    free(text);
}

static void weigh(const layout *l)
{
    run r = {"weighed", {"resume=never", "model.moe.experts=8", "model.moe.chosen=2",
                         "model.moe.hidden=12", "model.moe.bias_rate=0.01",
                         "train.steps=2", "model.heads=4", "train.global_batch=10"}, 0};
    for (int i = 0; i < 6; i++)
        r.changes[8 + i] = l->set[i];
    cr_assert_eq(dls_run_ranks(l->ranks, train_rank, &r), DLS_OK, "%s: %s", l->set[0],
                 dls_status_message());
    for (int i = 0; i < l->ranks; i++)
        check_memory(i, l->set[0]);
}

Test(expert_mesh, memory_is_what_was_predicted, .init = make_corpus, .fini = remove_root)
{
    static const layout l[] = {
        {1, {"model.moe.shared=2"}},
        {4, {"parallel.ep=2"}},
        {4, {"parallel.tp=2", "parallel.ep=2", "model.moe.aux_batch=0.01"}},
        {4, {"parallel.tp=2", "parallel.etp=2", "model.moe.capacity=1.25"}},
        {4, {"parallel.cp=2", "parallel.ep=2", "model.moe.aux_sequence=0.01"}},
        {4, {"parallel.ep=2", "data_parallel=zero3", "train.dtype=bf16"}},
        {4, {"parallel.tp=2", "data_parallel=zero2", "model.recompute=full"}},
        {8, {"parallel.pp=2", "parallel.ep=4", "data_parallel=zero3"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=chimera"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=dualpipe",
             "train.global_batch=16"}},
        {4, {"parallel.ep=2", "parallel.tp=2", "parallel.dispatch=one-sided"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "parallel.dispatch=one-sided",
             "model.moe.dense_layers=1", "model.moe.capacity=1.25"}},
        {4, {"parallel.pp=2", "parallel.ep=2", "pipeline.schedule=dualpipe",
             "train.global_batch=16", "parallel.dispatch=one-sided"}}};
    for (size_t i = 0; i < sizeof l / sizeof *l; i++)
        weigh(&l[i]);
}

/* test refusals of experts */
/* The message of a layout that is refused for `world` ranks; dense 1: without experts. */
static void refuse_model(int world, layout l, int dense, const char *expected)
{
    dls_train_config c;
    dls_config *cfg;
    l.ranks = world;
    OK(load_mixture("refused", &l, &cfg, &c));
    if (dense)
        c.model.moe = (dls_moe){0};
    cr_assert_eq(dls_train_check_shape(&c, world), DLS_ERR_INPUT, "%s: accepted",
                 l.set[0]);
    cr_assert_str_eq(dls_status_message(), expected);
    dls_config_free(cfg);
}

static void refuse(int world, layout l, const char *expected)
{
    refuse_model(world, l, 0, expected);
}

Test(expert_mesh, what_can_not_be_is_refused_in_one_line)
{
    refuse(3, (layout){0, {"parallel.ep=3"}}, "parallel.ep: expected a divisor of "
           "model.moe.experts 8, got 3; the nearest that works is 1");
    refuse(8, (layout){0, {"parallel.etp=8"}}, "parallel.etp: expected a divisor of "
           "model.moe.hidden 12, got 8; the nearest that works is 4");
    refuse(4, (layout){0, {"parallel.ep=8"}}, "parallel.ep: expected a divisor of tp 1 * "
           "cp 1 * dp 4 / etp 1 = 4, got 8; the nearest is 4");
    refuse(4, (layout){0, {"parallel.ep=4", "parallel.etp=3"}}, "parallel.etp: expected "
           "a divisor of tp 1 * cp 1 * dp 4 = 4, got 3; the nearest is 2");
    refuse_model(4, (layout){0, {"parallel.ep=4"}}, 1, "parallel.ep: expected 1, as the "
                 "model has no experts, got 4; the nearest that works is 1");
    refuse_model(4, (layout){0, {"parallel.etp=4"}}, 1, "parallel.etp: expected 1, as "
                 "the model has no experts, got 4; the nearest that works is 1");
    refuse(4, (layout){0, {"parallel.cp=2", "model.moe.capacity=1.25"}},
           "model.moe.capacity: expected 0 with parallel.cp 2, as a sequence's tokens "
           "are on several ranks, got 1.25");
}

Test(expert_mesh, the_planner_takes_only_balanced_mixtures)
{
    static const layout l = {1, {NULL}};
    dls_train_config c;
    dls_config *cfg;
    dls_step_costs k;
    OK(load_mixture("planned", &l, &cfg, &c));
    cr_assert_eq(dls_predict_costs(NULL, &c, 1, &k), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "model.moe.balanced: the planner expected "
                     "true, so that a step takes the same time whoever is chosen, got "
                     "false");
    dls_config_free(cfg);
}

Test(expert_mesh, what_knows_one_group_of_copies_is_refused)
{
    refuse(4, (layout){0, {"parallel.ep=2", "ddp.hook=bf16"}}, "ddp.hook: expected none, "
           "as the copies of an expert are on other ranks than those of the rest");
    refuse(2, (layout){0, {"parallel.tp=2", "ddp.reduce_dtype=bf16"}},
           "ddp.reduce_dtype: expected none, as the copies of an expert are on other "
           "ranks than those of the rest");
    refuse(4, (layout){0, {"parallel.ep=2", "data_parallel=hybrid"}}, "data_parallel: "
           "expected zero1 to zero3 over all replicas, as the copies of an expert are on "
           "other ranks than those of the rest");
}

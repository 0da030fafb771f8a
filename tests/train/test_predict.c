/* tests/train/test_predict.c: from chapters/07-planner-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Predicted steps and bytes against executed ones: random layouts, and the laws. */
#include "run.h"

#include <criterion/redirect.h>
#include <sys/mman.h>

#include "comm/scratch.h"
#include "train/layout.h"
#include "train/plan_command.h"
#include "vgpu/gpu.h"

/* draw a trial */
typedef struct trial {
    int number, world;
    char change[16][64];
    double measured, predicted, bytes, expected;    // shared by the processes
} trial;

typedef struct dice { uint64_t trial, throws; } dice;

static int roll(dice *d, int sides)
{
    return (int)(dls_rng_u32(77, d->trial, d->throws++) % (uint32_t)sides);
}

static int pick(dice *d, const int *from, int n) { return from[roll(d, n)]; }

/* What every layout may have, and what only those with a pipeline. */
static void draw_layout(trial *t)
{
    static const int tps[] = {1, 1, 1, 2, 2, 4}, cps[] = {1, 1, 1, 2, 4};
    static const int pps[] = {1, 1, 2, 2, 3, 4};
    static const char *const schedules[] = {"gpipe", "1f1b", "1f1b-eager", "interleaved",
                                            "zb-h1", "zb-h2", "zb-v", "bfs"};
    static const char *const ways[] = {"ddp", "zero1", "zero2", "zero3"};
    static const char *const recompute[] = {"none", "none", "selective", "full"};
    static const char *const context[] = {"ring", "ulysses", "gather"};
    dice d = {(uint64_t)t->number, 0};
    int tp, cp, pp, dp, replica, micro = 1 + roll(&d, 3), n = 0;
    do {
        tp = pick(&d, tps, 6), cp = pick(&d, cps, 5), pp = pick(&d, pps, 6);
        dp = 1 + roll(&d, 4);
        replica = tp * cp * pp;
    } while (replica * dp > 16 || tp * cp > 4
             || (replica * dp > 8 && 8 % replica != 0 && replica % 8 != 0));
    t->world = tp * cp * pp * dp;
    #define SAY(...) snprintf(t->change[n++], sizeof t->change[0], __VA_ARGS__)
    SAY("parallel.tp=%d", tp);
    SAY("parallel.cp=%d", cp);
    SAY("parallel.pp=%d", pp);
    SAY("train.micro_batch=%d", micro);
    SAY("train.global_batch=%d", dp * micro * (1 + roll(&d, 4)) + roll(&d, 2) * dp);
    SAY("cluster=%s", roll(&d, 3) ? "tests/train/slow.yaml" : "two-dgx-h100");
    SAY("data_parallel=%s", ways[roll(&d, pp > 1 ? 2 : 4)]);
    SAY("model.recompute=%s", recompute[roll(&d, 4)]);
    SAY("model.family=%s", roll(&d, 2) ? "gpt2" : "llama");
    if (tp > 1)
        SAY("parallel.sequence=%s", roll(&d, 3) ? "true" : "false");
    if (cp > 1)
        SAY("parallel.context=%s", context[roll(&d, 3)]);
    if (pp > 1)
        SAY("pipeline.schedule=%s", schedules[roll(&d, 8)]);
}

/* execute a trial */
enum { STEPS = 5 };

static const char trial_settings[] =
    "model: {vocabulary: 256, context: 64, layers: 6, heads: 4, channels: 128}\n"
    "data: {corpus: none, validation_fraction: 0.2}\n"
    "train: {steps: 5, global_batch: 12, learning_rate: 0.001, dtype: bf16,\n"
    "        log_every: 8}\n"
    "resume: never\n";

static dls_status load_trial(const trial *t, dls_config **cfg, dls_train_config *c)
{
    char text[256];
    DLS_TRY(dls_config_parse("trial.yaml", trial_settings, sizeof trial_settings - 1,
                             cfg));
    snprintf(text, sizeof text, "data.corpus=%s/corpus.txt", root);
    DLS_TRY(dls_config_override(*cfg, text));
    snprintf(text, sizeof text, "output=%s/trial", root);
    DLS_TRY(dls_config_override(*cfg, text));
    for (int i = 0; i < 16 && t->change[i][0]; i++)
        DLS_TRY(dls_config_override(*cfg, t->change[i]));
    return dls_train_config_load(*cfg, c);
}

/* Seconds between the beginnings of the last two steps, and the bytes at most. */
static dls_status execute(const dls_train_config *c, dls_comm *comm, double *seconds,
                          double *bytes)
{
    dls_trainer *t;
    dls_gpu_memory is;
    float ms;
    DLS_TRY(dls_trainer_create(&t, c, comm));
    for (int i = 0; i < STEPS; i++)
        DLS_TRY(dls_trainer_step(t));
    DLS_CUDA(cudaDeviceSynchronize());
    DLS_CUDA(cudaEventElapsedTime(&ms, t->meter.begin[STEPS - 3],
                                  t->meter.begin[STEPS - 1]));
    DLS_TRY(dls_gpu_memory_stats(t->ctx.device, &is));
    *seconds = ms / 2e3;
    *bytes = (double)is.total_peak;
    dls_trainer_free(t);
    return DLS_OK;
}

/* predict a trial */
static dls_status predict(const dls_train_config *c, trial *t)
{
    dls_planner planner;
    dls_step_costs k;
    size_t bytes[DLS_MEM_PURPOSES];
    DLS_TRY(dls_planner_open(&planner, c->dtype));
    dls_status s = dls_predict_costs(&planner, c, t->world, &k);
    if (s == DLS_OK) {
        for (int r = 0; s == DLS_OK && r < k.schedule.options.ranks; r++) {
            double sum = 0;
            s = dls_predict_exactly(&k, r, bytes);
            for (int p = 0; p < DLS_MEM_PURPOSES; p++)
                sum += (double)bytes[p];
            t->expected = fmax(t->expected, sum);
        }
        s = dls_predict_play(&k, 0, &t->predicted);
        dls_predict_costs_free(&k);
    }
    dls_planner_close(&planner);
    return s;
}

static dls_status run_trial(int rank, void *arg)
{
    trial *t = arg;
    dls_config *cfg;
    dls_train_config c;
    dls_comm *comm;
    typedef struct seen { double seconds, bytes; } seen;
    seen mine, all[16];
    (void)train_rank;           // a whole run is more than is timed here
    DLS_TRY(load_trial(t, &cfg, &c));
    const dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED,
                                   .cluster_file = c.cluster};
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_train_check_shape(&c, t->world));
    DLS_TRY(execute(&c, comm, &mine.seconds, &mine.bytes));
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, all));
    dls_comm_destroy(comm);
    for (int r = 0; rank == 0 && r < t->world; r++) {
        t->measured = fmax(t->measured, all[r].seconds);
        t->bytes = fmax(t->bytes, all[r].bytes);
    }
    dls_status s = rank == 0 ? predict(&c, t) : DLS_OK;
    dls_config_free(cfg);
    return s;
}

/* hold predictions against runs */
static void report_trial(FILE *out, const trial *t)
{
    fprintf(out, "%2d %2d %12.6f %12.6f %+6.2f %11.0f %11.0f %+6.2f ", t->number,
            t->world, 1e3 * t->measured, 1e3 * t->predicted,
            100 * (t->predicted / t->measured - 1), t->bytes, t->expected,
            100 * (t->expected / t->bytes - 1));
    for (int i = 0; i < 16 && t->change[i][0]; i++)
        fprintf(out, " %s", strchr(t->change[i], '.') ? strchr(t->change[i], '.') + 1
                                                      : t->change[i]);
    fprintf(out, "\n");
}

Test(predict, random_layouts, .init = make_corpus, .fini = remove_root, .timeout = 200)
{
    const char *grid = getenv("DLS_GRID"), *path = getenv("DLS_PREDICTIONS");
    int all = grid && strcmp(grid, "full") == 0, trials = 50;
    FILE *out = path ? fopen(path, "w") : NULL;
    trial *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
    cr_assert_neq(t, MAP_FAILED);
    for (int i = 0; i < trials; i++) {
        *t = (trial){.number = i};
        draw_layout(t);
        if (!all && (t->world > 4 || i % 3 != 0))
            continue;
        OK(dls_run_ranks(t->world, run_trial, t));
        if (out)
            report_trial(out, t);
        cr_expect(fabs(t->predicted / t->measured - 1) < 0.03, "layout %d of %d ranks: "
                  "%.6g ms predicted, %.6g measured", i, t->world, 1e3 * t->predicted,
                  1e3 * t->measured);
        cr_expect(fabs(t->expected / t->bytes - 1) < 0.01, "layout %d of %d ranks: %.0f "
                  "bytes predicted, %.0f measured", i, t->world, t->expected, t->bytes);
    }
    if (out)
        fclose(out);
}

Test(predict, experts_over_ranks, .init = make_corpus, .fini = remove_root)
{
    static const char *const layouts[] = {"parallel.ep=2", "parallel.ep=4",
                                          "parallel.etp=2", "parallel.wire=fp8"};
    trial *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
    cr_assert_neq(t, MAP_FAILED);
    for (int i = 0; i < 4; i++) {
        *t = (trial){.number = i, .world = 4};
        const char *const changes[] = {
            "train.global_batch=16", "train.micro_batch=4", "model.moe.experts=8",
            "model.moe.chosen=2", "model.moe.hidden=128", "model.moe.balanced=true",
            i > 1 ? "parallel.ep=2" : "model.family=llama", layouts[i]};
        for (int k = 0; k < 8; k++)
            snprintf(t->change[k], sizeof t->change[k], "%s", changes[k]);
        OK(dls_run_ranks(t->world, run_trial, t));
        cr_expect_eq(t->expected, t->bytes, "%s: %.0f bytes predicted, %.0f measured",
                     layouts[i], t->expected, t->bytes);
        cr_expect_leq(t->predicted, t->measured, "%s", layouts[i]);
        cr_expect_geq(t->predicted, 0.9 * t->measured, "%s", layouts[i]);
    }
}

/* test the algebra of parts */
static void assert_part(dls_part a, double device, double host, double late)
{
    cr_assert_float_eq(a.device, device, 1e-12);
    cr_assert_float_eq(a.host, host, 1e-12);
    cr_assert_float_eq(a.late, late, 1e-12);
}

/* Two operations of 3 and 1 us, launches 2 us apart, latency 5: the second can start at
 * 7 us, and starts when the first ends, at 8. */
Test(predict, parts_are_put_together)
{
    const dls_gpu_note notes[] = {
        {.type = DLS_NOTE_WORK, .enqueued = 0, .duration = 3, .awaited = -1},
        {.type = DLS_NOTE_WORK, .enqueued = 2, .duration = 1, .awaited = -1}};
    dls_part both, one, other;
    OK(dls_part_fold(notes, 2, 4, 0, 5, &both));
    assert_part(both, 4, 4, 9);
    OK(dls_part_fold(notes, 1, 2, 0, 5, &one));
    const dls_gpu_note second = {.type = DLS_NOTE_WORK, .duration = 1, .awaited = -1};
    OK(dls_part_fold(&second, 1, 2, 0, 5, &other));
    dls_part again = dls_part_then(one, other);
    assert_part(again, both.device, both.host, both.late);
    dls_part seven = dls_part_times(one, 7), sum = dls_part_nothing();
    for (int i = 0; i < 7; i++)
        sum = dls_part_then(sum, one);
    assert_part(seven, sum.device, sum.host, sum.late);
    assert_part(seven, 21, 14, 26);     // the device is the slower: 5 + 7 * 3
    assert_part(dls_part_times(other, 7), 7, 14, 18);   // the host is: 6 * 2 + 5 + 1
}

/* A message beside the computation: what is hidden is no talk. */
Test(predict, talk_is_what_is_waited_for)
{
    const dls_gpu_note notes[] = {
        {.type = DLS_NOTE_WORK, .stream = 1, .duration = 4, .awaited = -1},
        {.type = DLS_NOTE_RECORD, .stream = 1, .awaited = -1},
        {.type = DLS_NOTE_WAIT, .stream = 2, .awaited = 1},
        {.type = DLS_NOTE_WORK, .stream = 2, .duration = 6, .awaited = -1,
         .kind = DLS_GPU_COMMUNICATION},
        {.type = DLS_NOTE_WORK, .stream = 1, .duration = 5, .awaited = -1},
        {.type = DLS_NOTE_WAIT, .stream = 1, .awaited = 3}};
    dls_part p;
    OK(dls_part_fold(notes, 6, 0, 1, 0, &p));
    cr_assert_float_eq(p.device, 10, 1e-12);
    cr_assert_float_eq(p.talk, 1, 1e-12);
}

/* test the sizes and the search */
Test(predict, the_sizing_rules)
{
    dls_transformer_config c = dls_transformer_llama(32000, 4096, 32, 32, 32, 4096,
                                                     11008);
    dls_sizes is;
    c.tied_head = 0;
    dls_size_model(&c, 4, 2, &is);
    cr_assert_eq(is.parameters, 6738415616.0);
    cr_assert_eq(is.infer, 2 * 6738415616.0);
    cr_assert_eq(is.train, 16 * 6738415616.0);
    cr_assert_eq(is.kv_token, 2 * 32 * 4096 * 2);
    cr_assert_eq(is.cache, 4.0 * 4096 * 524288);
    cr_assert_float_eq(is.load, 6.738415616, 1e-9);
}

static dls_layout_search search_small(dls_planner *planner, const dls_train_config *base,
                                      int world, double memory)
{
    dls_layout_search s = {.base = base, .world = world, .memory = memory, .wanted = 8};
    OK(dls_search_layouts(planner, &s));
    return s;
}

/* The search skips what its bounds exclude: nothing it skipped is better. */
Test(predict, the_search_finds_the_best)
{
    const dls_gpu_options o = {.cluster_file = "two-dgx-h100", .world = 16};
    dls_train_config base;
    dls_transformer_config m = dls_transformer_gpt2(8192, 1024, 8, 16, 1024);
    dls_planner planner;
    double previous = 0;
    dls_plan_base(&m, 32, &base);
    OK(dls_gpu_init(&o));
    OK(dls_planner_open(&planner, DLS_BF16));
    dls_layout_search s = search_small(&planner, &base, 16, 80e9);
    cr_assert_eq(s.found, 8);
    for (int i = 0; i < s.found; i++) {
        double sum = 0;
        for (int k = 0; k < DLS_CAUSES; k++)
            sum += s.best[i].is.cause[k];
        cr_assert_float_eq(sum, s.best[i].is.seconds, 1e-9 * sum);
        cr_assert_geq(s.best[i].is.seconds, previous);
        cr_assert_leq(s.best[i].bound, s.best[i].is.seconds * (1 + 1e-9));
        previous = s.best[i].is.seconds;
    }
    dls_layout_search tight = search_small(&planner, &base, 16,
                                           (double)s.best[0].bytes * 0.5);
    cr_assert_leq((double)tight.best[0].bytes, (double)s.best[0].bytes * 0.5);
    cr_assert_geq(tight.best[0].is.seconds, s.best[0].is.seconds);
    dls_planner_close(&planner);
}

Test(predict, the_search_says_what_does_not_fit)
{
    const dls_gpu_options o = {.cluster_file = "dgx-h100", .world = 8};
    dls_train_config base;
    dls_transformer_config m = dls_transformer_gpt2(51200, 2048, 96, 96, 12288);
    dls_planner planner;
    dls_plan_base(&m, 32, &base);
    OK(dls_gpu_init(&o));
    OK(dls_planner_open(&planner, DLS_BF16));
    dls_layout_search s = {.base = &base, .world = 8, .memory = 80e9, .wanted = 1};
    cr_assert_eq(dls_search_layouts(&planner, &s), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "--memory: none of"));
    dls_planner_close(&planner);
}

/* test what is not predicted */
static dls_status plan_with(const char *way, const char *stages)
{
    char path[256], text[512];
    dls_plan_asked w = {.run = path, .cluster = "dgx-h100",
                        .set = {2, {way, stages}}, .data.gpus = {1, {"8"}}};
    snprintf(path, sizeof path, "%s/run.yaml", root);
    snprintf(text, sizeof text, "model: {vocabulary: 256, context: 64, layers: 6, "
             "heads: 4, channels: 128}\ndata: {corpus: %s/corpus.txt}\n"
             "train: {steps: 1, global_batch: 32, micro_batch: 2, learning_rate: 0.001, "
             "dtype: bf16}\n", root);
    OK(dls_file_write(path, text, strlen(text)));
    return dls_plan_run(&w);
}

Test(predict, plans_zero1_beside_a_pipeline, .init = make_corpus, .fini = remove_root)
{
    cr_redirect_stdout();
    OK(plan_with("data_parallel=zero1", "parallel.pp=2"));
}

Test(predict, plans_zero3_without_a_pipeline, .init = make_corpus, .fini = remove_root)
{
    cr_redirect_stdout();
    OK(plan_with("data_parallel=zero3", "parallel.pp=1"));
}

Test(predict, refuses_zero2_beside_a_pipeline, .init = make_corpus, .fini = remove_root)
{
    cr_assert_eq(plan_with("data_parallel=zero2", "parallel.pp=2"), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "data_parallel: expected ddp or zero1 for a "
                     "prediction beside a pipeline, got zero2; the nearest is zero1");
}

Test(predict, refuses_zero3_beside_a_pipeline, .init = make_corpus, .fini = remove_root)
{
    cr_assert_eq(plan_with("data_parallel=zero3", "parallel.pp=2"), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "got zero3; the nearest is zero1"));
}

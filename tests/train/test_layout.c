/* tests/train/test_layout.c: from chapters/07-mesh-refusals-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Layouts that are refused: with the field, the value, and a value that works. */
#include "../cli/program.h"
#include "run.h"
#include "train/layout.h"
#include "vgpu/gpu.h"

/* refuse a layout */
static const char base[] =
    "model: {vocabulary: 256, context: 24, layers: 4, heads: 12, kv_heads: 4,\n"
    "        channels: 48, hidden: 96}\n"
    "data: {corpus: none}\n"
    "train: {steps: 2, global_batch: 12, micro_batch: 2, learning_rate: 0.003}\n";

typedef const char *changes[6];

static dls_config *read_layout(const changes change, dls_train_config *c)
{
    dls_config *cfg;
    OK(dls_config_parse("base.yaml", base, sizeof base - 1, &cfg));
    for (int i = 0; change[i]; i++)
        OK(dls_config_override(cfg, change[i]));
    OK(dls_train_config_load(cfg, c));
    return cfg;
}

static void refuse(int world, const changes change, const char *message)
{
    dls_train_config c;
    dls_config *cfg = read_layout(change, &c);
    cr_assert_eq(dls_train_check_layout(&c, world), DLS_ERR_INPUT, "%s: accepted",
                 message);
    cr_assert_str_eq(dls_status_message(), message);
    dls_config_free(cfg);
}

/* refuse to the word */
Test(layout, what_the_tensor_axis_cannot_cut)
{
    refuse(8, (changes){"parallel.tp=8"}, "parallel.tp: expected a divisor of "
           "model.heads 12, got 8; the nearest that works is 4");
    refuse(12, (changes){"parallel.tp=6"}, "parallel.tp: expected a divisor or a "
           "multiple of model.kv_heads 4, got 6; the nearest that works is 4");
    refuse(6, (changes){"parallel.tp=6"}, "parallel.tp: expected a divisor or a multiple "
           "of model.kv_heads 4, got 6; the nearest that works is 2");
    refuse(4, (changes){"parallel.tp=4", "model.hidden=90"}, "parallel.tp: expected a "
           "divisor of model.hidden 90, got 4; the nearest that works is 2");
    refuse(4, (changes){"parallel.tp=4", "model.context=18"}, "parallel.tp: expected a "
           "divisor of the 18 tokens of a rank (model.context 18 / cp 1), or "
           "parallel.sequence false, got 4; the nearest that works is 2");
    refuse(8, (changes){"parallel.tp=4", "parallel.cp=2", "model.context=20"},
           "parallel.tp: expected a divisor of the 10 tokens of a rank (model.context 20 "
           "/ cp 2), or parallel.sequence false, got 4; the nearest that works is 2");
}

Test(layout, what_the_context_axis_cannot_cut)
{
    refuse(8, (changes){"parallel.cp=8", "model.context=20"}, "parallel.cp: expected a "
           "divisor of model.context 20, got 8; the nearest that works is 4");
    refuse(8, (changes){"parallel.cp=8", "parallel.context=ulysses"}, "parallel.cp: "
           "expected ranks among which Ulysses can deal out the 12 heads of a tensor "
           "rank and its 4 of keys, got 8; the nearest that works is 4");
    refuse(12, (changes){"parallel.cp=6", "parallel.context=ulysses"}, "parallel.cp: "
           "expected ranks among which Ulysses can deal out the 12 heads of a tensor "
           "rank and its 4 of keys, got 6; the nearest that works is 4");
    refuse(8, (changes){"parallel.cp=4", "parallel.tp=2", "parallel.context=ulysses"},
           "parallel.cp: expected ranks among which Ulysses can deal out the 6 heads of "
           "a tensor rank and its 2 of keys, got 4; the nearest that works is 2");
    refuse(4, (changes){"parallel.cp=4", "parallel.ulysses=3"}, "parallel.ulysses: "
           "expected a divisor of parallel.cp 4, got 3; the nearest that works is 2");
    refuse(6, (changes){"parallel.cp=6", "parallel.ulysses=3"}, "parallel.ulysses: "
           "expected ranks among which Ulysses can deal out the 12 heads of a tensor "
           "rank and its 4 of keys, got 3; the nearest that works is 2");
}

Test(layout, what_a_ring_cannot_do)
{
    refuse(2, (changes){"parallel.cp=2", "model.attention_dropout=0.1"},
           "parallel.context: expected a way that has model.attention_dropout 0.1, got "
           "ring; the nearest that works is ulysses");
    refuse(2, (changes){"parallel.cp=2", "parallel.context=gather",
                        "model.head_size=258"},
           "model.head_size: expected at most 256 with parallel.context gather, got 258");
    refuse(4, (changes){"parallel.cp=4", "parallel.ulysses=2", "parallel.tokens=striped"},
           "parallel.tokens: expected an order for groups of 2 in a ring, got striped; "
           "the nearest that works is zigzag");
}

Test(layout, stages_without_units_and_experts_without_a_model)
{
    refuse(28, (changes){"parallel.pp=7"}, "parallel.pp: expected at most 6, as the 4 "
           "layers, embedding and head are 6 units and a rank has 1 stage, got 7; the "
           "nearest that works is 4");
    refuse(4, (changes){"parallel.pp=4", "pipeline.schedule=zb-v"}, "parallel.pp: "
           "expected at most 3, as the 4 layers, embedding and head are 6 units and a "
           "rank has 2 stages, got 4; the nearest that works is 2");
    refuse(1, (changes){"pipeline.schedule=interleaved", "pipeline.chunks=9"},
           "pipeline.chunks: expected at most 0, as the 4 layers, embedding and head are "
           "6 units and a rank has 9 stages, got 9; the nearest that works is 6");
    refuse(2, (changes){"parallel.ep=2"}, "parallel.ep: expected 1, as the model has no "
           "experts, got 2; the nearest that works is 1");
}

Test(layout, units_given_by_hand)
{
    dls_train_config c;
    dls_config *cfg = read_layout((changes){"parallel.pp=2"}, &c);
    c.pipeline.given = 3;
    cr_assert_eq(dls_train_check_shape(&c, 2), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "pipeline.units: expected 2 numbers, got 3");
    c.pipeline.given = 2;
    c.pipeline.units[0] = c.pipeline.units[1] = 3;
    OK(dls_train_check_shape(&c, 2));
    c.pipeline.units[1] = 2;
    cr_assert_eq(dls_train_check_shape(&c, 2), DLS_ERR_INPUT);
    cr_assert_eq(strncmp(dls_status_message(), "pipeline.units: ", 16), 0);
    dls_config_free(cfg);
}

Test(layout, micro_batches_that_are_too_few_or_not_full)
{
    refuse(2, (changes){"parallel.pp=2", "pipeline.microbatches=2"},
           "pipeline.microbatches: expected at least 6 for the 12 sequences of a "
           "pipeline (train.global_batch 12 / dp 1) in passes of train.micro_batch 2, "
           "got 2; the nearest that works is 6");
    refuse(2, (changes){"parallel.pp=2", "pipeline.microbatches=2",
                        "train.global_batch=3000"},
           "pipeline.microbatches: expected at least 1500 for the 3000 sequences of a "
           "pipeline (train.global_batch 3000 / dp 1) in passes of train.micro_batch 2, "
           "got 2; the nearest that works is 1500");
    refuse(4, (changes){"parallel.pp=2", "train.global_batch=10", "model.tied_head=no",
                        "pipeline.schedule=pipedream"}, "train.global_batch: expected "
           "full micro-batches for pipedream: a multiple of dp 2 * train.micro_batch 2, "
           "got 10; the nearest that works is 8");
}

Test(layout, schedules_that_cannot_be)
{
    refuse(6, (changes){"parallel.pp=3", "pipeline.schedule=chimera"}, "parallel.pp: "
           "expected what can be scheduled (chimera: expected an even number of ranks, "
           "so that the two directions take turns, got 3), got 3; the nearest that works "
           "is 2");
    refuse(3, (changes){"parallel.pp=3", "pipeline.schedule=chimera"},
           "pipeline.schedule: chimera: expected an even number of ranks, so that the "
           "two directions take turns, got 3");
    refuse(4, (changes){"parallel.pp=4", "pipeline.schedule=pipedream-2bw",
                        "pipeline.microbatches=6"}, "pipeline.microbatches: expected "
           "what can be scheduled (pipedream-2bw: 6 micro-batches are no whole number of "
           "groups of 4), got 6; the nearest that works is 8");
    refuse(2, (changes){"parallel.pp=2", "pipeline.schedule=forward-only"},
           "pipeline.schedule: forward-only does not train");
}

Test(layout, two_directions_share_their_stages)
{
    dls_train_config c;
    dls_config *cfg = read_layout((changes){"parallel.pp=6", "model.tied_head=no",
                                            "pipeline.schedule=chimera"}, &c);
    OK(dls_train_check_shape(&c, 6));
    dls_config_free(cfg);
    refuse(8, (changes){"parallel.pp=8", "pipeline.schedule=chimera"}, "parallel.pp: "
           "expected at most 6, as the 4 layers, embedding and head are 6 units and a "
           "rank has 1 stage, got 8; the nearest that works is 4");
}

Test(layout, wrong_worlds)
{
    refuse(6, (changes){"parallel.tp=2", "parallel.pp=2"}, "world size: expected a "
           "multiple of tp 2 * cp 1 * pp 2 = 4, got 6; the nearest is 4");
    refuse(8, (changes){"parallel.tp=2", "parallel.pp=2", "parallel.dp=4"},
           "parallel.dp: expected 2, as 8 ranks / (tp 2 * cp 1 * pp 2), got 4");
}

/* refuse for want of memory */
static double need_of(int world, const dls_train_config *c, int micro_batch)
{
    size_t bytes[DLS_MEM_PURPOSES], sum = 0;
    dls_train_config with = *c;
    with.micro_batch = micro_batch;
    OK(dls_train_predict_memory(&with, 0, world, bytes));
    for (int i = 0; i < DLS_MEM_PURPOSES; i++)
        sum += bytes[i];
    return (double)sum;
}

static double need(const dls_train_config *c, int micro_batch)
{
    return need_of(1, c, micro_batch);
}

Test(layout, memory_that_is_too_small)
{
    dls_train_config c;
    char want[256];
    dls_config *cfg = read_layout((changes){"train.micro_batch=12"}, &c);
    double five = need(&c, 5), six = need(&c, 6), all = need(&c, 12), one = need(&c, 1);
    cr_assert(one < five && five < six && six < all);
    OK(dls_train_check_memory(&c, 1, all));
    for (int i = 0; i < 2; i++) {
        double capacity = i ? six - 1 : five;
        cr_assert_eq(dls_train_check_memory(&c, 1, capacity), DLS_ERR_INPUT);
        snprintf(want, sizeof want, "train.micro_batch: expected what fits into %.4g GB, "
                 "got 12, with which rank 0 needs %.4g GB; the nearest that works is 5",
                 capacity * 1e-9, all * 1e-9);
        cr_assert_str_eq(dls_status_message(), want);
    }
    cr_assert_eq(dls_train_check_memory(&c, 1, one - 1), DLS_ERR_INPUT);
    snprintf(want, sizeof want, "parallel: a rank needs %.4g GB of %.4g GB, and %.4g GB "
             "with train.micro_batch 1: expected more ranks, or a later data_parallel",
             all * 1e-9, (one - 1) * 1e-9, one * 1e-9);
    cr_assert_str_eq(dls_status_message(), want);
    dls_config_free(cfg);
}

static void advises(dls_train_config *c, double capacity, const char *key, int value)
{
    char want[64];
    cr_assert_eq(dls_train_check_memory(c, 8, capacity), DLS_ERR_INPUT);
    snprintf(want, sizeof want, "the nearest that works is %d", value);
    cr_assert_eq(strncmp(dls_status_message(), key, strlen(key)), 0, "%s",
                 dls_status_message());
    cr_assert_not_null(strstr(dls_status_message(), want), "%s", dls_status_message());
}

Test(layout, memory_that_needs_more_ranks)
{
    dls_train_config c, cut;
    dls_config *cfg = read_layout((changes){"train.micro_batch=1", "model.channels=480",
                                            "model.hidden=1920"}, &c);
    double whole = need_of(8, &c, 1), half, quarter, fits;
    cut = c;
    cut.mesh.size[DLS_AXIS_TP] = 2;
    half = need_of(8, &cut, 1);
    cut.mesh.size[DLS_AXIS_TP] = 4;
    quarter = need_of(8, &cut, 1);
    cr_assert(quarter < half && half < whole);
    advises(&c, whole - 1, "parallel.tp: expected what brings", 2);
    advises(&c, half - 1, "parallel.tp: expected what brings", 4);
    c.mesh.size[DLS_AXIS_TP] = 4;
    cut.mesh.size[DLS_AXIS_PP] = 2;
    cut.pipeline.schedule = "1f1b";
    fits = need_of(8, &cut, 1);
    cr_assert(fits < quarter);
    advises(&c, quarter - 1, "parallel.pp: expected what brings", 2);
    dls_config_free(cfg);
}

/* follow the advice */
static int *size_named(dls_train_config *c, const char *message)
{
    static const char *const keys[] = {"parallel.tp:", "parallel.cp:", "parallel.pp:"};
    for (int i = 0; i < 3; i++)
        if (strncmp(message, keys[i], strlen(keys[i])) == 0)
            return &c->mesh.size[i];
    return NULL;
}

static int follow(dls_train_config *c, int *asked)
{
    int steps = 0, *last = NULL;
    while (dls_train_check_shape(c, 48) != DLS_OK) {
        const char *m = dls_status_message(), *near = strstr(m, "works is ");
        int *size = size_named(c, m);
        if (!size)
            return strncmp(m, "world size:", 11) == 0 ? 0 : -1;
        cr_assert(near && size != last && ++steps <= 3, "%s", m);
        *size = atoi(near + 9);
        c->sharding.sequence &= c->mesh.size[DLS_AXIS_TP] > 1;
        last = size;
        ++*asked;
    }
    return 1;
}

Test(layout, advice_leads_to_a_layout_that_works)
{
    dls_train_config c;
    int good = 0, worlds = 0, asked = 0;
    dls_config *cfg = read_layout((changes){"pipeline.schedule=1f1b"}, &c);
    for (int i = 0; i < 512; i++) {
        dls_train_config with = c;
        const int sizes[] = {i % 8 + 1, i / 8 % 8 + 1, i / 64 + 1};
        memcpy(with.mesh.size, sizes, sizeof sizes);
        with.sharding.sequence = sizes[0] > 1;
        int end = follow(&with, &asked);
        cr_assert_geq(end, 0, "%d %d %d: %s", sizes[0], sizes[1], sizes[2],
                      dls_status_message());
        *(end ? &good : &worlds) += 1;
    }
    cr_assert(good > 100 && worlds > 100 && asked > 30, "%d %d %d", good, worlds, asked);
    dls_config_free(cfg);
}

/* refuse before anything is made */
static dls_status refused_rank(int rank, void *arg)
{
    const run *r = arg;
    dls_config *cfg;
    dls_train_config c;
    dls_gpu_memory memory;
    (void)rank;
    DLS_TRY(load_settings(r, &cfg, &c));
    DLS_TRY(dls_gpu_init(NULL));
    dls_status s = dls_train_check_layout(&c, dls_gpu_world());
    DLS_TRY(dls_gpu_memory_stats(0, &memory));
    if (s != DLS_ERR_INPUT || memory.total_peak != 0)
        return DLS_FAIL(DLS_ERR_STATE, "status %d after %zu bytes", s, memory.total_peak);
    dls_config_free(cfg);
    return DLS_OK;
}

Test(layout, nothing_was_allocated, .init = make_corpus, .fini = remove_root)
{
    run r = {"none", {"parallel.tp=3"}, 0};
    char path[256];
    OK(dls_run_ranks(3, refused_rank, &r));
    cr_assert_neq(dls_run_ranks(3, train_rank, &r), DLS_OK);
    cr_assert_not_null(strstr(dls_status_message(), "parallel.tp: expected a divisor of "
                              "model.heads 2, got 3; the nearest that works is 1"));
    snprintf(path, sizeof path, "%s/none", root);
    cr_assert_eq(access(path, F_OK), -1);
}

/* ask the program for a layout */
static double last_loss(const char *directory)
{
    char path[512];
    size_t size;
    double loss = NAN;
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    char *text = read_whole(path, &size);
    for (char *at = text; at && (at = strstr(at, "\"loss\":")) != NULL;)
        loss = strtod(at += 7, NULL);
    free(text);
    return loss;
}

static outcome train_small(int ranks, const char *directory, const char *options)
{
    return run_program("build/bin/dls run -n %d -- train --config tests/cli/small.yaml "
                       "--set train.dtype=f64 --set train.steps=3 --output %s/run %s",
                       ranks, directory, options);
}

Test(layout, options_go_before_the_file)
{
    char *one = fresh_directory("mesh-one"), *eight = fresh_directory("mesh-eight");
    char path[512];
    outcome o = train_small(8, eight, "--set parallel.tp=7 --tp 4");
    cr_assert_eq(o.exit_code, 2, "%s", o.output);
    cr_assert_not_null(strstr(o.output, "dls train: parallel.tp: expected a divisor of "
                              "model.heads 2, got 4; the nearest that works is 2"), "%s",
                       o.output);
    snprintf(path, sizeof path, "%s/run", eight);
    cr_assert_eq(access(path, F_OK), -1);
    o = train_small(1, one, "");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    o = train_small(8, eight, "--set parallel.tp=7 --dp 2 --pp 2 --tp 2");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    snprintf(path, sizeof path, "%s/run", one);
    double want = last_loss(path);
    snprintf(path, sizeof path, "%s/run", eight);
    cr_assert(fabs(last_loss(path) - want) <= 1e-10 * want, "%.17g, %.17g", want,
              last_loss(path));
    free(one);
    free(eight);
}

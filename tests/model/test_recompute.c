/* tests/model/test_recompute.c: from chapters/09-transformer-model-recompute-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What is kept changes memory and time, and nothing else. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/attention.h"
#include "model/block.h"
#include "model/transformer.h"

/* keep what a step leaves */
enum { B = 2, T = 6, N = B * T, VOCABULARY = 13 };

typedef struct outcome {
    double losses[2 * N];       /* of both micro-batches */
    double *grads;
    size_t elements;
    double seconds;             /* virtual */
    dls_transformer_memory want;
    dls_gpu_memory is;
} outcome;

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static dls_transformer_config family(int llama, double dropout)
{
    dls_transformer_config c = llama
        ? dls_transformer_llama(VOCABULARY, T, 3, 4, 2, 16, 20)
        : dls_transformer_gpt2(VOCABULARY, T, 3, 4, 16);
    c.embedding_dropout = c.attention_dropout = c.residual_dropout = dropout;
    return c;
}

/* fetch numbers of any type */
static void fetch(const void *device, size_t n, dls_dtype dtype, double *out)
{
    float *narrow = malloc(n * sizeof *narrow);
    if (dtype == DLS_F64) {
        cudaMemcpy(out, device, n * sizeof *out, cudaMemcpyDeviceToHost);
    } else {
        cudaMemcpy(narrow, device, n * sizeof *narrow, cudaMemcpyDeviceToHost);
        for (size_t i = 0; i < n; i++)
            out[i] = narrow[i];
    }
    free(narrow);
}

/* pass a micro batch through */
static void one_pass(dls_transformer *t, const int *ids, int b, int length,
                     double *losses)
{
    dls_dtype wide = dls_dtype_accumulator(t->ctx->dtype);
    dls_transformer_drop(t, 11, 2, b);
    OK(dls_transformer_forward(t, ids, ids + N, b, length));
    if (t->config.split_backward) {
        OK(dls_transformer_backward_input(t, 0.25));
        OK(dls_transformer_backward_weight(t, NULL));
    } else {
        OK(dls_transformer_backward(t, 0.25, NULL));
    }
    OK(dls_ctx_sync(t->ctx));
    fetch(dls_transformer_losses(t), (size_t)b * length, wide, losses);
}

/* run a step */
static int *make_ids(void)
{
    int host[2 * N], *ids;
    for (int i = 0; i < 2 * N; i++)
        host[i] = (int)(dls_rng_u32(5, 1, i) % VOCABULARY);
    OK(dls_device_alloc((void **)&ids, 2 * N, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(ids, host, sizeof host, cudaMemcpyHostToDevice);
    return ids;
}

static void run_step(outcome *o, dls_transformer_config c, dls_dtype dtype)
{
    dls_ctx ctx;
    dls_transformer *t;
    dls_gpu_memory_reset_peaks(0);
    OK(dls_transformer_predict_memory(&c, B, T, dtype, &o->want));
    OK(dls_ctx_create(&ctx, 0, dtype));
    OK(dls_transformer_create(&t, &ctx, &c, B, T));
    OK(dls_params_initialise(&t->params, 3));
    int *ids = make_ids();
    double start = dls_gpu_host_time();
    one_pass(t, ids, B, T, o->losses);
    one_pass(t, ids + 1, 1, T - 1, o->losses + N);
    o->seconds = dls_gpu_host_time() - start;
    OK(dls_gpu_memory_stats(0, &o->is));
    o->elements = t->params.elements;
    o->grads = malloc(o->elements * sizeof *o->grads);
    fetch(t->params.grads, o->elements, dls_dtype_accumulator(dtype), o->grads);
    dls_device_free(ids);
    dls_transformer_free(t);
    dls_ctx_destroy(&ctx);
}

/* test that recomputing changes nothing */
static const dls_dtype types[] = {DLS_F64, DLS_F32, DLS_BF16};
enum { TYPES = sizeof types / sizeof *types };

static void assert_same(const outcome *a, const outcome *b, const char *what)
{
    cr_assert_arr_eq(a->losses, b->losses, sizeof a->losses, "%s: losses", what);
    for (size_t i = 0; i < a->elements; i++)
        cr_assert_eq(a->grads[i], b->grads[i], "%s: gradient %zu: %.17g, %.17g", what, i,
                     a->grads[i], b->grads[i]);
}

static void compare_all_ways(dls_transformer_config c, dls_dtype dtype)
{
    outcome first = {0};
    run_step(&first, c, dtype);
    for (int way = 1; way < 6; way++) {
        outcome other = {0};
        char what[64];
        c.recompute = (dls_recompute)(way / 2);
        c.split_backward = way % 2;
        snprintf(what, sizeof what, "recompute %d, split %d", way / 2, way % 2);
        run_step(&other, c, dtype);
        assert_same(&first, &other, what);
        free(other.grads);
    }
    free(first.grads);
}

Test(recompute, what_is_kept_changes_no_bit_of_gpt2)
{
    for (int i = 0; i < 2 * TYPES; i++)
        compare_all_ways(family(0, i % 2 * 0.25), types[i / 2]);
}

Test(recompute, what_is_kept_changes_no_bit_of_llama)
{
    for (int i = 0; i < 2 * TYPES; i++)
        compare_all_ways(family(1, i % 2 * 0.25), types[i / 2]);
}

/* test predicted memory */
static void check_memory(dls_transformer_config c, dls_dtype dtype)
{
    outcome o = {0};
    run_step(&o, c, dtype);
    const size_t want[] = {o.want.parameters, o.want.gradients, o.want.activations};
    const dls_memory_purpose purpose[] = {DLS_MEM_PARAMETERS, DLS_MEM_GRADIENTS,
                                          DLS_MEM_ACTIVATIONS};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(o.is.current[purpose[i]], want[i]);
        cr_assert_eq(o.is.peak[purpose[i]], want[i]);
    }
    free(o.grads);
}

Test(recompute, predicted_memory_is_what_the_device_counts)
{
    for (int i = 0; i < 2 * 3 * 2 * TYPES; i++) {
        dls_transformer_config c = family(i % 2, i / 3 % 2 * 0.25);
        c.recompute = (dls_recompute)(i / 2 % 3);
        c.split_backward = i / 6 % 2;
        check_memory(c, types[i / 12]);
    }
}

/* test the formulas of recomputation */
static dls_plan plan_of_blocks(dls_recompute recompute, int blocks)
{
    dls_transformer_config c = dls_transformer_gpt2(2, 32, 1, 4, 64);
    dls_params params = {0};
    dls_build b = {.params = &params};
    dls_layer *list[4];
    dls_plan plan = {.max_B = 4, .max_T = 32, .dtype = DLS_F32};
    c.recompute = recompute;
    for (int i = 0; i < blocks; i++)
        list[i] = dls_block(&b, (const char *[]){"a", "b", "c", "d"}[i], &c, 1, 1);
    dls_layer *all = dls_sequence(&b, list, blocks);
    OK(b.status);
    dls_layer_plan(all, &plan);
    dls_build_free(&b);
    dls_params_free(&params);
    return plan;
}

Test(recompute, plans_are_the_formulas)
{
    const size_t rows = 4 * 32 * sizeof(float), NC = rows * 64;
    const size_t kept = 4 * rows + 4 * rows;    // two norms' statistics, log-sum-exp
    const struct { size_t rows, early, statistics, scratch; } want[] = {
        {15, 8, kept, NC}, {9, 3, kept, 7 * NC}, {0, 0, 0, 16 * NC + kept}};
    for (int i = 0; i < 3; i++)
        for (int blocks = 1; blocks <= 4; blocks += 3) {
            dls_plan plan = plan_of_blocks((dls_recompute)i, blocks);
            size_t stash = blocks * (want[i].rows * NC + want[i].statistics);
            cr_assert_eq(plan.stash + plan.early, stash + (blocks - 1) * NC);
            size_t early = blocks * (want[i].early * NC + (i < 2) * 4 * rows);
            cr_assert_eq(plan.early, early + (i == 0) * (blocks - 1) * NC);
            cr_assert_eq(plan.scratch, want[i].scratch);
        }
}

Test(recompute, activations_of_gpt2_are_those_of_the_table)
{
    const size_t sums[] = {3270885376 + 100663296 + 12582912,
                           2364915712 + 100663296 + 88080384,
                           999669760 + 100663296 + 201850880};
    const dls_attention_shape core = {.B = 8, .Tq = 1024, .Tk = 1024, .H = 12, .Hk = 12,
                                      .D = 64, .causal = 1, .q_row = 2304,
                                      .k_row = 2304, .v_row = 2304};
    for (int i = 0; i < 3; i++) {
        dls_transformer_config c = dls_transformer_gpt2(50257, 1024, 12, 12, 768);
        dls_transformer_memory m;
        c.recompute = (dls_recompute)i;
        OK(dls_transformer_predict_memory(&c, 8, 1024, DLS_BF16, &m));
        cr_assert_eq(m.activations, sums[i] + dls_attention_temporary(&core, DLS_BF16));
    }
}

/* test the price */
Test(recompute, less_memory_costs_more_time)
{
    outcome o[3] = {0};
    for (int i = 0; i < 3; i++) {
        dls_transformer_config c = family(0, 0);
        c.recompute = (dls_recompute)i;
        run_step(&o[i], c, DLS_F32);
        free(o[i].grads);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_gt(o[i + 1].seconds, o[i].seconds);
        cr_assert_lt(o[i + 1].want.activations, o[i].want.activations);
    }
}

/* tests/model/test_transformer.c: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The model against its formulas, its finite differences, and its own halves. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/transformer.h"
#include "tensor/bf16.h"

/* hold a model under test */
static dls_transformer_config small_gpt2(void)
{
    return dls_transformer_gpt2(11, 6, 2, 2, 8);
}

enum { B = 2, T = 5, N = B * T };

typedef struct fixture {
    dls_ctx ctx;
    dls_transformer *model;
    int *ids;                   /* tokens, then targets: device */
} fixture;

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static void put_tokens(fixture *f, int changed_at, int to)
{
    int ids[2 * N];
    for (int i = 0; i < 2 * N; i++)
        ids[i] = (int)(dls_rng_u32(5, 1, i) % 11);
    if (changed_at >= 0)
        ids[changed_at] = to;
    cudaMemcpy(f->ids, ids, sizeof ids, cudaMemcpyHostToDevice);
}

static void begin(fixture *f, dls_transformer_config config, dls_dtype dtype)
{
    *f = (fixture){0};
    OK(dls_ctx_create(&f->ctx, 0, dtype));
    OK(dls_transformer_create(&f->model, &f->ctx, &config, B, T));
    OK(dls_params_initialise(&f->model->params, 3));
    OK(dls_device_alloc((void **)&f->ids, 2 * N, DLS_F32, DLS_MEM_OTHER));
    put_tokens(f, -1, 0);
}

static void end(fixture *f)
{
    dls_device_free(f->ids);
    dls_transformer_free(f->model);
    dls_ctx_destroy(&f->ctx);
}

/* Runs forward and returns the sum of the losses; out (N) when not NULL. */
static double total_loss(fixture *f, double *out)
{
    double losses[N], sum = 0;
    OK(dls_transformer_forward(f->model, f->ids, f->ids + N, B, T));
    OK(dls_ctx_sync(&f->ctx));
    cudaMemcpy(losses, dls_transformer_losses(f->model), sizeof losses,
               cudaMemcpyDeviceToHost);
    for (int i = 0; i < N; i++)
        sum += losses[i];
    if (out)
        memcpy(out, losses, sizeof losses);
    return sum;
}

/* test the parameter count */
Test(model, parameter_count_is_the_formula)
{
    const dls_transformer_config shapes[] = {
        small_gpt2(), dls_transformer_gpt2(256, 64, 4, 4, 128),
        dls_transformer_gpt2(2, 1, 1, 1, 1)};
    cr_assert_eq(dls_transformer_parameter_count(&shapes[1]), 834304);
    for (int i = 0; i < 3; i++) {
        dls_transformer_memory m;
        OK(dls_transformer_predict_memory(&shapes[i], 1, 1, DLS_F32, &m));
        cr_assert_eq(m.parameters, 4 * dls_transformer_parameter_count(&shapes[i]));
    }
}

/* test the memory */
Test(model, activations_are_the_formula)
{
    size_t L = 4, rows = 256, NC = rows * 128;
    dls_transformer_config c = dls_transformer_gpt2(256, 64, 4, 4, 128);
    dls_transformer_memory m;
    size_t stash = (16 * L + 2) * NC + (4 * L + 3 + 4 * L) * rows + rows * 256;
    cr_assert_eq(stash, 2237184);
    OK(dls_transformer_predict_memory(&c, 4, 64, DLS_F32, &m));
    cr_assert_eq(m.activations, 4 * (stash + 9 * NC + 4 * rows));
    c.split_backward = 1;
    OK(dls_transformer_predict_memory(&c, 4, 64, DLS_F64, &m));
    cr_assert_eq(m.activations, 8 * (stash + (9 * L + 5) * NC + 4 * rows));
}

Test(model, predicted_memory_is_what_the_device_counts)
{
    for (int split = 0; split < 2; split++) {
        dls_transformer_memory want;
        fixture f;
        dls_transformer_config c = small_gpt2();
        c.split_backward = split;
        OK(dls_transformer_predict_memory(&c, B, T, DLS_F64, &want));
        begin(&f, c, DLS_F64);
        dls_gpu_memory is;
        OK(dls_gpu_memory_stats(0, &is));
        cr_assert_eq(is.current[DLS_MEM_PARAMETERS], want.parameters);
        cr_assert_eq(is.current[DLS_MEM_GRADIENTS], want.gradients);
        cr_assert_eq(is.current[DLS_MEM_ACTIVATIONS], want.activations);
        total_loss(&f, NULL);
        OK(dls_gpu_memory_stats(0, &is));
        cr_assert_eq(is.peak[DLS_MEM_ACTIVATIONS], want.activations);
        end(&f);
    }
}

/* test the starting loss */
Test(model, starting_loss_is_the_logarithm_of_the_vocabulary)
{
    fixture f;
    begin(&f, small_gpt2(), DLS_F64);
    double mean = total_loss(&f, NULL) / N;
    cr_assert(fabs(mean - log(11)) < 0.02, "%g, expected %g", mean, log(11));
    end(&f);
}

/* test the initial deviations */
static double deviation(const dls_params *params, const char *name)
{
    const dls_param *p = dls_params_find(params, name);
    double *host = malloc(p->count * sizeof *host), sum = 0;
    cudaMemcpy(host, p->value, p->count * sizeof *host, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < p->count; i++)
        sum += host[i] * host[i];
    free(host);
    return sqrt(sum / (double)p->count);
}

Test(model, weights_start_with_their_deviations)
{
    fixture f;
    begin(&f, dls_transformer_gpt2(256, 64, 4, 4, 96), DLS_F64);
    const dls_params *p = &f.model->params;
    const char *wide[] = {"wte.weight", "wpe.weight", "block.0.attention.qkv.weight",
                          "block.3.mlp.fc.weight"};
    const char *narrow[] = {"block.0.attention.proj.weight", "block.3.mlp.proj.weight"};
    for (int i = 0; i < 4; i++)
        cr_assert(fabs(deviation(p, wide[i]) / 0.02 - 1) < 0.05, "%s", wide[i]);
    for (int i = 0; i < 2; i++)
        cr_assert(fabs(deviation(p, narrow[i]) / (0.02 / sqrt(8)) - 1) < 0.05, "%s",
                  narrow[i]);
    cr_assert_eq(deviation(p, "block.1.ln1.weight"), 1);
    cr_assert_eq(deviation(p, "block.1.mlp.fc.bias"), 0);
    end(&f);
}

/* test causality */
Test(model, a_token_changes_only_what_follows_it)
{
    double before[N], after[N];
    fixture f;
    begin(&f, small_gpt2(), DLS_F64);
    total_loss(&f, before);
    put_tokens(&f, 2, 10);      // position 2 of the first sequence
    total_loss(&f, after);
    for (int i = 0; i < N; i++)
        cr_assert_eq(before[i] != after[i], i >= 2 && i < T, "position %d", i);
    end(&f);
}

/* test the logits */
Test(model, logits_agree_with_the_loss)
{
    double losses[N], logits[11], sum = 0;
    int ids[2 * N];
    fixture f;
    begin(&f, small_gpt2(), DLS_F64);
    total_loss(&f, losses);
    cudaMemcpy(ids, f.ids, sizeof ids, cudaMemcpyDeviceToHost);
    for (int t = 1; t <= T; t++, sum = 0) {
        OK(dls_transformer_logits(f.model, f.ids, t, logits));
        for (int v = 0; v < 11; v++)
            sum += exp(logits[v]);
        double loss = log(sum) - logits[ids[N + t - 1]];
        cr_assert(fabs(loss - losses[t - 1]) < 1e-12, "%g, %g", loss, losses[t - 1]);
    }
    end(&f);
}

Test(model, logits_are_widened_from_float)
{
    double wide[11], narrow[11];
    fixture f;
    for (int k = 0; k < 2; k++) {
        begin(&f, small_gpt2(), k ? DLS_F32 : DLS_F64);
        OK(dls_transformer_logits(f.model, f.ids, T, k ? narrow : wide));
        end(&f);
    }
    for (int v = 0; v < 11; v++)
        cr_assert(fabs(wide[v] - narrow[v]) < 1e-6, "%g, %g", wide[v], narrow[v]);
}

/* test the whole gradient */
static double slope(fixture *f, double *at)
{
    const double h = 1e-5;
    double value, side[2];
    cudaMemcpy(&value, at, sizeof value, cudaMemcpyDeviceToHost);
    for (int k = 0; k < 2; k++) {
        double moved = value + (k ? -h : h);
        cudaMemcpy(at, &moved, sizeof moved, cudaMemcpyHostToDevice);
        side[k] = total_loss(f, NULL);
    }
    cudaMemcpy(at, &value, sizeof value, cudaMemcpyHostToDevice);
    return (side[0] - side[1]) / (2 * h);
}

static void move_all(fixture *f)
{
    size_t n = f->model->params.elements;
    double *host = malloc(n * sizeof *host);
    cudaMemcpy(host, f->model->params.values, n * sizeof *host, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < n; i++)
        host[i] += 0.2 * dls_rng_normal(8, 8, i);
    cudaMemcpy(f->model->params.values, host, n * sizeof *host, cudaMemcpyHostToDevice);
    free(host);
}

static void check_the_gradient(dls_transformer_config c)
{
    fixture f;
    begin(&f, c, DLS_F64);
    move_all(&f);
    if (c.residual_dropout > 0)
        dls_transformer_drop(f.model, 7, 3, 4);
    total_loss(&f, NULL);
    OK(dls_transformer_backward(f.model, 0.25, NULL));
    OK(dls_ctx_sync(&f.ctx));
    size_t n = f.model->params.elements;
    double *got = malloc(n * sizeof *got), *values = f.model->params.values;
    cudaMemcpy(got, f.model->params.grads, n * sizeof *got, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < n; i += 7) {
        double want = 0.25 * slope(&f, values + i);
        cr_assert(fabs(got[i] - want) < 2e-8 * (1 + fabs(want)),
                  "element %zu: %.12g, measured %.12g", i, got[i], want);
    }
    free(got);
    end(&f);
}

Test(model, gradient_of_gpt2_is_the_measured_one)
{
    check_the_gradient(small_gpt2());
}

Test(model, gradient_without_the_fit_is_the_measured_one)
{
    dls_transformer_config c = small_gpt2();
    c.mlp = DLS_MLP_GELU_ERF;
    check_the_gradient(c);
    c.recompute = DLS_RECOMPUTE_SELECTIVE;
    check_the_gradient(c);
}

Test(model, gradient_of_llama_is_the_measured_one)
{
    dls_transformer_config c = dls_transformer_llama(11, 6, 2, 4, 2, 8, 12);
    check_the_gradient(c);
    c.embedding_dropout = c.attention_dropout = c.residual_dropout = 0.2;
    c.recompute = DLS_RECOMPUTE_FULL;
    check_the_gradient(c);
}

/* test the halves of the model */
static double *gradient_of(int split, int parts)
{
    fixture f;
    dls_transformer_config c = small_gpt2();
    c.split_backward = split;
    begin(&f, c, DLS_F64);
    for (int k = 0; k < parts; k++) {
        int at = k * N / parts;
        OK(dls_transformer_forward(f.model, f.ids + at, f.ids + N + at, B / parts, T));
        if (split) {
            OK(dls_transformer_backward_input(f.model, 0.1));
            OK(dls_transformer_backward_weight(f.model, NULL));
        } else {
            OK(dls_transformer_backward(f.model, 0.1, NULL));
        }
    }
    OK(dls_ctx_sync(&f.ctx));
    size_t bytes = f.model->params.elements * sizeof(double);
    double *grads = malloc(bytes);
    cudaMemcpy(grads, f.model->params.grads, bytes, cudaMemcpyDeviceToHost);
    end(&f);
    return grads;
}

Test(model, halves_and_micro_batches_give_the_whole)
{
    dls_transformer_config c = small_gpt2();
    size_t n = dls_transformer_parameter_count(&c);
    double *whole = gradient_of(0, 1), *split = gradient_of(1, 1);
    double *parts = gradient_of(0, 2);
    cr_assert_arr_eq(whole, split, n * sizeof *whole);
    for (size_t i = 0; i < n; i++)
        cr_assert(fabs(whole[i] - parts[i]) < 1e-15, "element %zu", i);
    free(whole);
    free(split);
    free(parts);
}

/* test the masks of a batch */
static dls_transformer_config dropping_llama(void)
{
    dls_transformer_config c = dls_transformer_llama(11, 6, 2, 4, 2, 8, 12);
    c.embedding_dropout = c.attention_dropout = c.residual_dropout = 0.2;
    return c;
}

static void losses_under(fixture *f, int64_t step, int first, int parts, double *losses)
{
    for (int k = 0; k < parts; k++) {
        int at = k * N / parts, n = N / parts;
        dls_transformer_drop(f->model, 1, step, first + k * B / parts);
        OK(dls_transformer_forward(f->model, f->ids + at, f->ids + N + at, B / parts, T));
        OK(dls_ctx_sync(&f->ctx));
        cudaMemcpy(losses + at, dls_transformer_losses(f->model), n * sizeof *losses,
                   cudaMemcpyDeviceToHost);
    }
}

Test(model, a_mask_belongs_to_a_sequence_of_a_step)
{
    double whole[N], parts[N], other[N], kept[N];
    fixture f;
    begin(&f, dropping_llama(), DLS_F64);
    move_all(&f);
    losses_under(&f, 5, 8, 1, whole);
    losses_under(&f, 5, 8, 2, parts);
    cr_assert_arr_eq(whole, parts, sizeof whole);
    losses_under(&f, 6, 8, 1, other);
    dls_transformer_keep(f.model);
    total_loss(&f, kept);
    for (int i = 0; i < N; i++) {
        cr_assert_neq(whole[i], other[i], "another step");
        cr_assert_neq(whole[i], kept[i], "no dropout");
    }
    losses_under(&f, 5, 9, 1, other);
    cr_assert_neq(whole[T], other[T], "another place");
    end(&f);
}

Test(model, dropout_acts_in_three_places)
{
    double losses[4][N];
    for (int place = 0; place < 4; place++) {
        dls_transformer_config c = dls_transformer_llama(11, 6, 2, 4, 2, 8, 12);
        double *p[] = {&c.embedding_dropout, &c.attention_dropout, &c.residual_dropout};
        fixture f;
        if (place < 3)
            *p[place] = 0.3;
        begin(&f, c, DLS_F64);
        move_all(&f);
        losses_under(&f, 1, 0, 1, losses[place]);
        end(&f);
    }
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < a; b++)
            cr_assert_neq(losses[a][N - 1], losses[b][N - 1]);
}

/* test the rounding of a model */
static void put_exact_values(dls_params *set)
{
    size_t wide = dls_dtype_size(dls_dtype_accumulator(set->dtype));
    char *host = malloc(set->elements * wide);
    for (int i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->items[i].count; k++) {
            double x = (set->items[i].init == DLS_INIT_ONE)
                + 0.3 * dls_rng_normal(3, i, k);
            float exact = dls_widen_bf16(dls_narrow_bf16((float)x));
            double both = exact;
            memcpy(host + (set->items[i].offset + k) * wide,
                   wide == 8 ? (void *)&both : (void *)&exact, wide);
        }
    OK(dls_params_put(set, host));
    free(host);
}

static double *gradients_in(dls_transformer_config c, dls_dtype dtype, dls_params *names)
{
    fixture f;
    begin(&f, c, dtype);
    put_exact_values(&f.model->params);
    OK(dls_transformer_forward(f.model, f.ids, f.ids + N, B, T));
    OK(dls_transformer_backward(f.model, 1, NULL));
    OK(dls_ctx_sync(&f.ctx));
    size_t n = f.model->params.elements;
    double *grads = malloc(n * sizeof *grads);
    cudaMemcpy(grads, f.model->params.grads,
               n * dls_dtype_size(dls_dtype_accumulator(dtype)), cudaMemcpyDeviceToHost);
    for (size_t i = n; dtype != DLS_F64 && i-- > 0;) {
        float narrow;
        memcpy(&narrow, (char *)grads + i * sizeof narrow, sizeof narrow);
        grads[i] = narrow;
    }
    names->n = f.model->params.n;
    names->items = malloc(names->n * sizeof *names->items);
    memcpy(names->items, f.model->params.items, names->n * sizeof *names->items);
    end(&f);
    return grads;
}

static void check_rounding(dls_transformer_config c, dls_dtype dtype, double unit)
{
    dls_params names;
    double *exact = gradients_in(c, DLS_F64, &names);
    free(names.items);
    double *rounded = gradients_in(c, dtype, &names), R = 2 * (10 * c.layers + 3);
    for (int i = 0; i < names.n; i++) {
        const dls_param *p = &names.items[i];
        double error = 0, size = 0;
        for (size_t k = p->offset; k < p->offset + p->count; k++) {
            error += (rounded[k] - exact[k]) * (rounded[k] - exact[k]);
            size += exact[k] * exact[k];
        }
        cr_assert_leq(sqrt(error), R * unit * sqrt(size), "%s: off by %g, allowed %g",
                      p->name, sqrt(error / size), R * unit);
        cr_assert_gt(error, 0, "%s: not rounded at all", p->name);
    }
    free(names.items);
    free(exact);
    free(rounded);
}

Test(model, rounding_is_what_the_stores_explain)
{
    const dls_transformer_config families[] = {
        small_gpt2(), dls_transformer_llama(11, 6, 2, 4, 2, 8, 12)};
    for (int i = 0; i < 2; i++) {
        check_rounding(families[i], DLS_F32, 0x1p-24);
        check_rounding(families[i], DLS_BF16, 0x1p-9);
    }
}

/* test the renewed gradients */
/* The gradients of both sequences in so many passes, after what came before was NaN. */
static double *gradients_after_nan(fixture *f, int renew, int passes)
{
    dls_params *set = &f->model->params;
    size_t bytes = set->elements * sizeof(double);
    double *grads = malloc(bytes);
    cr_assert_eq(cudaMemset(set->grads, 0xFF, bytes), cudaSuccess);
    cr_assert_eq(cudaDeviceSynchronize(), cudaSuccess);
    OK((renew ? dls_params_renew_grads : dls_params_zero_grads)(set, &f->ctx));
    for (int k = 0; k < passes; k++) {
        const int *ids = f->ids + k * N / passes;
        OK(dls_transformer_forward(f->model, ids, ids + N, B / passes, T));
        OK(dls_transformer_backward(f->model, 0.1, NULL));
    }
    OK(dls_ctx_sync(&f->ctx));
    cudaMemcpy(grads, set->grads, bytes, cudaMemcpyDeviceToHost);
    return grads;
}

static void check_settling(fixture *f, double *grads)
{
    dls_params *set = &f->model->params;
    int marked = 0;
    OK(dls_params_renew_grads(set, &f->ctx));
    for (int i = 0; i < set->n; i++)
        marked += set->items[i].unwritten;
    cr_assert_eq(marked, 2);
    OK(dls_params_settle_grads(set, &f->ctx));
    OK(dls_ctx_sync(&f->ctx));
    cudaMemcpy(grads, set->grads, set->elements * sizeof *grads, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < set->elements; i++)
        cr_assert(grads[i] == 0, "element %zu is left", i);
    for (int i = 0; i < set->n; i++)
        cr_assert_eq(set->items[i].unwritten, 0, "%s", set->items[i].name);
}

static void check_renewal(int tied)
{
    fixture f;
    dls_transformer_config c = dls_transformer_gpt2(1031, 6, 1, 2, 512);
    c.hidden = 64;
    c.tied_head = tied;
    begin(&f, c, DLS_F64);
    double *whole = gradients_after_nan(&f, 0, 1);
    double *renewed = gradients_after_nan(&f, 1, 2);
    for (size_t i = 0; i < f.model->params.elements; i++)
        cr_assert(fabs(whole[i] - renewed[i]) < 1e-12, "tied %d, element %zu: %g, "
                  "expected %g", tied, i, renewed[i], whole[i]);
    check_settling(&f, renewed);
    free(whole);
    free(renewed);
    end(&f);
}

Test(model, products_overwrite_renewed_gradients)
{
    check_renewal(1);
    check_renewal(0);
}

/* test the order of the hook */
typedef struct report { int order[64], n; } report;

static dls_status note(void *self, int index)
{
    report *r = self;
    r->order[r->n++] = index;
    return DLS_OK;
}

static int block_of(const dls_transformer *g, int index)
{
    int block = -1;
    sscanf(g->params.items[index].name, "block.%d.", &block);
    return block;
}

Test(model, gradients_are_reported_from_the_end)
{
    int seen[64] = {0};
    report r = {.n = 0};
    dls_grad_hook hook = {&r, note};
    fixture f;
    begin(&f, small_gpt2(), DLS_F64);
    total_loss(&f, NULL);
    OK(dls_transformer_backward(f.model, 1, &hook));
    cr_assert_eq(r.n, f.model->params.n);
    for (int i = 0; i < r.n; i++)
        cr_assert_eq(seen[r.order[i]]++, 0);
    cr_assert_str_eq(f.model->params.items[r.order[0]].name, "ln_f.weight");
    cr_assert_str_eq(f.model->params.items[r.order[r.n - 1]].name, "wte.weight");
    for (int i = 3; i < r.n; i++)
        cr_assert_leq(block_of(f.model, r.order[i]), block_of(f.model, r.order[i - 1]));
    end(&f);
}

/* test refusals of the model */
Test(model, impossible_models_are_refused)
{
    dls_ctx ctx;
    dls_transformer *g;
    dls_transformer_config c = small_gpt2();
    OK(dls_ctx_create(&ctx, 0, DLS_F64));
    c.heads = 0;
    cr_assert_eq(dls_transformer_create(&g, &ctx, &c, 1, 1), DLS_ERR_INPUT);
    c = small_gpt2();
    cr_assert_eq(dls_transformer_create(&g, &ctx, &c, 1, 7), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "micro-batch 1 x 7: the context is 6 tokens");
    OK(dls_transformer_create(&g, &ctx, &c, 1, 4));
    cr_assert_eq(dls_transformer_forward(g, NULL, NULL, 2, 4), DLS_ERR_INPUT);
    cr_assert_eq(dls_transformer_backward_input(g, 1), DLS_ERR_STATE);
    dls_transformer_free(g);
    dls_ctx_destroy(&ctx);
}

Test(model, heads_must_divide_channels_in_the_file)
{
    static const char text[] = "model:\n  vocabulary: 256\n  context: 8\n"
                               "  layers: 1\n  heads: 3\n  channels: 8\n";
    dls_config *cfg;
    dls_transformer_config c;
    OK(dls_config_parse("m.yaml", text, sizeof text - 1, &cfg));
    cr_assert_eq(dls_transformer_config_load(&c, cfg), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "m.yaml:5: model.heads: expected a divisor "
                     "of the 8 channels, got 3");
    dls_config_free(cfg);
}

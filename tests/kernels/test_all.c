/* tests/kernels/test_all.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Properties of all operations: the same bits in any order of execution, costs that match
 * the formulas, and sizes of zero. */
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>
#include <jansson.h>

#include "base/hash.h"
#include "vgpu/trace.h"

/* run every sum */
enum { B = 2, T = 37, C = 66, H = 3, V = 71, N = B * T, LONG = 20011 };

static uint64_t hash_of_all;

static void hash_array(const double *x, size_t n)
{
    hash_of_all = hash_of_all * 31 + dls_hash64(x, n * sizeof *x);
}

static void run_every_sum(kcase *k)
{
    int tokens[N];
    for (int n = 0; n < N; n++)
        tokens[n] = n * n % V;
    int *t = kcase_put_ints(k, tokens, N);
    void *x = kcase_put(k, kcase_random(k, N * C, 1, -1, 1), N * C);
    void *dy = kcase_put(k, kcase_random(k, N * C, 2, -1, 1), N * C);
    void *qkv = kcase_put(k, kcase_random(k, 3 * N * C, 3, -1, 1), 3 * N * C);
    void *w = kcase_put(k, kcase_random(k, V * C, 4, -1, 1), V * C);
    void *p = kcase_put(k, kcase_random(k, T * C, 5, -1, 1), T * C);
    void *z = kcase_put(k, kcase_random(k, N * V, 6, -9, 9), N * V);
    void *big = kcase_put(k, kcase_random(k, LONG, 7, -1, 1), LONG);
    void *dw = kcase_put_acc(k, kcase_random(k, V * C, 4, -1, 1), V * C);
    void *dp = kcase_put_acc(k, kcase_random(k, T * C, 5, -1, 1), T * C);
    void *y = kcase_space(k, N * C);
    void *m = kcase_space_acc(k, N), *r = kcase_space_acc(k, N);
    void *att = kcase_space(k, N * H * T), *scratch = kcase_space(k, N * H * T);
    void *dqkv = kcase_space(k, 3 * N * C), *one = kcase_space_acc(k, 1);
    /* call every operation with a sum */
    OK(dls_embedding_backward(&k->ctx, dw, dp, dy, t, B, T, C, V));
    OK(dls_layernorm_forward(&k->ctx, y, m, r, x, w, p, N, C));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_layernorm_backward_input(&k->ctx, y, dy, x, w, m, r, N, C));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_layernorm_backward_weight(&k->ctx, dw, dp, dy, x, m, r, N, C));
    /* call the newer operations with a sum */
    OK(dls_rmsnorm_forward(&k->ctx, y, r, x, w, N, C, 1e-5));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_rmsnorm_backward_input(&k->ctx, y, dy, x, w, r, N, C));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_rmsnorm_backward_weight(&k->ctx, dw, dy, x, r, N, C));
    dls_dropout dropout = {.p = 0.5, .seed = 1, .first = 3};
    dls_residual_norm residual = {N, C, 1, 1e-5, &dropout};
    void *h = kcase_space(k, N * C);
    OK(dls_residual_norm_forward(&k->ctx, h, y, m, r, x, dy, w, p, &residual));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_residual_norm_backward(&k->ctx, y, h, x, dy, h, w, m, r, &residual));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_bias_backward(&k->ctx, dw, dy, N, C));
    if (k->ctx.dtype != DLS_BF16) {
        OK(packed_attention_forward(k, y, att, qkv, B, T, C, H));
        OK(packed_attention_backward(k, dqkv, scratch, dy, qkv, att, B, T, C, H));
    }
    /* call flash attention with a sum */
    dls_attention_shape shape = {.B = B, .Tq = T, .Tk = T, .H = H, .Hk = H, .D = C / H,
                                 .causal = 1, .dropout = 0.1, .q_row = 3 * C, .k_row = 3 * C,
                                 .v_row = 3 * C};
    size_t step = C * dls_dtype_size(k->ctx.dtype);
    void *lse = kcase_space_acc(k, N * H), *room = kcase_space_acc(k, 2 * N * C);
    char *q = qkv, *dq = kcase_space(k, 3 * N * C);
    OK(dls_attention_forward(&k->ctx, &shape, y, lse, q, q + step, q + 2 * step));
    hash_array(kcase_get(k, y, N * C), N * C);
    OK(dls_attention_backward(&k->ctx, &shape, dq, dq + step, dq + 2 * step, room, dy, q,
                              q + step, q + 2 * step, y, lse));
    hash_array(kcase_get(k, dq, 3 * N * C), 3 * N * C);
    OK(dls_cross_entropy_forward(&k->ctx, m, r, z, t, N, V, V));
    OK(dls_cross_entropy_backward(&k->ctx, z, z, r, t, 0.1, N, V, V));
    OK(dls_sum(&k->ctx, one, big, LONG));
    void *results[] = {y, att, dqkv, z}, *sums[] = {m, r, dw, dp, one};
    size_t sizes[] = {N * C, N * H * T, 3 * N * C, N * V};
    size_t sum_sizes[] = {N, N, V * C, T * C, 1};
    for (int i = 0; i < 4; i++)
        hash_array(kcase_get(k, results[i], sizes[i]), sizes[i]);
    for (int i = 0; i < 5; i++)
        hash_array(kcase_get_acc(k, sums[i], sum_sizes[i]), sum_sizes[i]);
}

/* compare hashes of seeds */
static uint64_t hash_with_seed(const char *seed, const char *kernels, dls_dtype dtype)
{
    int ends[2];
    uint64_t hash = 0;
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("DLS_SEED", seed, 1);
        kcase_run(run_every_sum, kernels, dtype);
        _exit(write(ends[1], &hash_of_all, sizeof hash_of_all) != sizeof hash_of_all);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &hash, sizeof hash), (ssize_t)sizeof hash);
    close(ends[0]);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    return hash;
}

Test(kernels, same_bits_in_any_order)
{
    const char *kernels[] = {"host", "simt"};
    for (int i = 0; i < 2 * DLS_DTYPES; i++) {
        dls_dtype type = (dls_dtype)(i / 2);
        uint64_t first = hash_with_seed("1", kernels[i % 2], type);
        cr_assert_eq(hash_with_seed("2", kernels[i % 2], type), first, "case %d", i);
        cr_assert_eq(hash_with_seed("1234567", kernels[i % 2], type), first, "case %d",
                     i);
    }
}

/* read costs from a trace */
/* Sums the spans since the last call; the durations must be positive. */
static void take_costs(kcase *k, double *flops, double *bytes)
{
    char path[] = "/tmp/dls-test-costs-XXXXXX";
    size_t i;
    json_t *event, *root;
    OK(dls_ctx_sync(&k->ctx));
    close(mkstemp(path));
    OK(dls_trace_save(path));
    cr_assert_neq(root = json_load_file(path, 0, NULL), NULL);
    *flops = *bytes = 0;
    json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
        json_t *args = json_object_get(event, "args");
        if (json_object_get(args, "flops") == NULL)
            continue;
        *flops += json_number_value(json_object_get(args, "flops"));
        *bytes += json_number_value(json_object_get(args, "bytes"));
        cr_assert_gt(json_number_value(json_object_get(event, "dur")), 0);
    }
    json_decref(root);
    unlink(path);
    dls_trace_clear();
}

/* test costs */
/* elements of ctx->dtype, and sums in its accumulator's type. */
static void expect_costs(kcase *k, const char *what, double flops, double elements,
                         double sums, double other_bytes)
{
    double got_flops, got_bytes, s = (double)dls_dtype_size(k->ctx.dtype);
    double wide = (double)dls_dtype_size(dls_dtype_accumulator(k->ctx.dtype));
    take_costs(k, &got_flops, &got_bytes);
    cr_assert_float_eq(got_flops, flops, 1e-3 * flops + 2, "%s: %.0f FLOPs, not %.0f",
                       what, got_flops, flops);
    double bytes = elements * s + sums * wide + other_bytes;
    cr_assert_float_eq(got_bytes, bytes, 1e-3 * bytes, "%s: %.0f bytes, not %.0f", what,
                       got_bytes, bytes);
}

KERNEL_TEST(costs_follow_the_formulas)
{
    void *x = kcase_put(k, kcase_random(k, LONG, 1, -1, 1), LONG);
    void *y = kcase_space_acc(k, 3 * N * C), *m = kcase_space_acc(k, LONG),
         *r = kcase_space_acc(k, N), *g = kcase_put_acc(k, kcase_zeros(k, LONG), LONG);
    void *att = kcase_space(k, N * H * T), *scratch = kcase_space(k, N * H * T);
    void *v = kcase_put_acc(k, kcase_zeros(k, LONG), LONG);
    void *master = kcase_put_acc(k, kcase_zeros(k, LONG), LONG);
    int zero[N] = {0}, *t = kcase_put_ints(k, zero, N);
    double n = N * C, pairs = B * H * T * (T + 1) / 2.0, square = N * H * T, D = C / H,
           dummy;
    OK(dls_ctx_sync(&k->ctx));
    dls_trace_enable(1);
    take_costs(k, &dummy, &dummy);
    /* run and count operations */
    OK(dls_gelu_forward(&k->ctx, y, x, N * C));
    expect_costs(k, "gelu forward", 10 * n, 2 * n, 0, 0);
    OK(dls_add(&k->ctx, y, x, x, N * C));
    expect_costs(k, "add", n, 3 * n, 0, 0);
    OK(dls_embedding_forward(&k->ctx, y, t, NULL, x, x, B, T, C));
    expect_costs(k, "embedding forward", n, 3 * n, 0, 4 * N);
    OK(dls_embedding_backward(&k->ctx, y, m, x, t, B, T, C, V));
    expect_costs(k, "embedding backward", 2 * n, 2 * n, 2 * V * C + 2 * T * C, 4 * N);
    OK(dls_layernorm_forward(&k->ctx, y, m, r, x, x, x, N, C));
    expect_costs(k, "layernorm forward", 8 * n, 2 * n + 2 * C, 2 * N, 0);
    OK(dls_layernorm_backward_input(&k->ctx, y, x, x, x, m, r, N, C));
    expect_costs(k, "layernorm backward input", 12 * n, 3 * n + C, 2 * N, 0);
    /* run and count the newer operations */
    OK(dls_rmsnorm_forward(&k->ctx, y, r, x, x, N, C, 1e-5));
    expect_costs(k, "rmsnorm forward", 4 * n, 2 * n + C, N, 0);
    OK(dls_rmsnorm_backward_input(&k->ctx, y, x, x, x, r, N, C));
    expect_costs(k, "rmsnorm backward input", 8 * n, 3 * n + C, N, 0);
    OK(dls_rmsnorm_backward_weight(&k->ctx, g, x, x, r, N, C));
    expect_costs(k, "rmsnorm backward weight", 3 * n, 2 * n, 2 * C + N, 0);
    OK(dls_swiglu_forward(&k->ctx, y, x, N, C));
    expect_costs(k, "swiglu forward", 5 * n, 3 * n, 0, 0);
    OK(dls_swiglu_backward(&k->ctx, y, x, x, N, C));
    expect_costs(k, "swiglu backward", 12 * n, 5 * n, 0, 0);
    /* run and count rotation and dropout */
    dls_rope_shape turned = {.N = N, .heads = H, .D = C / H, .R = C / H, .row = C,
                             .length = N, .T = T};
    OK(dls_rope_forward(&k->ctx, y, g, &turned));
    expect_costs(k, "rope forward", 3 * n, 2 * n, N * D, 0);
    turned.positions = t;
    OK(dls_rope_backward(&k->ctx, y, g, &turned));
    expect_costs(k, "rope backward", 3 * n, 2 * n, N * D, 4 * N);
    dls_dropout dropout = {.p = 0.5};
    OK(dls_dropout_apply(&k->ctx, y, x, N, C, &dropout));
    expect_costs(k, "dropout", n, 2 * n, 0, 0);
    dls_residual_norm residual = {N, C, 0, 1e-5, NULL};
    OK(dls_residual_norm_forward(&k->ctx, y, att, NULL, r, x, x, x, NULL, &residual));
    expect_costs(k, "residual norm forward", 5 * n, 4 * n + C, N, 0);
    OK(dls_residual_norm_backward(&k->ctx, y, NULL, x, x, x, x, NULL, r, &residual));
    expect_costs(k, "residual norm backward", 9 * n, 4 * n + C, N, 0);
    residual = (dls_residual_norm){N, C, 1, 1e-5, &dropout};
    OK(dls_residual_norm_forward(&k->ctx, y, att, m, r, x, x, x, x, &residual));
    expect_costs(k, "residual norm forward", 10 * n, 4 * n + 2 * C, 2 * N, 0);
    OK(dls_residual_norm_backward(&k->ctx, y, att, x, x, x, x, m, r, &residual));
    expect_costs(k, "residual norm backward", 14 * n, 5 * n + C, 2 * N, 0);
    if (k->ctx.dtype != DLS_BF16) {
        OK(packed_attention_forward(k, y, att, x, B, T, C, H));
        expect_costs(k, "attention forward", (4 * D + 5) * pairs,
                     4 * n + 3 * pairs + square, 0, 0);
        OK(packed_attention_backward(k, y, scratch, x, x, att, B, T, C, H));
        expect_costs(k, "attention backward", (8 * D + 5) * pairs,
                     8 * n + 6 * pairs + square, 0, 0);
    }
    OK(dls_cross_entropy_forward(&k->ctx, m, r, x, t, N, V, V));
    expect_costs(k, "cross-entropy forward", 4.0 * N * V, N * V, 2 * N, 4 * N);
    OK(dls_sum(&k->ctx, y, x, LONG));
    expect_costs(k, "sum", LONG, LONG, 0, 0);
    OK(dls_adamw(&k->ctx, x, NULL, g, v, m, LONG, 0, 0.9, 0.95, 1, 0, 1, NULL));
    expect_costs(k, "adamw", 15.0 * LONG, 2.0 * LONG, 5.0 * LONG, 0);
    OK(dls_adamw(&k->ctx, x, master, g, v, m, LONG, 0, 0.9, 0.95, 1, 0, 1, NULL));
    expect_costs(k, "adamw with masters", 15.0 * LONG, LONG, 7.0 * LONG, 0);
    OK(dls_linear_gelu_forward(&k->ctx, y, m, x, x, x, N, C, 64));
    if (k->ctx.dtype == DLS_F64)
        expect_costs(k, "separate linear and gelu", N * 64 * (2.0 * C + 11),
                     N * C + C * 64 + 64 + 5.0 * N * 64, 0, 0);
    else
        expect_costs(k, "linear and gelu", N * 64 * 2.0 * C,
                     N * C + C * 64 + 64 + 2.0 * N * 64, 0, 0);
}

/* test empty arrays */
KERNEL_TEST(nothing_is_not_an_error)
{
    double one[] = {1};
    void *x = kcase_put_acc(k, one, 1);
    int *t = kcase_put_ints(k, (int[]){0}, 1);
    OK(dls_embedding_forward(&k->ctx, x, t, NULL, x, x, 0, 1, 1));
    OK(dls_embedding_backward(&k->ctx, x, x, x, t, 0, 1, 1, 1));
    OK(dls_layernorm_forward(&k->ctx, x, x, x, x, x, x, 0, 1));
    OK(dls_layernorm_backward_input(&k->ctx, x, x, x, x, x, x, 0, 1));
    OK(dls_layernorm_backward_weight(&k->ctx, x, x, x, x, x, x, 0, 1));
    /* call the newer operations with nothing */
    OK(dls_rmsnorm_forward(&k->ctx, x, x, x, x, 0, 1, 1e-5));
    OK(dls_rmsnorm_backward_input(&k->ctx, x, x, x, x, x, 0, 1));
    OK(dls_rmsnorm_backward_weight(&k->ctx, x, x, x, x, 0, 1));
    OK(dls_swiglu_forward(&k->ctx, x, x, 0, 1));
    OK(dls_swiglu_backward(&k->ctx, x, x, x, 0, 1));
    OK(dls_dropout_apply(&k->ctx, x, x, 0, 1, &(dls_dropout){.p = 1}));
    dls_residual_norm none = {0, 1, 1, 1e-5, NULL};
    OK(dls_residual_norm_forward(&k->ctx, x, x, x, x, x, x, x, x, &none));
    OK(dls_residual_norm_backward(&k->ctx, x, x, x, x, x, x, x, x, &none));
    OK(dls_bias_add(&k->ctx, x, x, 0, 1));
    OK(dls_bias_backward(&k->ctx, x, x, 0, 1));
    OK(dls_gelu_forward(&k->ctx, x, x, 0));
    OK(dls_gelu_backward(&k->ctx, x, x, x, 0));
    OK(dls_add(&k->ctx, x, x, x, 0));
    OK(dls_scale(&k->ctx, x, 2, 0));
    if (k->ctx.dtype != DLS_BF16) {
        OK(packed_attention_forward(k, x, x, x, 0, 1, 1, 1));
        OK(packed_attention_backward(k, x, x, x, x, x, 1, 0, 1, 1));
    }
    OK(dls_cross_entropy_forward(&k->ctx, x, x, x, t, 0, 1, 1));
    OK(dls_cross_entropy_backward(&k->ctx, x, x, x, t, 1, 0, 1, 1));
    OK(dls_cross_entropy(&k->ctx, x, x, t, 1, 0, 1, 1));
    OK(dls_adamw(&k->ctx, x, NULL, x, x, x, 0, 1, 0.9, 0.95, 0, 0, 1, NULL));
    expect_within(kcase_get_acc(k, x, 1), one, 0, 1, "untouched");
}

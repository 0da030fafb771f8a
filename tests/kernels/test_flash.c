/* tests/kernels/test_flash.c: from chapters/10-flash-attention-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention of every shape, in every way. */
#include <stdio.h>

#include "attention_case.h"

/* list combinations */
enum { LENGTH, HEAD, SHARING, LENGTHS, CAUSAL, DROPOUT, FACTORS };
static const int level_count[FACTORS] = {5, 6, 3, 3, 2, 2};
static const int length_level[] = {1, 7, 63, 65, 127};
static const int head_level[] = {64, 96, 128, 256, 33, 5};
enum { FIXED, PACKED, CACHE };

static const int combinations[][FACTORS] = {
    {0, 0, 0, 0, 0, 0}, {1, 0, 2, 0, 1, 1}, {2, 0, 1, 1, 1, 0}, {3, 0, 1, 2, 0, 0},
    {4, 0, 1, 1, 0, 0}, {0, 1, 2, 2, 1, 1}, {1, 1, 0, 2, 0, 0}, {2, 1, 1, 0, 0, 1},
    {3, 1, 2, 1, 1, 1}, {4, 1, 0, 0, 1, 1}, {0, 2, 1, 1, 0, 1}, {1, 2, 1, 0, 1, 0},
    {2, 2, 2, 2, 0, 0}, {3, 2, 0, 0, 1, 1}, {4, 2, 2, 2, 0, 0}, {0, 3, 1, 2, 1, 0},
    {1, 3, 2, 1, 0, 1}, {2, 3, 0, 0, 1, 1}, {3, 3, 1, 1, 1, 0}, {4, 3, 1, 2, 1, 1},
    {0, 4, 0, 1, 1, 1}, {1, 4, 2, 0, 0, 0}, {2, 4, 1, 2, 1, 0}, {3, 4, 0, 1, 1, 1},
    {4, 4, 2, 1, 0, 0}, {0, 5, 2, 1, 0, 0}, {1, 5, 0, 2, 1, 1}, {2, 5, 1, 0, 0, 1},
    {3, 5, 1, 0, 1, 1}, {4, 5, 2, 1, 0, 0}};
enum { COMBINATIONS = sizeof combinations / sizeof *combinations };

/* test that every pair occurs */
static int occurs(int f, int a, int g, int b)
{
    for (int n = 0; n < COMBINATIONS; n++)
        if (combinations[n][f] == a && combinations[n][g] == b)
            return 1;
    return 0;
}

Test(kernels, flash_combinations_hold_every_pair)
{
    for (int f = 0; f < FACTORS; f++)
        for (int g = f + 1; g < FACTORS; g++)
            for (int a = 0; a < level_count[f]; a++)
                for (int b = 0; b < level_count[g]; b++)
                    cr_expect(occurs(f, a, g, b), "level %d of factor %d with %d of %d",
                              a, f, b, g);
}

/* make the shape of a combination */
static dls_attention_shape shape_of(const int *c, int *starts, int *lengths)
{
    int T = length_level[c[LENGTH]];
    dls_attention_shape s = {.B = 2, .Tq = T, .Tk = T, .H = 2, .Hk = 2,
                             .D = head_level[c[HEAD]], .causal = c[CAUSAL], .seed = 11,
                             .stream = 3, .dropout = c[DROPOUT] ? 0.3 : 0};
    s.H = c[SHARING] == 1 ? 4 : 2;
    s.Hk = c[SHARING] == 2 ? 1 : 2;
    s.q_row = s.k_row = s.v_row = (size_t)(s.H + 2 * s.Hk) * s.D + 3;
    s.o_row = (size_t)s.H * s.D + 1;
    /* give the combination its lengths */
    if (c[LENGTHS] == FIXED)
        s.B = 1;
    if (c[LENGTHS] == PACKED) {
        s.B = 3;
        starts[0] = 0;
        starts[1] = starts[2] = T;
        starts[3] = T + (T + 1) / 2;
        s.starts_q = s.starts_k = starts;
    }
    if (c[LENGTHS] == CACHE) {
        s.Tk = T + 18;
        lengths[0] = T + 17;
        lengths[1] = (T + 1) / 2;
        s.lengths_k = lengths;
    }
    return s;
}

/* test combinations */
static void check_combinations(kcase *k, int head)
{
    for (int n = 0; n < COMBINATIONS; n++) {
        int starts[4], lengths[2];
        char what[80];
        const int *c = combinations[n];
        if (c[HEAD] != head)
            continue;
        dls_attention_shape s = shape_of(c, starts, lengths);
        snprintf(what, sizeof what, "combination %d %d %d %d %d %d", c[0], c[1], c[2],
                 c[3], c[4], c[5]);
        acase_check(k, s, 1.5, what);
    }
}

KERNEL_TEST(flash_combinations_64) { check_combinations(k, 0); }
KERNEL_TEST(flash_combinations_96) { check_combinations(k, 1); }
KERNEL_TEST(flash_combinations_128) { check_combinations(k, 2); }
KERNEL_TEST(flash_combinations_256) { check_combinations(k, 3); }
KERNEL_TEST(flash_combinations_33) { check_combinations(k, 4); }
KERNEL_TEST(flash_combinations_5) { check_combinations(k, 5); }

KERNEL_TEST(flash_corners)
{
    const dls_attention_shape corners[] = {
        {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 1, .causal = 1},
        {.B = 1, .Tq = 70, .Tk = 3, .H = 2, .Hk = 1, .D = 8, .causal = 1},
        {.B = 2, .Tq = 1, .Tk = 200, .H = 4, .Hk = 2, .D = 16, .causal = 1},
        {.B = 1, .Tq = 2, .Tk = 150, .H = 2, .Hk = 2, .D = 64, .dropout = 0.9, .seed = 1},
        {.B = 1, .Tq = 200, .Tk = 200, .H = 1, .Hk = 1, .D = 32, .causal = 1,
         .scale = -0.4},
        {.B = 1, .Tq = 130, .Tk = 260, .H = 1, .Hk = 1, .D = 16, .causal = 1}};
    for (size_t i = 0; i < sizeof corners / sizeof *corners; i++)
        acase_check(k, corners[i], 2, (char[]){'#', (char)('0' + i), 0});
}

/* test examples of the text */
/* One query of one channel, q = 1, and so many keys: runs one way. */
static acase *one_query(kcase *k, const double *keys, const double *values, int n,
                        const char *way)
{
    dls_attention_shape s =
        {.B = 1, .Tq = 1, .Tk = n, .H = 1, .Hk = 1, .D = 1, .scale = 1};
    acase *a = acase_make(k, s, 1);
    a->x[Q][0] = a->dx[OUT][0] = 1;
    memcpy(a->x[K], keys, n * sizeof *keys);
    memcpy(a->x[V], values, n * sizeof *values);
    acase_put(k, a);
    acase_run(k, a, way);
    return a;
}

static const char *const all_ways[] = {"naive", "flash"};

KERNEL_TEST(flash_example)
{
    double keys[] = {0, log(2), log(4), 0}, values[] = {10, 20, 30, 40};
    double dk[] = {-2.03125, -1.5625, 1.875, 1.71875}, dv[] = {0.125, 0.25, 0.5, 0.125};
    double out = 26.25, lse = log(8), bits = rounding(k, 64) + 4 * k->stored;
    double far_keys[64], far_values[64] = {10, 20};
    for (int j = 0; j < 64; j++)
        far_keys[j] = j < 2 ? keys[j] : j < 62 ? -INFINITY : keys[j - 60];
    memcpy(&far_values[62], &values[2], 2 * sizeof *values);
    for (int way = 0; way < 2; way++) {
        acase *a = one_query(k, keys, values, 4, all_ways[way]);
        expect_within(kcase_get(k, a->dev[OUT], 1), &out, 30 * bits, 1, "out");
        expect_within(kcase_get_acc(k, a->dev_lse, 1), &lse, 3 * bits, 1, "lse");
        expect_within(kcase_get(k, a->ddev[K], 4), dk, 60 * bits, 4, "dk");
        expect_within(kcase_get(k, a->ddev[V], 4), dv, bits, 4, "dv");
        a = one_query(k, far_keys, far_values, 64, all_ways[way]);
        expect_within(kcase_get(k, a->dev[OUT], 1), &out, 30 * bits, 1, "far out");
        expect_within(kcase_get_acc(k, a->dev_lse, 1), &lse, 3 * bits, 1, "far lse");
    }
}

/* test extremes */
KERNEL_TEST(flash_large_scores)
{
    double keys[40], values[40], most = 7, dv[40] = {[33] = 1}, got;
    for (int j = 0; j < 40; j++) {
        keys[j] = j == 33 ? 16384 : -16384;
        values[j] = j == 33 ? most : 1000;
    }
    for (int way = 0; way < 2; way++) {
        acase *a = one_query(k, keys, values, 40, all_ways[way]);
        expect_within(kcase_get(k, a->dev[OUT], 1), &most, 0, 1, "out");
        expect_within(kcase_get(k, a->ddev[V], 40), dv, 0, 40, "dv");
        got = *kcase_get(k, a->ddev[Q], 1);
        cr_assert_eq(got, 0, "%s: dq = %g", all_ways[way], got);
    }
}

KERNEL_TEST(flash_scores_of_minus_infinity)
{
    double keys[40], values[40] = {1, 2, 3}, none = -INFINITY, zero = 0;
    for (int j = 0; j < 40; j++)
        keys[j] = -INFINITY;
    for (int way = 0; way < 2; way++) {
        acase *a = one_query(k, keys, values, 40, all_ways[way]);
        expect_within(kcase_get(k, a->dev[OUT], 1), &zero, 0, 1, "out");
        expect_within(kcase_get_acc(k, a->dev_lse, 1), &none, 0, 1, "lse");
        expect_within(kcase_get(k, a->ddev[V], 3), (double[]){0, 0, 0}, 0, 3, "dv");
    }
}

KERNEL_TEST(flash_infinite_queries_spoil_their_own_rows)
{
    dls_attention_shape s = {.B = 1, .Tq = 70, .Tk = 70, .H = 1, .Hk = 1, .D = 1};
    for (int way = 0; way < 2; way++) {
        acase *a = acase_make(k, s, 1);
        for (int i = 0; i < 70; i++) {
            a->x[Q][i] = i == 3 ? INFINITY : i == 68 ? NAN : 0;
            a->x[K][i] = 1;
            a->x[V][i] = 5;
        }
        acase_put(k, a);
        acase_run(k, a, all_ways[way]);
        double *out = kcase_get(k, a->dev[OUT], 70);
        for (int i = 0; i < 70; i++)
            if (i == 3 || i == 68)
                cr_assert(isnan(out[i]), "%s: out[%d] = %g", all_ways[way], i, out[i]);
            else
                cr_assert_float_eq(out[i], 5, 5 * rounding(k, 160) + 5 * k->stored,
                                   "%s: out[%d] = %g", all_ways[way], i, out[i]);
    }
}

KERNEL_TEST(flash_nothing_to_see)
{
    for (int way = 0; way < 2; way++) {
        dls_attention_shape s = {.B = 1, .Tq = 3, .Tk = 0, .H = 2, .Hk = 2, .D = 4};
        acase *a = acase_make(k, s, 1);
        acase_put(k, a);
        acase_run(k, a, all_ways[way]);
        expect_within(kcase_get(k, a->dev[OUT], 24), kcase_zeros(k, 24), 0, 24, "out");
        expect_within(kcase_get(k, a->ddev[Q], 24), kcase_zeros(k, 24), 0, 24, "dq");
        s.Tq = 0;
        s.Tk = 3;
        a = acase_make(k, s, 1);
        acase_put(k, a);
        acase_run(k, a, all_ways[way]);
        expect_within(kcase_get(k, a->ddev[K], 24), kcase_zeros(k, 24), 0, 24, "dk");
        expect_within(kcase_get(k, a->ddev[V], 24), kcase_zeros(k, 24), 0, 24, "dv");
        s.B = 0;
        setenv("DLS_ATTENTION", all_ways[way], 1);
        OK(dls_attention_forward(&k->ctx, &s, NULL, NULL, NULL, NULL, NULL));
    }
}

/* test shards */
KERNEL_TEST(flash_shards_drop_the_same_weights)
{
    dls_attention_shape s =
        {.B = 2, .Tq = 40, .Tk = 40, .H = 4, .Hk = 4, .D = 8, .causal = 1,
                             .dropout = 0.5, .seed = 3, .stream = 9};
    acase *a = acase_make(k, s, 1);
    acase_put(k, a);
    acase_run(k, a, "flash");
    size_t size = dls_dtype_size(k->ctx.dtype), row = 32, skip = (40 * row + 16) * size;
    dls_attention_shape part = {.B = 1, .Tq = 40, .Tk = 40, .H = 2, .Hk = 2, .D = 8,
                                .causal = 1, .dropout = 0.5, .seed = 3, .stream = 9,
                                .first_sequence = 1, .first_head = 2, .q_row = row,
                                .k_row = row, .v_row = row, .o_row = row};
    void *out = kcase_space(k, 80 * row);
    OK(dls_attention_forward(&k->ctx, &part, (char *)out + skip, NULL,
                             (char *)a->dev[Q] + skip, (char *)a->dev[K] + skip,
                             (char *)a->dev[V] + skip));
    double *whole = kcase_get(k, a->dev[OUT], 80 * row);
    double *shard = kcase_get(k, out, 80 * row);
    for (int i = 0; i < 40; i++)
        expect_within(&shard[(40 + i) * row + 16], &whole[(40 + i) * row + 16], 0, 16,
                      "out");
}

/* test flash gradients */
static double flash_of_input(kcase *k, void *env, const double *x, double *size)
{
    acase *a = env;
    int devices = k->devices, hosts = k->hosts;
    const double *parts[] = {x, x + a->size[Q], x + a->size[Q] + a->size[K]};
    void *in[3], *out = kcase_space(k, a->size[OUT]);
    for (int n = 0; n < 3; n++)
        in[n] = kcase_put(k, parts[n], a->size[n]);
    OK(dls_attention_forward(&k->ctx, &a->on_device, out, NULL, in[Q], in[K], in[V]));
    double sum = weigh(k, out, a->dx[OUT], a->size[OUT] - 3, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(flash_differences)
{
    int starts[] = {0, 6, 15};
    dls_attention_shape s =
        {.B = 2, .Tq = 9, .Tk = 9, .H = 4, .Hk = 2, .D = 3, .causal = 1,
                             .dropout = 0.2, .seed = 4, .starts_q = starts,
                             .starts_k = starts};
    if (k->ctx.dtype != DLS_F64)
        return;
    acase *a = acase_make(k, s, 1);
    acase_put(k, a);
    acase_run(k, a, "flash");
    size_t n = a->size[Q] + a->size[K] + a->size[V], at = 0;
    double *x = kcase_zeros(k, n), *gradient = kcase_zeros(k, n);
    for (int part = 0; part < 3; at += a->size[part++]) {
        memcpy(x + at, a->x[part], (a->size[part] - 3) * sizeof *x);
        memcpy(gradient + at, kcase_get(k, a->ddev[part], a->size[part]),
               (a->size[part] - 3) * sizeof *x);
    }
    expect_gradient(k, flash_of_input, a, x, n, gradient, 100, "flash");
}

/* test refusals of shapes */
static void expect_refusal(dls_attention_shape s, const char *message)
{
    cr_assert_eq(dls_attention_complete(&s), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), message);
}

Test(kernels, attention_shapes_are_refused)
{
    const dls_attention_shape good = {.B = 1, .Tq = 2, .Tk = 2, .H = 6, .Hk = 3, .D = 8};
    dls_attention_shape s = good;
    OK(dls_attention_complete(&s));
    s = good, s.Hk = 4;
    expect_refusal(s, "attention: 6 query heads can not share 4 key heads");
    s = good, s.D = 0;
    expect_refusal(s, "attention: 1 sequences, 2 queries, 2 keys, head size 0");
    s = good, s.dropout = 1;
    expect_refusal(s, "attention: dropout 1 is not in [0, 1)");
    s = good, s.v_row = 23;
    expect_refusal(s, "attention: value rows of 23 elements can not hold 3 heads of 8");
    s = good, s.o_row = 47;
    expect_refusal(s, "attention: output rows of 47 elements can not hold 6 heads of 8");
}

KERNEL_TEST(attention_ways_are_named)
{
    dls_attention_shape s = {.B = 1, .Tq = 2, .Tk = 2, .H = 1, .Hk = 1, .D = 8};
    setenv("DLS_ATTENTION", "fast", 1);
    cr_assert_eq(dls_attention_forward(&k->ctx, &s, NULL, NULL, NULL, NULL, NULL),
                 DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "DLS_ATTENTION: expected naive, flash, tensor or decode, "
                     "got \"fast\"");
}

/* test the memory of attention */
typedef struct memory { size_t beside, whole; } memory;

/* q, k, v, out, their gradients in the same order; then the log-sum-exp, `temporary`. */
enum { EIGHT = 8, LSE = EIGHT, TEMPORARY, TEN };

static void pass_both_ways(kcase *k, const dls_attention_shape *s, void **x)
{
    OK(dls_attention_forward(&k->ctx, s, x[3], x[LSE], x[0], x[1], x[2]));
    OK(dls_attention_backward(&k->ctx, s, x[4], x[5], x[6], x[TEMPORARY], x[7], x[0],
                              x[1], x[2], x[3], x[LSE]));
    OK(dls_ctx_sync(&k->ctx));
}

/* Peaks over a forward and a backward pass: without and with the arrays of the tokens. */
static memory peaks_of(kcase *k, int T, int D, const char *way)
{
    dls_attention_shape s = {.B = 1, .Tq = T, .Tk = T, .H = 1, .Hk = 1, .D = D};
    const dls_dtype type = k->ctx.dtype, sums = dls_dtype_accumulator(type);
    const int used = T < 64 ? T : 64, devices = k->devices, hosts = k->hosts;
    dls_gpu_memory empty, before, after;
    void *x[TEN];
    setenv("DLS_ATTENTION", way, 1);
    s.lengths_k = kcase_put_ints(k, &used, 1);
    OK(dls_attention_complete(&s));
    OK(dls_gpu_memory_stats(0, &empty));
    for (int n = 0; n < TEN; n++) {
        size_t bytes = n < EIGHT ? (size_t)T * D * dls_dtype_size(type)
                     : n == LSE  ? (size_t)T * dls_dtype_size(sums)
                                 : dls_attention_temporary(&s, type);
        if (n == EIGHT) {
            OK(dls_gpu_memory_stats(0, &before));
            dls_gpu_memory_reset_peaks(0);
        }
        OK(cudaMalloc(&x[n], bytes));
        OK(cudaMemset(x[n], 0, bytes));
    }
    pass_both_ways(k, &s, x);
    OK(dls_gpu_memory_stats(0, &after));
    for (int n = 0; n < TEN; n++)
        OK(cudaFree(x[n]));
    kcase_release(k, devices, hosts);
    return (memory){after.total_peak - before.total, after.total_peak - empty.total};
}

Test(kernels, flash_memory_is_linear_in_length)
{
    static kcase k;
    setenv("DLS_KERNELS", "host", 1);
    OK(dls_ctx_create(&k.ctx, 0, DLS_F32));
    k.u = 0x1p-24;
    memory naive = peaks_of(&k, 4096, 64, "naive");
    memory flash = peaks_of(&k, 4096, 64, "flash");
    memory half = peaks_of(&k, 2048, 64, "flash");
    size_t row = 4096 * 4, square = 4096 * row;
    cr_expect_eq(naive.beside, 3 * square + row, "%zu bytes", naive.beside);
    cr_expect_eq(flash.beside, 2 * row, "%zu bytes", flash.beside);
    cr_expect_eq(half.beside, row, "%zu bytes", half.beside);
    cr_expect_lt(flash.beside, naive.beside / 50);
    cr_expect_eq(naive.whole - naive.beside, flash.whole - flash.beside);
    cr_expect_geq(flash.whole, flash.beside + 8 * 64 * row);
    cr_expect_lt(flash.whole, naive.whole / 20, "%zu against %zu", flash.whole,
                 naive.whole);
    dls_ctx_destroy(&k.ctx);
}

/* Beside the arrays of one head: the log-sum-exp, delta, halves of the sums of dQ. */
static size_t flash_bytes(const char *kernels, dls_dtype type, int T, int D)
{
    int halves = type == DLS_BF16 && strcmp(kernels, "host") == 0;
    size_t number = dls_dtype_size(dls_dtype_accumulator(type));
    return (size_t)T * (2 * number + (halves ? 2 * (size_t)D : 0));
}

static void expect_peaks(const char *kernels, dls_dtype type)
{
    static kcase k;
    const int T = 130;
    size_t number = dls_dtype_size(dls_dtype_accumulator(type));
    setenv("DLS_KERNELS", kernels, 1);
    OK(dls_ctx_create(&k.ctx, 0, type));
    for (int D = 64; D <= 256; D += D < 128 ? 32 : 128) {
        memory flash = peaks_of(&k, T, D, "flash");
        cr_expect_eq(flash.beside, flash_bytes(kernels, type, T, D),
                     "%s, D %d: %zu bytes", kernels, D, flash.beside);
    }
    cr_expect_eq(peaks_of(&k, T, 64, "naive").beside, (3 * T * T + T) * number);
    if (type == DLS_BF16)
        cr_expect_eq(peaks_of(&k, T, 64, "tensor").beside,
                     flash_bytes(kernels, type, T, 64));
    dls_ctx_destroy(&k.ctx);
}

Test(kernels, flash_memory_of_f32_on_threads) { expect_peaks("simt", DLS_F32); }
Test(kernels, flash_memory_of_f64_on_threads) { expect_peaks("simt", DLS_F64); }
Test(kernels, flash_memory_of_bf16_on_threads) { expect_peaks("simt", DLS_BF16); }
Test(kernels, flash_memory_of_f64_on_the_host) { expect_peaks("host", DLS_F64); }
Test(kernels, flash_memory_of_bf16_on_the_host) { expect_peaks("host", DLS_BF16); }

static void expect_two_percent(dls_dtype type)
{
    static kcase k;
    const int T = 4096;
    setenv("DLS_KERNELS", "host", 1);
    OK(dls_ctx_create(&k.ctx, 0, type));
    memory naive = peaks_of(&k, T, 64, "naive");
    cr_expect_eq(naive.beside, 4 * ((size_t)3 * T * T + T), "%zu", naive.beside);
    for (int D = 64; D <= 256; D += D < 128 ? 32 : 128) {
        memory flash = peaks_of(&k, T, D, "flash");
        cr_expect_eq(flash.beside, flash_bytes("host", type, T, D), "D %d: %zu bytes", D,
                     flash.beside);
        cr_expect_lt(50 * flash.beside, naive.beside, "D %d: %.2f %%", D,
                     100.0 * (double)flash.beside / (double)naive.beside);
    }
    dls_ctx_destroy(&k.ctx);
}

Test(kernels, flash_memory_of_f32_is_below_two_percent) { expect_two_percent(DLS_F32); }
Test(kernels, flash_memory_of_bf16_is_below_two_percent) { expect_two_percent(DLS_BF16); }

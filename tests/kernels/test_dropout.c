/* tests/kernels/test_dropout.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* test the gate */
static unsigned mask_of(const dls_dropout_gate *gate, uint64_t first)
{
    unsigned mask = 0;
    for (int i = 0; i < 32; i++) {
        unsigned quad = dls_dropout_keeps4(gate, (first + i) / 4);
        mask |= (unsigned)dls_dropout_keeps(gate, first + i) << i;
        cr_assert_eq(quad >> (first + i) % 4 & 1, mask >> i & 1, "element %d", i);
    }
    return mask;
}

Test(kernels, dropout_masks_stay_what_they_are)
{
    dls_dropout_gate half = dls_dropout_gate_of(0.5, 7, 3);
    dls_dropout_gate quarter = dls_dropout_gate_of(0.25, 7, 3);
    dls_dropout_gate most =
        dls_dropout_gate_of(0.9, 0x123456789abcdef, 0xfedcba9876543210);
    cr_assert_eq(mask_of(&half, 0), 0x3a5f2299);
    cr_assert_eq(mask_of(&quarter, (1ULL << 34) + 1), 0xe21f29fe);
    cr_assert_eq(mask_of(&most, 12345), 0x53002);
    half.least = dls_rng_u32(7, 3, 99);  // a word at the bound is kept, one below not
    cr_assert(dls_dropout_keeps(&half, 99) && dls_dropout_keeps4(&half, 24) >> 3);
    half.least++;
    cr_assert(!dls_dropout_keeps(&half, 99) && !(dls_dropout_keeps4(&half, 24) >> 3));
    cr_assert_eq(dls_dropout_gate_of(1, 0, 0).least, 1ULL << 32);
    cr_assert_eq(dls_dropout_gate_of(1, 0, 0).scale, 0);
    cr_assert_eq(dls_dropout_gate_of(0, 0, 0).least, 0);
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(kernels, dropout_keys_differ)
{
    static uint64_t keys[4 * 8 * 16 + 512];
    int n = 0;
    for (uint64_t stream = 0; stream < 4; stream++)
        for (uint32_t sequence = 0; sequence < 8; sequence++)
            for (uint32_t head = 0; head < 16; head++) {
                dls_dropout_gate gate = dls_dropout_gate_of(0.5, 1, stream);
                keys[n++] = dls_dropout_of_head(gate, sequence, head).stream;
            }
    for (uint64_t step = 0; step < 512; step++)
        keys[n++] = dls_dropout_seed(1, step);
    qsort(keys, n, sizeof *keys, compare_keys);
    for (int i = 1; i < n; i++)
        cr_assert_neq(keys[i], keys[i - 1], "two keys are %016lx", keys[i]);
    cr_assert_eq(dls_dropout_pair(3, 5), (3ULL << 32) + 5);
}

/* refer to dropout */
static void refer_to_dropout(const kcase *k, double *out, const double *x, int N, int C,
                             const dls_dropout *d)
{
    dls_dropout_gate gate = dls_dropout_gate_of(d->p, d->seed, d->stream);
    double scale = kcase_round_acc(k, gate.scale);
    for (int i = 0; i < N * C; i++) {
        uint64_t index = d->first + i / C * (d->row ? d->row : (uint64_t)C) + i % C;
        int kept = dls_dropout_keeps(&gate, index);
        out[i] = kept ? kcase_round(k, kcase_round_acc(k, x[i] * scale)) : 0;
    }
}

static void check_dropout(kcase *k, int N, int C, dls_dropout d)
{
    size_t n = (size_t)N * C;
    double *x = kcase_random(k, n, 1, 1, 2), *out = kcase_zeros(k, n);
    void *dev = kcase_put(k, x, n), *to = kcase_space(k, n);
    refer_to_dropout(k, out, x, N, C, &d);
    OK(dls_dropout_apply(&k->ctx, to, dev, N, C, &d));
    OK(dls_dropout_apply(&k->ctx, dev, dev, N, C, &d));  // in place
    expect_within(kcase_get(k, to, n), out, 0, n, "dropped");
    expect_within(kcase_get(k, dev, n), out, 0, n, "dropped in place");
    kcase_release(k, 0, 0);
}

/* test dropped rows */
KERNEL_TEST(dropout_sizes)
{
    int sizes[][2] = {{1, 1}, {5, 1}, {3, 5}, {4, 128}, {2, 127}, {3, 131}, {2, 513}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint64_t first = 0; first < 4; first++) {
            dls_dropout d = {0.3, 11, 1ULL << 40, (1ULL << 35) + first,
                             i % 2 ? sizes[i][1] + 7 : 0};
            check_dropout(k, sizes[i][0], sizes[i][1], d);
        }
}

KERNEL_TEST(dropout_ends)
{
    double x[] = {1, -2, INFINITY, NAN, 3}, zero[5] = {0};
    void *dev = kcase_put(k, x, 5), *to = kcase_space(k, 5);
    OK(dls_dropout_apply(&k->ctx, to, dev, 1, 5, &(dls_dropout){.p = 0, .seed = 1}));
    expect_within(kcase_get(k, to, 5), x, 0, 5, "nothing is dropped");
    OK(dls_dropout_apply(&k->ctx, to, dev, 1, 5, &(dls_dropout){.p = 1, .seed = 1}));
    expect_within(kcase_get(k, to, 5), zero, 0, 5, "all is dropped");
    double bad[] = {-0.1, 1.1, NAN, INFINITY};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(dls_dropout_apply(&k->ctx, to, dev, 1, 5,
                                       &(dls_dropout){.p = bad[i]}), DLS_ERR_INPUT);
}

KERNEL_TEST(dropout_of_parts_is_that_of_the_whole)
{
    enum { N = 6, C = 39, PARTS = 3 };
    double *x = kcase_random(k, N * C, 1, 1, 2), *rows = kcase_zeros(k, N * C);
    double *columns = kcase_zeros(k, N * C), *part = kcase_zeros(k, N * C);
    dls_dropout d = {.p = 0.5, .seed = 3, .stream = 4, .row = C};
    void *to = kcase_space(k, N * C);
    OK(dls_dropout_apply(&k->ctx, to, kcase_put(k, x, N * C), N, C, &d));
    double *whole = kcase_get(k, to, N * C);
    for (int r = 0; r < PARTS; r++) {
        int n = N / PARTS, c = C / PARTS;
        d.first = (uint64_t)r * n * C;
        OK(dls_dropout_apply(&k->ctx, to, kcase_put(k, x + d.first, n * C), n, C, &d));
        memcpy(rows + d.first, kcase_get(k, to, n * C), n * C * sizeof *rows);
        for (int i = 0; i < N * c; i++)
            part[i] = x[i / c * C + r * c + i % c];
        d.first = (uint64_t)r * c;
        OK(dls_dropout_apply(&k->ctx, to, kcase_put(k, part, N * c), N, c, &d));
        double *got = kcase_get(k, to, N * c);
        for (int i = 0; i < N * c; i++)
            columns[i / c * C + r * c + i % c] = got[i];
    }
    expect_within(rows, whole, 0, N * C, "by rows");
    expect_within(columns, whole, 0, N * C, "by columns");
}

KERNEL_TEST(dropout_keeps_the_right_share)
{
    enum { N = 40, C = 1000, ALL = N * C };
    double *one = kcase_random(k, ALL, 1, 1, 1), shares[] = {0.1, 0.5, 0.9};
    void *dev = kcase_put(k, one, ALL), *to = kcase_space(k, ALL);
    for (int s = 0; s < 3; s++) {
        dls_dropout d = {.p = shares[s], .seed = 5, .stream = 6};
        double kept = 0, together = 0, q = 1 - shares[s];
        OK(dls_dropout_apply(&k->ctx, to, dev, N, C, &d));
        double *y = kcase_get(k, to, ALL);
        for (int i = 0; i < ALL; i++) {
            kept += y[i] != 0;
            together += i > 0 && y[i] != 0 && y[i - 1] != 0;
        }
        cr_assert_float_eq(kept, ALL * q, 5 * sqrt(ALL * q * (1 - q)), "%g", kept);
        cr_assert_float_eq(together, ALL * q * q, 5 * sqrt(3 * ALL * q * q * (1 - q * q)),
                           "%g", together);
    }
}

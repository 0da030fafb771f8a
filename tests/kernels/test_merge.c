/* tests/kernels/test_merge.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Merging attentions to different keys, and the other sums over blocks. */
#include "kernels/merge.h"
#include "support.h"

/* prepare a merge */
enum { SEQUENCES = 2, PITCH = 5, FIRST = 2, MOST = 3, HEADS = 3, SIZE = 5,
       ROWS = SEQUENCES * PITCH, WIDTH = HEADS * SIZE, LSES = SEQUENCES * HEADS * MOST };

// Totals worth a case of their own, by the number of the head and row.
static double total_of(int n)
{
    static const double odd[] = {0, -INFINITY, 900, -900, 1.5, -INFINITY, 88.7};
    return odd[n % 7];
}

static double lse_of(int n)
{
    static const double odd[] = {0.25, 2, -INFINITY, 880, -895, 1.5, -INFINITY, 3, 90,
                                 NAN};
    return odd[n % 10];
}

static double joined(double a, double b)
{
    if (a == -INFINITY || b == -INFINITY)
        return a == -INFINITY ? b : a;
    return fmax(a, b) + log1p(exp(-fabs(a - b))) + (isnan(a + b) ? NAN : 0);
}

/* test the merge */
static void merge_by_definition(double *sum, double *total, const double *block,
                                const double *lse, int begin)
{
    for (int n = 0; n < LSES; n++) {
        int b = n / MOST / HEADS, h = n / MOST % HEADS, i = n % MOST;
        int row = b * PITCH + FIRST + i, at = row * HEADS + h;
        double old = begin ? -INFINITY : total[at], now = joined(old, lse[n]);
        double w = lse[n] == -INFINITY ? 0 : 1 / (1 + exp(old - lse[n]));
        for (int d = 0; d < SIZE; d++) {
            double *to = &sum[at * SIZE + d], x = block[at * SIZE + d];
            *to = begin ? x : *to + w * (x - *to);
        }
        total[at] = begin ? lse[n] : now;
    }
}

static void expect_a_merge(kcase *k, int begin)
{
    double *sum = kcase_random(k, ROWS * WIDTH, 1, -2, 2), *total = kcase_zeros(k, 64);
    double *block = kcase_random(k, ROWS * WIDTH, 2, -2, 2), *lse = kcase_zeros(k, 64);
    dls_merge_rows rows = {SEQUENCES, MOST, PITCH, FIRST, NULL, NULL, SEQUENCES * MOST};
    for (int n = 0; n < ROWS * HEADS; n++)
        total[n] = kcase_round_acc(k, total_of(n));
    for (int n = 0; n < LSES; n++)
        lse[n] = kcase_round_acc(k, lse_of(n));
    /* merge on both sides */
    void *d_sum = kcase_put_acc(k, sum, ROWS * WIDTH);
    void *d_total = kcase_put_acc(k, total, ROWS * HEADS);
    void *d_block = kcase_put(k, block, ROWS * WIDTH), *d_lse = kcase_put_acc(k, lse, LSES);
    for (int n = 0; n < ROWS * WIDTH; n++) {
        sum[n] = kcase_round_acc(k, sum[n]);
        block[n] = kcase_round(k, block[n]);
    }
    merge_by_definition(sum, total, block, lse, begin);
    OK(dls_merge_outputs(&k->ctx, &rows, HEADS, SIZE, d_sum, d_total, d_block, d_lse,
                         begin));
    expect_within(kcase_get_acc(k, d_sum, ROWS * WIDTH), sum, 4 * rounding(k, 8),
                  ROWS * WIDTH, "sum");
    expect_within(kcase_get_acc(k, d_total, ROWS * HEADS), total, 900 * rounding(k, 4),
                  ROWS * HEADS, "total");
}

KERNEL_TEST(merges_attentions) { expect_a_merge(k, 0); }

KERNEL_TEST(begins_a_merge) { expect_a_merge(k, 1); }

KERNEL_TEST(selects_totals_of_packed_rows)
{
    static const int starts[] = {1, 3, 3, 6};
    double *total = kcase_random(k, 6 * HEADS, 3, -2, 2), want[3 * HEADS * 4];
    dls_merge_rows rows = {.B = 3, .most = 4, .starts = kcase_put_ints(k, starts, 4),
                           .count = 5};
    void *lse = kcase_space_acc(k, 3 * HEADS * 4);
    OK(dls_merge_totals(&k->ctx, &rows, HEADS, lse, kcase_put_acc(k, total, 6 * HEADS)));
    for (int n = 0; n < 3 * HEADS * 4; n++) {
        int b = n / 4 / HEADS, h = n / 4 % HEADS, i = n % 4;
        int in = i < starts[b + 1] - starts[b];
        want[n] = in ? kcase_round_acc(k, total[(starts[b] + i) * HEADS + h]) : -INFINITY;
    }
    expect_within(kcase_get_acc(k, lse, 3 * HEADS * 4), want, 0, 3 * HEADS * 4, "lse");
}

/* test sums of rows */
KERNEL_TEST(adds_rows_of_a_block)
{
    enum { N = 6, C = 3, SUM_ROW = 7, X_ROW = 4 };
    static const int starts[] = {0, 3, 4, 6}, lengths[] = {2, 0, 1};
    double *sum = kcase_random(k, N * SUM_ROW, 4, -2, 2);
    double *x = kcase_random(k, N * X_ROW, 5, -2, 2), *want = kcase_zeros(k, N * SUM_ROW);
    dls_merge_rows rows = {.B = 3, .most = 2, .starts = kcase_put_ints(k, starts, 4),
                           .lengths = kcase_put_ints(k, lengths, 3), .count = 3};
    void *d_sum = kcase_put_acc(k, sum, N * SUM_ROW), *d_x = kcase_put(k, x, N * X_ROW);
    for (int n = 0; n < N * SUM_ROW; n++) {
        int row = n / SUM_ROW, c = n % SUM_ROW, in = row < 2 || row == 4;
        want[n] = kcase_round_acc(k, sum[n]);
        if (in && c < C)
            want[n] += kcase_round(k, x[row * X_ROW + c]);
    }
    OK(dls_merge_add(&k->ctx, &rows, C, d_sum, SUM_ROW, d_x, X_ROW, 0));
    expect_within(kcase_get_acc(k, d_sum, N * SUM_ROW), want, 4 * rounding(k, 1),
                  N * SUM_ROW, "sum");
    /* begin and store the rows */
    OK(dls_merge_add(&k->ctx, &rows, C, d_sum, SUM_ROW, d_x, X_ROW, 1));
    void *out = kcase_space(k, N * C);
    OK(dls_merge_store(&k->ctx, N, C, out, C, d_sum, SUM_ROW));
    for (int n = 0; n < N * C; n++) {
        int row = n / C, c = n % C, in = row < 2 || row == 4;
        want[n] = kcase_round(k, in ? kcase_round(k, x[row * X_ROW + c])
                                    : kcase_round_acc(k, sum[row * SUM_ROW + c]));
    }
    expect_within(kcase_get(k, out, N * C), want, 0, N * C, "begun and stored");
}

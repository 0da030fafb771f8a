/* tests/kernels/test_permute.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/permute.h"

/* scatter places */
typedef struct shape { int n, k, C; } shape;

/* Distinct places in an order of no use; every `drop`-th choice has none. Returns how
 * many have one. */
static int scatter_places(int *place, int count, int drop)
{
    int kept = 0;
    for (int i = 0; i < count; i++)
        kept += (i + 1) % drop != 0;
    int step = kept % 7 ? 7 : 11;   // prime to kept, below 77
    for (int i = 0, at = 0; i < count; i++)
        place[i] = (i + 1) % drop == 0 ? -1 : (int)((long)at++ * step % kept);
    return kept;
}

/* check the permutation */
static void check_permute(kcase *k, shape s, const int *place, int m)
{
    double *x = kcase_random(k, (size_t)s.n * s.C, 1, -2, 2);
    double *want = kcase_zeros(k, (size_t)(m + 1) * s.C);
    for (int i = 0; i < (m + 1) * s.C; i++)
        want[i] = NAN;          // nobody has the last row
    for (int i = 0; i < s.n * s.k; i++)
        for (int c = 0; c < s.C && place[i] >= 0; c++)
            want[place[i] * s.C + c] = x[i / s.k * s.C + c];
    void *xs = kcase_space(k, (size_t)(m + 1) * s.C);
    OK(dls_permute(&k->ctx, xs, kcase_put(k, x, (size_t)s.n * s.C),
                   kcase_put_ints(k, place, s.n * s.k), s.n, s.k, s.C));
    expect_within(kcase_get(k, xs, (size_t)(m + 1) * s.C), want, 0,
                  (size_t)(m + 1) * s.C, "permute");
}

static void check_unpermute(kcase *k, shape s, const int *place, int m, int weighted,
                            int based)
{
    size_t n = (size_t)s.n * s.C;
    double *ys = kcase_random(k, (size_t)m * s.C + 1, 2, -2, 2);
    double *base = kcase_random(k, n, 3, -2, 2), *want = kcase_zeros(k, 2 * n);
    double *weight = kcase_random(k, s.n * s.k, 4, 0, 1);
    for (size_t i = 0; i < n; i++) {
        double sum = based ? base[i] : 0, size = fabs(sum);
        for (int j = 0; j < s.k; j++) {
            int at = place[i / s.C * s.k + j];
            double w = weighted ? weight[i / s.C * s.k + j] : 1;
            double term = at < 0 ? 0 : w * ys[at * s.C + i % s.C];
            sum += term;
            size += fabs(term);
        }
        want[i] = sum;
        want[n + i] = rounding(k, s.k + 2) * size + 1e-300;
    }
    void *y = based ? kcase_put(k, base, n) : kcase_space(k, n);    // in place
    OK(dls_unpermute(&k->ctx, y, based ? y : NULL, kcase_put(k, ys, (size_t)m * s.C + 1),
                     weighted ? kcase_put_acc(k, weight, s.n * s.k) : NULL,
                     kcase_put_ints(k, place, s.n * s.k), s.n, s.k, s.C));
    expect_stored(k, kcase_get(k, y, n), want, want + n, n, "unpermute");
}

static void check_backward(kcase *k, shape s, const int *place, int m)
{
    size_t n = (size_t)s.n * s.C, rows = (size_t)m * s.C, choices = (size_t)s.n * s.k;
    double *ys = kcase_random(k, rows + 1, 2, -2, 2), *dy = kcase_random(k, n, 5, -2, 2);
    double *weight = kcase_random(k, choices, 4, 0, 1);
    double *dys = kcase_zeros(k, 2 * rows + 1), *dw = kcase_zeros(k, 2 * choices);
    for (size_t i = 0; i < choices; i++) {
        double size = 0;
        for (int c = 0; c < s.C && place[i] >= 0; c++) {
            size_t at = (size_t)place[i] * s.C + c, from = i / s.k * s.C + c;
            dys[at] = weight[i] * dy[from];
            dys[rows + at] = rounding(k, 2) * fabs(dys[at]);
            dw[i] += dy[from] * ys[at];
            size += fabs(dy[from] * ys[at]);
        }
        dw[choices + i] = rounding(k, s.C + 2) * size;
    }
    void *to = kcase_space(k, rows + 1), *slopes = kcase_space_acc(k, choices);
    OK(dls_unpermute_backward(&k->ctx, to, slopes, kcase_put(k, dy, n),
                              kcase_put(k, ys, rows + 1),
                              kcase_put_acc(k, weight, choices),
                              kcase_put_ints(k, place, (int)choices), s.n, s.k, s.C));
    expect_stored(k, kcase_get(k, to, rows), dys, dys + rows, rows, "dys");
    expect_near(kcase_get_acc(k, slopes, choices), dw, dw + choices, choices, "dweight");
}

/* test the permutation */
KERNEL_TEST(permutation_sizes)
{
    const shape sizes[] = {{1, 1, 1}, {5, 2, 3}, {7, 3, 31}, {2, 8, 300}, {13, 1, 67}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int drop = 2; drop <= 1000; drop += 499) {
            int place[64], m = scatter_places(place, sizes[i].n * sizes[i].k, drop);
            check_permute(k, sizes[i], place, m);
            for (int how = 0; how < 4; how++)
                check_unpermute(k, sizes[i], place, m, how & 1, how >> 1);
            check_backward(k, sizes[i], place, m);
            kcase_release(k, 0, 0);
        }
}

KERNEL_TEST(permutation_of_nothing)
{
    OK(dls_permute(&k->ctx, NULL, NULL, NULL, 0, 2, 3));
    OK(dls_unpermute(&k->ctx, NULL, NULL, NULL, NULL, NULL, 0, 2, 3));
    OK(dls_unpermute_backward(&k->ctx, NULL, NULL, NULL, NULL, NULL, NULL, 0, 2, 3));
}

static const int example[] = {2, 0, -1, 1, 4, 3};  // three tokens, two choices each

static double of_weights(kcase *k, void *env, const double *weight, double *size)
{
    int devices = k->devices, hosts = k->hosts;
    void *y = kcase_space(k, 12), *ys = kcase_put(k, kcase_random(k, 20, 2, -2, 2), 20);
    OK(dls_unpermute(&k->ctx, y, NULL, ys, kcase_put_acc(k, weight, 6),
                     kcase_put_ints(k, example, 6), 3, 2, 4));
    double sum = weigh(k, y, env, 12, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(permutation_differences)
{
    double *weight = kcase_random(k, 6, 1, 0, 1), *dy = kcase_random(k, 12, 3, -1, 1);
    void *dweight = kcase_space_acc(k, 6), *dys = kcase_space(k, 20);
    OK(dls_unpermute_backward(&k->ctx, dys, dweight, kcase_put(k, dy, 12),
                              kcase_put(k, kcase_random(k, 20, 2, -2, 2), 20),
                              kcase_put_acc(k, weight, 6), kcase_put_ints(k, example, 6),
                              3, 2, 4));
    expect_gradient(k, of_weights, dy, weight, 6, kcase_get_acc(k, dweight, 6), 40,
                    "weights");
}

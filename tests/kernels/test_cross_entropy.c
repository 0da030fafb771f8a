/* tests/kernels/test_cross_entropy.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "cross_entropy_reference.h"

/* test cross entropy */
/* The rows are `row` long; what lies behind V is NaN before, and 0 after. */
static double *pad(kcase *k, const double *z, int N, int V, int row, double with)
{
    double *padded = kcase_zeros(k, (size_t)N * row);
    for (int n = 0; n < N; n++)
        for (int v = 0; v < row; v++)
            padded[n * row + v] = v < V ? z[n * V + v] : with;
    return padded;
}

static void check_cross_entropy(kcase *k, int N, int V, int row, double range)
{
    size_t n = (size_t)N * V, all = (size_t)N * row;
    int y[64];
    double *z = kcase_random(k, n, 1, -range, range), *loss = kcase_zeros(k, N);
    double *loss_e = kcase_zeros(k, N), *dz = kcase_zeros(k, n),
           *dz_e = kcase_zeros(k, n);
    for (int i = 0; i < N; i++) {
        y[i] = i % 5 == 4 ? (i % 2 ? -1 : -100) : i * 7 % V;
        refer_row(k, z + i * V, V, y[i], 0.5, loss + i, loss_e + i, dz + i * V,
                  dz_e + i * V);
    }
    void *l = kcase_space_acc(k, N), *lse = kcase_space_acc(k, N);
    void *fused = kcase_space_acc(k, N);
    double *padded = pad(k, z, N, V, row, NAN);
    void *dev = kcase_put(k, padded, all), *again = kcase_put(k, padded, all);
    int *t = kcase_put_ints(k, y, N);
    OK(dls_cross_entropy_forward(&k->ctx, l, lse, dev, t, N, V, row));
    OK(dls_cross_entropy_backward(&k->ctx, dev, dev, lse, t, 0.5, N, V, row));
    OK(dls_cross_entropy(&k->ctx, fused, again, t, 0.5, N, V, row));
    dz = pad(k, dz, N, V, row, 0);
    dz_e = pad(k, dz_e, N, V, row, -1e-300);  // the padding is exactly 0
    expect_near(kcase_get_acc(k, l, N), loss, loss_e, N, "loss");
    expect_stored(k, kcase_get(k, dev, all), dz, dz_e, all, "dlogits");
    expect_near(kcase_get_acc(k, fused, N), loss, loss_e, N, "loss, fused");
    expect_stored(k, kcase_get(k, again, all), dz, dz_e, all, "dlogits, fused");
    kcase_release(k, 0, 0);
}

KERNEL_TEST(cross_entropy_sizes)
{
    check_cross_entropy(k, 1, 1, 1, 1);
    check_cross_entropy(k, 7, 2, 2, 5);
    check_cross_entropy(k, 6, 33, 33, 5);
    check_cross_entropy(k, 6, 33, 40, 5);
    check_cross_entropy(k, 11, 256, 256, 30);
    check_cross_entropy(k, 3, 1009, 1024, 3);
    check_cross_entropy(k, 2, 2500, 2503, 3);
    check_cross_entropy(k, 5, 31, 32, 1e4);
}

KERNEL_TEST(cross_entropy_example)
{
    double z[] = {0, log(2), log(5)}, loss[] = {log(1.6)}, lse[] = {log(8)};
    double dz[] = {0.125, 0.25, -0.375};
    int y[] = {2}, *t = kcase_put_ints(k, y, 1);
    void *l = kcase_space_acc(k, 1), *s = kcase_space_acc(k, 1);
    void *dev = kcase_put(k, z, 3);
    OK(dls_cross_entropy_forward(&k->ctx, l, s, dev, t, 1, 3, 3));
    OK(dls_cross_entropy_backward(&k->ctx, dev, dev, s, t, 1, 1, 3, 3));
    double e = rounding(k, 12) + 2 * k->stored;  // log 2 and log 5 are stored as well
    expect_within(kcase_get_acc(k, l, 1), loss, e, 1, "loss");
    expect_within(kcase_get_acc(k, s, 1), lse, e, 1, "lse");
    expect_stored_within(k, kcase_get(k, dev, 3), dz, e, 3, "dlogits");
}

KERNEL_TEST(cross_entropy_extremes)
{
    double z[6][4] = {{1e4, -1e4, -1e4, 0}, {1e4, -1e4, -1e4, 0}, {7, 7, 7, 7},
                      {1, 2, 3, 4},         {1, 2, 3, 4},         {1e4, 9992, -1e4, 0}};
    for (int i = 0; i < 24; i++)
        z[i / 4][i % 4] = kcase_round(k, z[i / 4][i % 4]);
    double loss[] = {0, z[1][0] - z[1][1], log(4), 0, NAN,
                     log1p(exp(z[5][1] - z[5][0]))};
    double dz[] = {0, 0, 0, 0, 1, -1, 0, 0, 0.25, 0.25, 0.25, -0.75, 0, 0, 0, 0};
    int y[] = {0, 1, 3, -1, 4, 0}, *t = kcase_put_ints(k, y, 6);
    void *l = kcase_space_acc(k, 6), *s = kcase_space_acc(k, 6);
    void *dev = kcase_put(k, z[0], 24);
    OK(dls_cross_entropy_forward(&k->ctx, l, s, dev, t, 6, 4, 4));
    OK(dls_cross_entropy_backward(&k->ctx, dev, dev, s, t, 1, 6, 4, 4));
    expect_within(kcase_get_acc(k, l, 6), loss, rounding(k, 4), 6, "loss");
    expect_stored_within(k, kcase_get(k, dev, 16), dz, 8 * rounding(k, 4), 16, "dlogits");
}

/* What has no softmax is NaN; what is forbidden has no probability. The fused and the
 * separate form agree; behind each row stands a column of padding. */
KERNEL_TEST(cross_entropy_without_an_answer)
{
    const double i = INFINITY, x = 1e30;
    double z[9][4] = {{-i, 0, 0, 7}, {-i, 0, 0, 7}, {-i, -i, -i, 7}, {i, 0, 0, 7},
                      {NAN, 0, 0, 7}, {i, NAN, -i, 7}, {x, -x, 0, 7}, {x, -x, -i, 7},
                      {-x, -i, -i, 7}};
    const double big = kcase_round(k, x);
    double loss[] = {log(2), i, NAN, NAN, NAN, 0, 0, 2 * big, 0};
    double lse[] = {log(2), log(2), NAN, NAN, NAN, NAN, big, big, -big};
    double dz[9][4] = {{0, -0.5, 0.5}, {-1, 0.5, 0.5}, {NAN, NAN, NAN}, {NAN, NAN, NAN},
                       {NAN, NAN, NAN}, {0}, {0}, {1, -1, 0}, {0}};
    int y[] = {1, 0, 0, 1, 2, -100, 0, 1, 0}, *t = kcase_put_ints(k, y, 9);
    void *l = kcase_space_acc(k, 9), *s = kcase_space_acc(k, 9);
    for (int fused = 0; fused < 2; fused++) {
        void *dev = kcase_put(k, z[0], 36);
        if (fused) {
            OK(dls_cross_entropy(&k->ctx, l, dev, t, 1, 9, 3, 4));
        } else {
            OK(dls_cross_entropy_forward(&k->ctx, l, s, dev, t, 9, 3, 4));
            OK(dls_cross_entropy_backward(&k->ctx, dev, dev, s, t, 1, 9, 3, 4));
            expect_within(kcase_get_acc(k, s, 9), lse, rounding(k, 8), 9, "lse");
        }
        double *got = kcase_get_acc(k, l, 9);
        expect_within(got, loss, 2 * rounding(k, 8), 7, "loss");
        expect_within(got + 7, loss + 7, x * rounding(k, 8), 2, "loss of 2e30");
        expect_stored_within(k, kcase_get(k, dev, 36), dz[0], rounding(k, 16), 36,
                             "dlogits");
    }
    cr_assert_eq(dls_cross_entropy(&k->ctx, l, l, t, 1, 9, 5, 4), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "cross-entropy: rows of 4 can not hold 5 logits");
}

KERNEL_TEST(cross_entropy_of_large_logits)
{
    double z[] = {kcase_round(k, 5000.3f), kcase_round(k, 5000)};
    double loss[] = {log1p(exp(z[1] - z[0]))};
    int y[] = {0}, *t = kcase_put_ints(k, y, 1);
    void *l = kcase_space_acc(k, 1), *s = kcase_space_acc(k, 1);
    OK(dls_cross_entropy_forward(&k->ctx, l, s, kcase_put(k, z, 2), t, 1, 2, 2));
    expect_within(kcase_get_acc(k, l, 1), loss, rounding(k, 8), 1, "loss");
}

static double loss_of_logits(kcase *k, void *env, const double *x, double *size)
{
    int devices = k->devices, hosts = k->hosts;
    double weights[] = {1, 1, 1};
    void *l = kcase_space_acc(k, 3), *s = kcase_space_acc(k, 3);
    OK(dls_cross_entropy_forward(&k->ctx, l, s, kcase_put(k, x, 39), env, 3, 13, 13));
    double sum = weigh(k, l, weights, 3, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(cross_entropy_differences)
{
    int y[] = {3, 12, 0}, *t = kcase_put_ints(k, y, 3);
    double *z = kcase_random(k, 39, 1, -2, 2);
    void *l = kcase_space_acc(k, 3), *s = kcase_space_acc(k, 3);
    void *dev = kcase_put(k, z, 39);
    OK(dls_cross_entropy_forward(&k->ctx, l, s, dev, t, 3, 13, 13));
    OK(dls_cross_entropy_backward(&k->ctx, dev, dev, s, t, 1, 3, 13, 13));
    expect_gradient(k, loss_of_logits, t, z, 39, kcase_get(k, dev, 39), 40,
                    "cross-entropy");
}

/* tests/kernels/test_bias.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

static void check_bias(kcase *k, int N, int C)
{
    size_t n = (size_t)N * C;
    double *x = kcase_random(k, n, 1, -1, 1), *b = kcase_random(k, C, 2, -1, 1);
    double *sum = kcase_zeros(k, n), *sum_e = kcase_zeros(k, n);
    double *db = kcase_zeros(k, C), *db_e = kcase_zeros(k, C);
    void *dev = kcase_put(k, x, n), *ddb = kcase_put_acc(k, b, C);
    OK(dls_bias_backward(&k->ctx, ddb, dev, N, C));
    OK(dls_bias_add(&k->ctx, dev, kcase_put(k, b, C), N, C));
    /* refer to the bias */
    for (int c = 0; c < C; c++) {
        double absolute = fabs(b[c]);
        db[c] = b[c];
        for (int i = 0; i < N; i++) {
            sum[i * C + c] = x[i * C + c] + b[c];
            sum_e[i * C + c] = rounding(k, 1) * fabs(sum[i * C + c]);
            db[c] += x[i * C + c];
            absolute += fabs(x[i * C + c]);
        }
        db_e[c] = rounding(k, N + 1) * absolute;
    }
    expect_stored(k, kcase_get(k, dev, n), sum, sum_e, n, "x + bias");
    expect_near(kcase_get_acc(k, ddb, C), db, db_e, C, "dbias");
    kcase_release(k, 0, 0);
}

KERNEL_TEST(bias_sizes)
{
    check_bias(k, 1, 1);
    check_bias(k, 3, 5);
    check_bias(k, 17, 33);
    check_bias(k, 9, 128);
    check_bias(k, 101, 31);
}

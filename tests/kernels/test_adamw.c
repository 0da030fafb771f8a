/* tests/kernels/test_adamw.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* test adamw example */
KERNEL_TEST(adamw_example)
{
    double p[] = {1}, g[] = {0.5}, zero[] = {0}, p1[] = {0.89}, m1[] = {0.05};
    double v1[] = {0.0125};
    void *dp = kcase_put(k, p, 1), *dm = kcase_put_acc(k, zero, 1);
    void *dv = kcase_put_acc(k, zero, 1);
    OK(dls_adamw(&k->ctx, dp, NULL, kcase_put_acc(k, g, 1), dm, dv, 1, 0.1, 0.9, 0.95, 0,
                 0.1, 1, NULL));
    expect_stored_within(k, kcase_get(k, dp, 1), p1, rounding(k, 4), 1, "p");
    expect_within(kcase_get_acc(k, dm, 1), m1, rounding(k, 1), 1, "m");
    expect_within(kcase_get_acc(k, dv, 1), v1, rounding(k, 1), 1, "v");
    cr_assert_eq(dls_adamw(&k->ctx, dp, NULL, dm, dm, dv, 1, 0.1, 0.9, 0.95, 0, 0.1, 0,
                           NULL), DLS_ERR_INPUT);
}

KERNEL_TEST(adamw_table)
{
    double g[] = {1, 1, 1, -1, 1}, step[] = {1, 1, 1, 0.4184, 0.5605}, p[] = {0};
    void *dp = kcase_put(k, p, 1), *master = kcase_put_acc(k, p, 1);
    void *dm = kcase_put_acc(k, p, 1), *dv = kcase_put_acc(k, p, 1);
    for (int t = 0; t < 5; t++) {
        OK(dls_adamw(&k->ctx, dp, master, kcase_put_acc(k, g + t, 1), dm, dv, 1, 1, 0.9,
                     0.95, 0, 0, t + 1, NULL));
        p[0] -= step[t];
        expect_within(kcase_get_acc(k, master, 1), p, 1e-4, 1, "master");
        expect_stored_within(k, kcase_get(k, dp, 1), p, 1e-4, 1, "p");
    }
}

/* test adamw steps */
KERNEL_TEST(adamw_steps)
{
    enum { N = 1009 };
    const double lr = 0.01, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, coef = 0.25;
    double *p = kcase_random(k, N, 1, -1, 1), *m = kcase_zeros(k, N),
           *v = kcase_zeros(k, N);
    void *dp = kcase_put(k, p, N), *master = kcase_put_acc(k, p, N), *c;
    void *dm = kcase_put_acc(k, m, N), *dv = kcase_put_acc(k, v, N);
    OK(dls_device_alloc(&c, 1, DLS_F64, DLS_MEM_OTHER));
    OK(cudaMemcpy(c, &coef, sizeof coef, cudaMemcpyHostToDevice));
    for (int step = 1; step <= 5; step++) {
        double *g = kcase_random(k, N, 10 + step, -1, 1);
        OK(dls_adamw(&k->ctx, dp, master, kcase_put_acc(k, g, N), dm, dv, N, lr, b1, b2,
                     eps, decay, step, c));
        for (int i = 0; i < N; i++) {
            m[i] = b1 * m[i] + (1 - b1) * coef * g[i];
            v[i] = b2 * v[i] + (1 - b2) * coef * coef * g[i] * g[i];
            double mhat = m[i] / (1 - pow(b1, step)), vhat = v[i] / (1 - pow(b2, step));
            p[i] -= lr * (mhat / (sqrt(vhat) + eps) + decay * p[i]);
        }
    }
    double e = 5 * (rounding(k, 2) + lr * rounding(k, 60) * 3);
    double *masters = kcase_get_acc(k, master, N), *rounded = kcase_zeros(k, N);
    expect_within(kcase_get_acc(k, dm, N), m, rounding(k, 15), N, "m");
    expect_within(kcase_get_acc(k, dv, N), v, rounding(k, 20), N, "v");
    expect_within(masters, p, e, N, "master");
    for (int i = 0; i < N; i++)
        rounded[i] = kcase_round(k, masters[i]);
    expect_within(kcase_get(k, dp, N), rounded, 0, N, "p = round(master)");
    dls_device_free(c);
}

/* test adamw skip */
KERNEL_TEST(adamw_skips_when_the_coefficient_is_zero)
{
    double p[] = {1, 2}, g[] = {INFINITY, NAN}, zero[] = {0, 0};
    void *dp = kcase_put(k, p, 2), *dm = kcase_put_acc(k, zero, 2);
    void *dv = kcase_put_acc(k, zero, 2), *master = kcase_put_acc(k, p, 2);
    void *coef;
    OK(dls_device_alloc(&coef, 1, DLS_F64, DLS_MEM_OTHER));
    OK(cudaMemcpy(coef, zero, sizeof *zero, cudaMemcpyHostToDevice));
    OK(dls_adamw(&k->ctx, dp, master, kcase_put_acc(k, g, 2), dm, dv, 2, 0.1, 0.9, 0.95,
                 1e-8, 0.1, 1, coef));
    expect_within(kcase_get(k, dp, 2), p, 0, 2, "p");
    expect_within(kcase_get_acc(k, master, 2), p, 0, 2, "master");
    expect_within(kcase_get_acc(k, dm, 2), zero, 0, 2, "m");
    expect_within(kcase_get_acc(k, dv, 2), zero, 0, 2, "v");
    dls_device_free(coef);
}

/* Steps of 2^-10 from 1: bf16 alone never leaves it, since 1 - 2^-8 is its next number
 * below; with a master, 64 of them are 1/16. */
KERNEL_TEST(adamw_masters_keep_small_steps)
{
    double one[] = {1}, zero[] = {0}, far[] = {1 - 0x1p-4};
    void *alone = kcase_put(k, one, 1), *p = kcase_put(k, one, 1);
    void *master = kcase_put_acc(k, one, 1), *g = kcase_put_acc(k, one, 1);
    void *m = kcase_put_acc(k, zero, 1), *v = kcase_put_acc(k, zero, 1);
    for (int step = 1; step <= 64; step++) {
        OK(dls_adamw(&k->ctx, p, master, g, m, v, 1, 0x1p-10, 0, 0, 0, 0, step, NULL));
        OK(dls_adamw(&k->ctx, alone, NULL, g, m, v, 1, 0x1p-10, 0, 0, 0, 0, step, NULL));
    }
    expect_within(kcase_get_acc(k, master, 1), far, 0, 1, "master");
    expect_within(kcase_get(k, p, 1), far, 0, 1, "p");
    expect_within(kcase_get(k, alone, 1), k->stored > 0 ? one : far, 0, 1, "alone");
}

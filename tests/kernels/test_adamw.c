/* tests/kernels/test_adamw.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* test adamw example */
KERNEL_TEST(adamw_example)
{
    double p[] = {1}, g[] = {0.5}, zero[] = {0}, p1[] = {0.89}, m1[] = {0.05};
    double v1[] = {0.0125};
    void *dp = kcase_put(k, p, 1), *dm = kcase_put(k, zero, 1),
         *dv = kcase_put(k, zero, 1);
    OK(dls_adamw(&k->ctx, dp, kcase_put(k, g, 1), dm, dv, 1, 0.1, 0.9, 0.95, 0, 0.1, 1,
                 NULL));
    expect_within(kcase_get(k, dp, 1), p1, rounding(k, 4), 1, "p");
    expect_within(kcase_get(k, dm, 1), m1, rounding(k, 1), 1, "m");
    expect_within(kcase_get(k, dv, 1), v1, rounding(k, 1), 1, "v");
    cr_assert_eq(dls_adamw(&k->ctx, dp, dp, dm, dv, 1, 0.1, 0.9, 0.95, 0, 0.1, 0, NULL),
                 DLS_ERR_INPUT);
}

KERNEL_TEST(adamw_table)
{
    double g[] = {1, 1, 1, -1, 1}, step[] = {1, 1, 1, 0.4184, 0.5605}, p[] = {0};
    void *dp = kcase_put(k, p, 1), *dm = kcase_put(k, p, 1), *dv = kcase_put(k, p, 1);
    for (int t = 0; t < 5; t++) {
        OK(dls_adamw(&k->ctx, dp, kcase_put(k, g + t, 1), dm, dv, 1, 1, 0.9, 0.95, 0, 0,
                     t + 1, NULL));
        p[0] -= step[t];
        expect_within(kcase_get(k, dp, 1), p, 1e-4, 1, "p");
    }
}

/* test adamw steps */
KERNEL_TEST(adamw_steps)
{
    enum { N = 1009 };
    const double lr = 0.01, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, coef = 0.25;
    double *p = kcase_random(k, N, 1, -1, 1), *m = kcase_zeros(k, N),
           *v = kcase_zeros(k, N);
    void *dp = kcase_put(k, p, N), *dm = kcase_put(k, m, N), *dv = kcase_put(k, v, N), *c;
    OK(dls_device_alloc(&c, 1, DLS_F64, DLS_MEM_OTHER));
    OK(cudaMemcpy(c, &coef, sizeof coef, cudaMemcpyHostToDevice));
    for (int step = 1; step <= 5; step++) {
        double *g = kcase_random(k, N, 10 + step, -1, 1);
        OK(dls_adamw(&k->ctx, dp, kcase_put(k, g, N), dm, dv, N, lr, b1, b2, eps, decay,
                     step, c));
        for (int i = 0; i < N; i++) {
            m[i] = b1 * m[i] + (1 - b1) * coef * g[i];
            v[i] = b2 * v[i] + (1 - b2) * coef * coef * g[i] * g[i];
            double mhat = m[i] / (1 - pow(b1, step)), vhat = v[i] / (1 - pow(b2, step));
            p[i] -= lr * (mhat / (sqrt(vhat) + eps) + decay * p[i]);
        }
    }
    expect_within(kcase_get(k, dm, N), m, rounding(k, 15), N, "m");
    expect_within(kcase_get(k, dv, N), v, rounding(k, 20), N, "v");
    expect_within(kcase_get(k, dp, N), p, 5 * (rounding(k, 2) + lr * rounding(k, 60) * 3),
                  N, "p");
    dls_device_free(c);
}

/* test adamw skip */
KERNEL_TEST(adamw_skips_when_the_coefficient_is_zero)
{
    double p[] = {1, 2}, g[] = {INFINITY, NAN}, zero[] = {0, 0};
    void *dp = kcase_put(k, p, 2), *dm = kcase_put(k, zero, 2),
         *dv = kcase_put(k, zero, 2);
    void *coef;
    OK(dls_device_alloc(&coef, 1, DLS_F64, DLS_MEM_OTHER));
    OK(cudaMemcpy(coef, zero, sizeof *zero, cudaMemcpyHostToDevice));
    OK(dls_adamw(&k->ctx, dp, kcase_put(k, g, 2), dm, dv, 2, 0.1, 0.9, 0.95, 1e-8, 0.1, 1,
                 coef));
    expect_within(kcase_get(k, dp, 2), p, 0, 2, "p");
    expect_within(kcase_get(k, dm, 2), zero, 0, 2, "m");
    expect_within(kcase_get(k, dv, 2), zero, 0, 2, "v");
    dls_device_free(coef);
}

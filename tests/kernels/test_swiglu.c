/* tests/kernels/test_swiglu.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* refer to swiglu */
static void check_swiglu(kcase *k, const double *x, int N, int F)
{
    size_t n = (size_t)N * F;
    double *d = kcase_random(k, n, 9, -1, 1), *out = kcase_zeros(k, 2 * n);
    double *dx = kcase_zeros(k, 4 * n), tiny = k->u > 1e-10 ? 1e-36 : 1e-300;
    for (size_t i = 0; i < n; i++) {
        size_t at = i / F * 2 * F + i % F;
        double g = x[at], u = x[at + F];
        long double s = 1 / (1 + expl(-(long double)g));
        double slope = (double)(s + g * s * (1 - s)), safe = tiny * (1 + fabs(u));
        double parts = fabs(d[i] * u * (double)s) * (1 + fabs(g));
        out[i] = (double)(g * s * u);
        out[n + i] = rounding(k, 8) * fabs(out[i]) + safe;
        dx[at] = d[i] * u * slope;
        dx[2 * n + at] = rounding(k, 20) * parts + safe;
        dx[at + F] = (double)(d[i] * g * s);
        dx[2 * n + at + F] = rounding(k, 8) * fabs(dx[at + F]) + safe;
    }
    void *dev = kcase_put(k, x, 2 * n), *to = kcase_space(k, n);
    OK(dls_swiglu_forward(&k->ctx, to, dev, N, F));
    OK(dls_swiglu_backward(&k->ctx, dev, kcase_put(k, d, n), dev, N, F));  // in place
    expect_stored(k, kcase_get(k, to, n), out, out + n, n, "swiglu");
    expect_stored(k, kcase_get(k, dev, 2 * n), dx, dx + 2 * n, 2 * n, "swiglu'");
}

/* test swiglu */
KERNEL_TEST(swiglu_sizes)
{
    int sizes[][2] = {{1, 1}, {5, 1}, {1, 3}, {3, 5}, {7, 31}, {4, 64}, {13, 67}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = (size_t)sizes[i][0] * sizes[i][1];
        check_swiglu(k, kcase_random(k, 2 * n, 1, -9, 9), sizes[i][0], sizes[i][1]);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(swiglu_extremes)
{
    double x[] = {0, 17, -17, 88, -88, 90, -90, 1e4, -1e4, 1e30, -1e30,
                  1, 2, 3, -1, 1, 1, 1, 1, 1, 1e3, 1};
    for (int i = 0; i < 22; i++)
        x[i] = kcase_round(k, (float)x[i]);
    check_swiglu(k, x, 1, 11);
    double ends[] = {INFINITY, -INFINITY, NAN, 1, 1, 1}, out[] = {INFINITY, NAN, NAN};
    void *to = kcase_space(k, 3);
    OK(dls_swiglu_forward(&k->ctx, to, kcase_put(k, ends, 6), 1, 3));
    expect_within(kcase_get(k, to, 3), out, 0, 3, "infinite gates");
}

KERNEL_TEST(swiglu_example)
{
    double x[] = {1, 2}, one[] = {1}, out[] = {1.462117}, dx[] = {1.855341, 0.731059};
    void *dev = kcase_put(k, x, 2), *to = kcase_space(k, 2);
    OK(dls_swiglu_forward(&k->ctx, to, dev, 1, 1));
    expect_stored_within(k, kcase_get(k, to, 1), out, 1e-6, 1, "out");
    OK(dls_swiglu_backward(&k->ctx, to, kcase_put(k, one, 1), dev, 1, 1));
    expect_stored_within(k, kcase_get(k, to, 2), dx, 1e-6, 2, "dx");
}

static double swiglu_of_input(kcase *k, void *env, const double *x, double *size)
{
    int devices = k->devices, hosts = k->hosts;
    void *out = kcase_space(k, 15);
    OK(dls_swiglu_forward(&k->ctx, out, kcase_put(k, x, 30), 3, 5));
    double sum = weigh(k, out, env, 15, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(swiglu_differences)
{
    double *x = kcase_random(k, 30, 1, -4, 4), *dout = kcase_random(k, 15, 2, -1, 1);
    void *dx = kcase_space(k, 30);
    OK(dls_swiglu_backward(&k->ctx, dx, kcase_put(k, dout, 15), kcase_put(k, x, 30), 3,
                           5));
    expect_gradient(k, swiglu_of_input, dout, x, 30, kcase_get(k, dx, 30), 40, "swiglu");
}

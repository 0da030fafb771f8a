/* tests/kernels/test_gelu_erf.c: from chapters/09-transformer-kernels-gelu-erf.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* refer to the exact gelu */
typedef struct erf_value { double out, out_e, slope, slope_e; } erf_value;

static erf_value refer_erf(const kcase *k, double x)
{
    long double t = -x / sqrtl(2), below = erfcl(t) / 2;
    long double density = expl(-0.5L * x * x) / sqrtl(2 * acosl(-1.0L));
    double condition =
        below > 0 ? (double)(fabsl(t) * expl(-t * t) / sqrtl(acosl(-1.0L)) / below) : 1;
    double one = rounding(k, 1), tiny = k->u > 1e-10 ? 1e-36 : 1e-300;
    double below_e = (double)below * one * (2 * condition + 6);
    double density_e = (double)density * one * (x * x + 6);
    erf_value v = {.out = (double)(x * below), .slope = (double)(below + x * density)};
    v.out_e = fabs(x) * (below_e + one * (double)below) + tiny;
    v.slope_e = below_e + fabs(x) * density_e
              + 3 * one * ((double)below + fabs(x) * (double)density) + tiny;
    return v;
}

/* test the exact gelu */
static void check_erf(kcase *k, const double *x, size_t n)
{
    double *dout = kcase_random(k, n, 9, -1, 1), *want = kcase_zeros(k, 4 * n);
    for (size_t i = 0; i < n; i++) {
        erf_value v = refer_erf(k, x[i]);
        want[i] = v.out;
        want[n + i] = v.out_e;
        want[2 * n + i] = v.slope * dout[i];
        want[3 * n + i] = v.slope_e * fabs(dout[i]);
    }
    void *dev = kcase_put(k, x, n), *out = kcase_space(k, n), *dx = kcase_space(k, n);
    OK(dls_gelu_erf_forward(&k->ctx, out, dev, n));
    OK(dls_gelu_erf_backward(&k->ctx, dx, kcase_put(k, dout, n), dev, n));
    expect_stored(k, kcase_get(k, out, n), want, want + n, n, "gelu");
    expect_stored(k, kcase_get(k, dx, n), want + 2 * n, want + 3 * n, n, "gelu'");
}

KERNEL_TEST(gelu_erf_values)
{
    double edges[] = {0, -0.0, 1, -1, 5, -5, 9, -9, 1e4, -1e4, 1e-30, -1e-30};
    for (int i = 0; i < 12; i++)
        edges[i] = kcase_round(k, (float)edges[i]);
    check_erf(k, edges, 12);
    check_erf(k, kcase_random(k, 1, 1, -3, 3), 1);
    check_erf(k, kcase_random(k, 1009, 2, -12, 12), 1009);
}

KERNEL_TEST(gelu_erf_example)
{
    double one[] = {1}, value[] = {0.84134475}, slope[] = {1.08331547};
    void *x = kcase_put(k, one, 1), *y = kcase_space(k, 1);
    OK(dls_gelu_erf_forward(&k->ctx, y, x, 1));
    expect_stored_within(k, kcase_get(k, y, 1), value, 1e-6, 1, "gelu(1)");
    OK(dls_gelu_erf_backward(&k->ctx, y, x, x, 1));
    expect_stored_within(k, kcase_get(k, y, 1), slope, 2e-6, 1, "gelu'(1)");
    OK(dls_gelu_erf_forward(&k->ctx, y, x, 0));     // nothing to do
}

static double erf_of_input(kcase *k, void *env, const double *x, double *size)
{
    int devices = k->devices, hosts = k->hosts;
    void *out = kcase_space(k, 23);
    OK(dls_gelu_erf_forward(&k->ctx, out, kcase_put(k, x, 23), 23));
    double sum = weigh(k, out, env, 23, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(gelu_erf_differences)
{
    double *x = kcase_random(k, 23, 1, -4, 4), *dout = kcase_random(k, 23, 2, -1, 1);
    void *dx = kcase_put(k, dout, 23);
    OK(dls_gelu_erf_backward(&k->ctx, dx, dx, kcase_put(k, x, 23), 23));  // in place
    expect_gradient(k, erf_of_input, dout, x, 23, kcase_get(k, dx, 23), 40, "gelu");
}

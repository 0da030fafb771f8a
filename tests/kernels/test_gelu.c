/* tests/kernels/test_gelu.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* name a form of gelu */
typedef struct gelu_value { double out, out_e, slope, slope_e; } gelu_value;

typedef struct gelu_form {
    gelu_value (*refer)(const kcase *k, double x);
    dls_status (*forward)(dls_ctx *ctx, void *out, const void *x, size_t n);
    dls_status (*backward)(dls_ctx *ctx, void *dx, const void *dout, const void *x,
                           size_t n);
    double value, slope;    // at 1
} gelu_form;

/* refer to gelu */
static gelu_value refer_gelu(const kcase *k, double x)
{
    const long double root = sqrtl(2 / acosl(-1.0L));
    long double u = root * (x + 0.044715L * x * x * x), t = tanhl(u);
    long double du = root * (1 + 3 * 0.044715L * x * x), cosh_u = coshl(u);
    double s = (double)((1 + t) / 2), one = rounding(k, 1);
    double s_e = one * s * ((1 - s) * (12 * fabs((double)u) + 3) + 3);
    double side = 2 * fabs(x * (double)du), tiny = k->u > 1e-10 ? 1e-36 : 1e-300;
    gelu_value v;
    v.out = (double)(x * (1 + t) / 2);
    v.slope = (double)((1 + t) / 2 + x * du / (2 * cosh_u * cosh_u));
    v.out_e = fabs(x) * (s_e + one * s + 0x1p-62) + tiny;
    v.slope_e = s_e + side * (s_e + one * s) + 8 * one * (s + side * s * (1 - s))
              + 0x1p-62 * (1 + side) + tiny;
    return v;
}

/* test gelu */
static void check_gelu(kcase *k, const gelu_form *f, const double *x, size_t n)
{
    double *dout = kcase_random(k, n, 9, -1, 1), *want = kcase_zeros(k, 4 * n);
    for (size_t i = 0; i < n; i++) {
        gelu_value v = f->refer(k, x[i]);
        want[i] = v.out;
        want[n + i] = v.out_e;
        want[2 * n + i] = v.slope * dout[i];
        want[3 * n + i] = v.slope_e * fabs(dout[i]);
    }
    void *dev = kcase_put(k, x, n), *out = kcase_space(k, n), *dx = kcase_space(k, n);
    OK(f->forward(&k->ctx, out, dev, n));
    OK(f->backward(&k->ctx, dx, kcase_put(k, dout, n), dev, n));
    expect_stored(k, kcase_get(k, out, n), want, want + n, n, "gelu");
    expect_stored(k, kcase_get(k, dx, n), want + 2 * n, want + 3 * n, n, "gelu'");
}

static void check_values(kcase *k, const gelu_form *f)
{
    double edges[] = {0, -0.0, 1, -1, 5, -5, 9, -9, 1e4, -1e4, 1e-30, -1e-30};
    for (int i = 0; i < 12; i++)
        edges[i] = kcase_round(k, (float)edges[i]);
    check_gelu(k, f, edges, 12);
    check_gelu(k, f, kcase_random(k, 1, 1, -3, 3), 1);
    check_gelu(k, f, kcase_random(k, 1009, 2, -12, 12), 1009);
}

static void check_example(kcase *k, const gelu_form *f)
{
    double one[] = {1};
    void *x = kcase_put(k, one, 1), *y = kcase_space(k, 1);
    OK(f->forward(&k->ctx, y, x, 1));
    expect_stored_within(k, kcase_get(k, y, 1), &f->value, 1e-6, 1, "gelu(1)");
    OK(f->backward(&k->ctx, y, x, x, 1));
    expect_stored_within(k, kcase_get(k, y, 1), &f->slope, 2e-6, 1, "gelu'(1)");
    OK(f->forward(&k->ctx, y, x, 0));   // nothing to do
}

typedef struct weighed_form {
    const gelu_form *form;
    const double *weights;
} weighed_form;

static double gelu_of_input(kcase *k, void *env, const double *x, double *size)
{
    const weighed_form *w = env;
    int devices = k->devices, hosts = k->hosts;
    void *out = kcase_space(k, 23);
    OK(w->form->forward(&k->ctx, out, kcase_put(k, x, 23), 23));
    double sum = weigh(k, out, w->weights, 23, size);
    kcase_release(k, devices, hosts);
    return sum;
}

static void check_differences(kcase *k, const gelu_form *f)
{
    double *x = kcase_random(k, 23, 1, -4, 4), *dout = kcase_random(k, 23, 2, -1, 1);
    weighed_form w = {f, dout};
    void *dx = kcase_put(k, dout, 23);
    OK(f->backward(&k->ctx, dx, dx, kcase_put(k, x, 23), 23));  // in place
    expect_gradient(k, gelu_of_input, &w, x, 23, kcase_get(k, dx, 23), 40, "gelu");
}

static const gelu_form fit = {refer_gelu, dls_gelu_forward, dls_gelu_backward, 0.841192,
                              1.082964};

KERNEL_TEST(gelu_values) { check_values(k, &fit); }
KERNEL_TEST(gelu_example) { check_example(k, &fit); }
KERNEL_TEST(gelu_differences) { check_differences(k, &fit); }

/* refer to the exact gelu */
static gelu_value refer_erf(const kcase *k, double x)
{
    long double t = -x / sqrtl(2), below = erfcl(t) / 2;
    long double density = expl(-0.5L * x * x) / sqrtl(2 * acosl(-1.0L));
    double condition =
        below > 0 ? (double)(fabsl(t) * expl(-t * t) / sqrtl(acosl(-1.0L)) / below) : 1;
    double one = rounding(k, 1), tiny = k->u > 1e-10 ? 1e-36 : 1e-300;
    double below_e = (double)below * one * (2 * condition + 6);
    double density_e = (double)density * one * (x * x + 6);
    gelu_value v = {.out = (double)(x * below), .slope = (double)(below + x * density)};
    v.out_e = fabs(x) * (below_e + one * (double)below) + tiny;
    v.slope_e = below_e + fabs(x) * density_e
              + 3 * one * ((double)below + fabs(x) * (double)density) + tiny;
    return v;
}

/* test the exact gelu */
static const gelu_form exact = {refer_erf, dls_gelu_erf_forward, dls_gelu_erf_backward,
                                0.84134475, 1.08331547};

KERNEL_TEST(gelu_gelu_values) { check_values(k, &exact); }
KERNEL_TEST(gelu_erf_example) { check_example(k, &exact); }
KERNEL_TEST(gelu_erf_differences) { check_differences(k, &exact); }

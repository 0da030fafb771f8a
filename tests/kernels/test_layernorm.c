/* tests/kernels/test_layernorm.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* define a layer norm case */
typedef struct norm_case {
    int N, C;
    double *x, *w, *b, *dout;                          // inputs
    double *out, *mean, *rstd, *dx, *dw, *db;          // expected
    double *out_e, *dx_e, *dw_e, *db_e;                // bounds
} norm_case;

static norm_case make_norm(kcase *k, int N, int C, double low, double high)
{
    norm_case a = {.N = N, .C = C};
    size_t n = (size_t)N * C;
    a.x = kcase_random(k, n, 1, low, high);
    a.w = kcase_random(k, C, 2, 0.5, 1.5);
    a.b = kcase_random(k, C, 3, -1, 1);
    a.dout = kcase_random(k, n, 4, -1, 1);
    double **fields[] = {&a.out, &a.dx, &a.out_e, &a.dx_e};
    for (int i = 0; i < 4; i++)
        *fields[i] = kcase_zeros(k, n);
    double **small[] = {&a.mean, &a.rstd, &a.dw, &a.db, &a.dw_e, &a.db_e};
    for (int i = 0; i < 6; i++)
        *small[i] = kcase_zeros(k, i < 2 ? N : C);
    return a;
}

/* refer to the layer norm */
static void refer_norm_row(const kcase *k, norm_case *a, int n)
{
    int C = a->C;
    const double *x = a->x + n * C, *dout = a->dout + n * C;
    double mean = 0, var = 0, most = 0, g = 0, gx = 0, g_abs = 0, gx_abs = 0;
    for (int c = 0; c < C; c++) {
        mean += x[c] / C;
        most = fmax(most, fabs(x[c]));
    }
    for (int c = 0; c < C; c++)
        var += (x[c] - mean) * (x[c] - mean) / C;
    double r = 1 / sqrt(var + 1e-5), e = rounding(k, C + 8), shift = e * most * r;
    a->mean[n] = mean;
    a->rstd[n] = r;
    /* refer to the means of the gradient */
    for (int c = 0; c < C; c++) {
        double term = dout[c] * a->w[c], xhat = (x[c] - mean) * r;
        g += term / C;
        gx += term * xhat / C;
        g_abs += fabs(term) / C;
        gx_abs += fabs(term) * (fabs(xhat) + 1) / C;
    }
    for (int c = 0; c < C; c++) {
        double xhat = (x[c] - mean) * r, w = a->w[c],
               unsure = 2 * (shift + e) + shift * shift;
        a->out[n * C + c] = xhat * w + a->b[c];
        a->out_e[n * C + c] =
            w * (2 * shift + e * fabs(xhat) + shift * shift * fabs(xhat))
            + e * (fabs(w * xhat) + fabs(a->b[c]));
        /* refer to the gradients of an element */
        double d = dout[c];
        a->dx[n * C + c] = r * (d * w - g - xhat * gx);
        a->dx_e[n * C + c] = r * (e + unsure)
                           * (fabs(d * w) + g_abs + (2 * fabs(xhat) + 1) * gx_abs);
        a->dw[c] += d * xhat;
        a->db[c] += d;
        a->dw_e[c] += fabs(d) * ((fabs(xhat) + 1) * unsure + rounding(k, a->N + 2) * fabs(xhat));
        a->db_e[c] += fabs(d) * rounding(k, a->N + 2);
    }
}

/* test the layer norm */
static void check_norm(kcase *k, norm_case *a)
{
    int N = a->N, C = a->C;
    size_t n = (size_t)N * C;
    for (int i = 0; i < C; i++) {
        a->dw[i] = a->db[i] = 1;
        a->dw_e[i] = a->db_e[i] = rounding(k, N + 2);
    }
    void *dw = kcase_put_acc(k, a->dw, C), *db = kcase_put_acc(k, a->db, C);
    for (int i = 0; i < N; i++)
        refer_norm_row(k, a, i);
    void *x = kcase_put(k, a->x, n), *w = kcase_put(k, a->w, C);
    void *out = kcase_space(k, n);
    void *mean = kcase_space_acc(k, N), *rstd = kcase_space_acc(k, N);
    void *dout = kcase_put(k, a->dout, n), *dx = kcase_space(k, n);
    OK(dls_layernorm_forward(&k->ctx, out, mean, rstd, x, w, kcase_put(k, a->b, C), N,
                             C));
    OK(dls_layernorm_backward_input(&k->ctx, dx, dout, x, w, mean, rstd, N, C));
    OK(dls_layernorm_backward_weight(&k->ctx, dw, db, dout, x, mean, rstd, N, C));
    expect_stored(k, kcase_get(k, out, n), a->out, a->out_e, n, "out");
    expect_stored(k, kcase_get(k, dx, n), a->dx, a->dx_e, n, "dx");
    expect_near(kcase_get_acc(k, dw, C), a->dw, a->dw_e, C, "dweight");
    expect_near(kcase_get_acc(k, db, C), a->db, a->db_e, C, "dbias");
}

KERNEL_TEST(layernorm_sizes)
{
    int sizes[][2] = {{1, 2}, {3, 5}, {5, 31}, {4, 32}, {7, 33}, {9, 128}, {2, 257}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        norm_case a = make_norm(k, sizes[i][0], sizes[i][1], -2, 2);
        check_norm(k, &a);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(layernorm_large_mean)
{
    norm_case a = make_norm(k, 3, 64, 999.9, 1000.1);
    check_norm(k, &a);
    void *out = kcase_space(k, 192);
    void *m = kcase_space_acc(k, 3), *r = kcase_space_acc(k, 3);
    OK(dls_layernorm_forward(&k->ctx, out, m, r, kcase_put(k, a.x, 192),
                             kcase_put(k, a.w, 64), kcase_put(k, a.b, 64), 3, 64));
    double *rstd = kcase_get_acc(k, r, 3);
    for (int n = 0; n < 3; n++)
        cr_assert_float_eq(rstd[n] / a.rstd[n], 1, 0.01, "the one-pass variance");
}

KERNEL_TEST(layernorm_constant_rows)
{
    double x[37], w[37], b[37], zero[37] = {0};
    for (int c = 0; c < 37; c++) {
        x[c] = kcase_round(k, 0.1f);
        w[c] = 1;
        b[c] = c;
    }
    void *to = kcase_space(k, 37);
    void *m = kcase_space_acc(k, 37), *r = kcase_space_acc(k, 37);
    void *dx = kcase_space(k, 37), *dw = kcase_put(k, w, 37), *db = kcase_put(k, b, 37);
    void *dev = kcase_put(k, x, 37);
    OK(dls_layernorm_forward(&k->ctx, to, m, r, dev, dw, db, 1, 37));
    expect_stored_within(k, kcase_get(k, to, 37), b,
                         rounding(k, 45) * (0.1 * 317 * 2 + 37), 37, "one row of 37");
    OK(dls_layernorm_forward(&k->ctx, to, m, r, dev, dw, kcase_put(k, zero, 1), 37, 1));
    expect_within(kcase_get(k, to, 37), zero, 0, 37, "37 rows of one");
    OK(dls_layernorm_backward_input(&k->ctx, dx, dev, dev, dw, m, r, 37, 1));
    expect_within(kcase_get(k, dx, 37), zero, 0, 37, "their gradient");
}


/* A row with an infinity or a NaN is NaN, and no other row is touched by it. A row of
 * finite numbers whose squares overflow has no deviation: it becomes the bias. */
KERNEL_TEST(layernorm_of_broken_rows)
{
    enum { C = 40 };
    double x[4 * C], w[C], b[C], want[4 * C], dx[C];
    const double huge = k->u > 1e-10 ? 1e30 : 1e200;
    for (int i = 0; i < 4 * C; i++) {
        x[i] = i % 2 ? 1 : -1;
        want[i] = i < 2 * C ? NAN : x[i] / sqrt(1 + 1e-5) + 0.5;
        if (i >= 3 * C) {
            x[i] *= huge;
            want[i] = 0.5;
        }
    }
    for (int i = 0; i < C; i++) {
        w[i] = 1;
        b[i] = 0.5;
        dx[i] = NAN;
    }
    x[7] = INFINITY;
    x[C + 39] = NAN;
    void *dev = kcase_put(k, x, 4 * C), *dw = kcase_put(k, w, C);
    void *to = kcase_space(k, 4 * C);
    void *m = kcase_space_acc(k, 4), *r = kcase_space_acc(k, 4);
    OK(dls_layernorm_forward(&k->ctx, to, m, r, dev, dw, kcase_put(k, b, C), 4, C));
    expect_stored_within(k, kcase_get(k, to, 4 * C), want, 4 * rounding(k, C + 8), 4 * C,
                         "out");
    OK(dls_layernorm_backward_input(&k->ctx, to, dw, dev, dw, m, r, 1, C));
    expect_within(kcase_get(k, to, C), dx, 0, C, "dx of an infinite row");
}

KERNEL_TEST(layernorm_example)
{
    double x[] = {1, 2, 3, 6}, one[] = {1, 1, 1, 1}, dout[] = {1, 0, 0, 0}, zero[4] = {0};
    double out[] = {-1.069044, -0.534522, 0, 1.603566};
    double dx[] = {0.248171, -0.209989, -0.133631, 0.095450};
    void *to = kcase_space(k, 4), *m = kcase_space_acc(k, 1), *r = kcase_space_acc(k, 1);
    void *dev = kcase_put(k, x, 4), *w = kcase_put(k, one, 4);
    OK(dls_layernorm_forward(&k->ctx, to, m, r, dev, w, kcase_put(k, zero, 4), 1, 4));
    expect_stored_within(k, kcase_get(k, to, 4), out, 4e-6, 4, "out");  // six digits
    OK(dls_layernorm_backward_input(&k->ctx, to, kcase_put(k, dout, 4), dev, w, m, r, 1,
                                    4));
    expect_stored_within(k, kcase_get(k, to, 4), dx, 4e-6, 4, "dx");
    double dw[] = {-1.069044, 0, 0, 0};
    void *sum = kcase_put_acc(k, zero, 4), *shift = kcase_put_acc(k, zero, 4);
    OK(dls_layernorm_backward_weight(&k->ctx, sum, shift, kcase_put(k, dout, 4), dev, m,
                                     r, 1, 4));
    expect_within(kcase_get_acc(k, sum, 4), dw, 4e-6, 4, "dweight");
    expect_within(kcase_get_acc(k, shift, 4), dout, 0, 4, "dbias");
}

static double norm_of_input(kcase *k, void *env, const double *x, double *size)
{
    norm_case *a = env;
    int devices = k->devices, hosts = k->hosts;
    size_t n = (size_t)a->N * a->C;
    void *out = kcase_space(k, n);
    void *m = kcase_space_acc(k, a->N), *r = kcase_space_acc(k, a->N);
    OK(dls_layernorm_forward(&k->ctx, out, m, r, kcase_put(k, x, n),
                             kcase_put(k, a->w, a->C), kcase_put(k, a->b, a->C), a->N,
                             a->C));
    double sum = weigh(k, out, a->dout, n, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(layernorm_differences)
{
    norm_case a = make_norm(k, 2, 17, -2, 2);
    void *x = kcase_put(k, a.x, 34), *w = kcase_put(k, a.w, 17),
         *b = kcase_put(k, a.b, 17);
    void *out = kcase_space(k, 34);
    void *m = kcase_space_acc(k, 2), *r = kcase_space_acc(k, 2);
    OK(dls_layernorm_forward(&k->ctx, out, m, r, x, w, b, 2, 17));
    OK(dls_layernorm_backward_input(&k->ctx, out, kcase_put(k, a.dout, 34), x, w, m, r, 2,
                                    17));
    expect_gradient(k, norm_of_input, &a, a.x, 34, kcase_get(k, out, 34), 100,
                    "layernorm");
}

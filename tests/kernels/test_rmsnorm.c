/* tests/kernels/test_rmsnorm.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "norm_reference.h"

/* check an rms norm */
typedef struct rms_case {
    int N, C;
    double epsilon, *x, *w, *dout;
} rms_case;

static rms_case make_rms(kcase *k, int N, int C, double size)
{
    rms_case a = {N, C, 1e-6, NULL, NULL, NULL};
    a.x = kcase_random(k, (size_t)N * C, 1, -size, size);
    a.w = kcase_random(k, C, 2, 0.5, 1.5);
    a.dout = kcase_random(k, (size_t)N * C, 3, -1, 1);
    return a;
}

/* Expected values of all rows: arrays of 6 (N, C) after each other, dw and its bound. */
static void refer_to_rms(kcase *k, const rms_case *a, double *all, double *dw,
                         double *dw_e, double *rstd, double *rstd_e)
{
    size_t n = (size_t)a->N * a->C;
    for (int i = 0; i < a->N; i++) {
        size_t at = (size_t)i * a->C;
        norm_row r = {.C = a->C, .epsilon = a->epsilon, .h = a->x + at, .w = a->w,
                      .dout = a->dout + at, .out = all + at, .out_e = all + n + at,
                      .dh = all + 2 * n + at, .dh_e = all + 3 * n + at, .dw = dw,
                      .dw_e = dw_e};
        refer_to_norm(k, &r, a->N);
        rstd[i] = r.rstd;
        rstd_e[i] = r.rstd * r.rstd_e;
    }
}

static void check_rms(kcase *k, const rms_case *a)
{
    int N = a->N, C = a->C;
    size_t n = (size_t)N * C;
    double *all = kcase_zeros(k, 4 * n), *dw = kcase_zeros(k, C);
    double *dw_e = kcase_zeros(k, C), *rstd = kcase_zeros(k, N);
    double *rstd_e = kcase_zeros(k, N);
    for (int c = 0; c < C; c++) {
        dw[c] = 1;
        dw_e[c] = rounding(k, N + 2);
    }
    void *sum = kcase_put_acc(k, dw, C), *x = kcase_put(k, a->x, n);
    void *w = kcase_put(k, a->w, C), *dout = kcase_put(k, a->dout, n);
    void *out = kcase_space(k, n), *dx = kcase_space(k, n), *r = kcase_space_acc(k, N);
    refer_to_rms(k, a, all, dw, dw_e, rstd, rstd_e);
    OK(dls_rmsnorm_forward(&k->ctx, out, r, x, w, N, C, a->epsilon));
    OK(dls_rmsnorm_backward_input(&k->ctx, dx, dout, x, w, r, N, C));
    OK(dls_rmsnorm_backward_weight(&k->ctx, sum, dout, x, r, N, C));
    expect_stored(k, kcase_get(k, out, n), all, all + n, n, "out");
    expect_near(kcase_get_acc(k, r, N), rstd, rstd_e, N, "rstd");
    expect_stored(k, kcase_get(k, dx, n), all + 2 * n, all + 3 * n, n, "dx");
    expect_near(kcase_get_acc(k, sum, C), dw, dw_e, C, "dweight");
}

/* test the rms norm */
KERNEL_TEST(rmsnorm_sizes)
{
    int sizes[][2] = {{1, 1}, {37, 1}, {1, 2}, {3, 5}, {5, 31}, {4, 32}, {7, 33},
                      {9, 128}, {2, 257}, {67, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        rms_case a = make_rms(k, sizes[i][0], sizes[i][1], 2);
        check_rms(k, &a);
        for (int j = 0; j < a.N * a.C; j++)
            a.x[j] = kcase_round(k, a.x[j] / 16 + 1000);
        check_rms(k, &a);
        a.epsilon = 0.5;
        check_rms(k, &a);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(rmsnorm_example)
{
    double x[] = {1, 2, 3, 6}, one[] = {1, 1, 1, 1}, dout[] = {1, 0, 0, 0}, zero[4] = {0};
    double out[] = {0.282843, 0.565685, 0.848528, 1.697056}, dw[] = {0.282843, 0, 0, 0};
    double dx[] = {0.277186, -0.011314, -0.016971, -0.033941};
    void *to = kcase_put(k, x, 4), *r = kcase_space_acc(k, 1), *dev = kcase_put(k, x, 4);
    void *w = kcase_put(k, one, 4), *d = kcase_put(k, dout, 4);
    void *sum = kcase_put_acc(k, zero, 4);
    OK(dls_rmsnorm_forward(&k->ctx, to, r, to, w, 1, 4, 1e-9));  // in place
    expect_stored_within(k, kcase_get(k, to, 4), out, 1e-6, 4, "out");
    OK(dls_rmsnorm_backward_weight(&k->ctx, sum, d, dev, r, 1, 4));
    expect_within(kcase_get_acc(k, sum, 4), dw, 1e-6, 4, "dweight");
    OK(dls_rmsnorm_backward_input(&k->ctx, d, d, dev, w, r, 1, 4));
    expect_stored_within(k, kcase_get(k, d, 4), dx, 1e-6, 4, "dx");
}

KERNEL_TEST(rmsnorm_extremes)
{
    double huge = k->ctx.dtype == DLS_F64 ? 0x1p600 : 0x1p70;
    double x[] = {0, -0.0, 0, huge, -huge, 1, 1, INFINITY, 2, NAN, 1, 1};
    double out[] = {0, 0, 0, 0, 0, 0, 0, NAN, 0, NAN, NAN, NAN};
    double one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, rstd[] = {1024, 0, 0, NAN};
    double dx[] = {1024, 1024, 1024, 0, 0, 0};
    void *dev = kcase_put(k, x, 12), *w = kcase_put(k, one, 12);
    void *to = kcase_space(k, 12), *r = kcase_space_acc(k, 4);
    OK(dls_rmsnorm_forward(&k->ctx, to, r, dev, w, 4, 3, 0x1p-20));
    expect_within(kcase_get(k, to, 12), out, 0, 12, "out");
    expect_within(kcase_get_acc(k, r, 4), rstd, 0, 4, "rstd");
    OK(dls_rmsnorm_backward_input(&k->ctx, to, w, dev, w, r, 2, 3));
    expect_within(kcase_get(k, to, 6), dx, 0, 6, "dx");
}

KERNEL_TEST(rmsnorm_refuses_no_epsilon)
{
    void *x = kcase_space(k, 3), *r = kcase_space_acc(k, 1);
    double bad[] = {0, -1e-6, NAN, k->ctx.dtype == DLS_F64 ? 0 : 1e-50};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(dls_rmsnorm_forward(&k->ctx, x, r, x, x, 1, 3, bad[i]),
                     DLS_ERR_INPUT);
}

static double rms_of_input(kcase *k, void *env, const double *x, double *size)
{
    rms_case *a = env;
    int devices = k->devices, hosts = k->hosts;
    size_t n = (size_t)a->N * a->C;
    void *out = kcase_space(k, n), *r = kcase_space_acc(k, a->N);
    OK(dls_rmsnorm_forward(&k->ctx, out, r, kcase_put(k, x, n), kcase_put(k, a->w, a->C),
                           a->N, a->C, a->epsilon));
    double sum = weigh(k, out, a->dout, n, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(rmsnorm_differences)
{
    rms_case a = make_rms(k, 2, 17, 2);
    void *x = kcase_put(k, a.x, 34), *w = kcase_put(k, a.w, 17);
    void *out = kcase_space(k, 34), *r = kcase_space_acc(k, 2);
    OK(dls_rmsnorm_forward(&k->ctx, out, r, x, w, 2, 17, a.epsilon));
    OK(dls_rmsnorm_backward_input(&k->ctx, out, kcase_put(k, a.dout, 34), x, w, r, 2,
                                  17));
    expect_gradient(k, rms_of_input, &a, a.x, 34, kcase_get(k, out, 34), 100, "rmsnorm");
}

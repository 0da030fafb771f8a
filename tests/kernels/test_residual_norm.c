/* tests/kernels/test_residual_norm.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "norm_reference.h"

/* make a residual case */
typedef struct residual_case {
    dls_residual_norm shape;
    dls_dropout dropout;
    double *x, *f, *w, *b, *dout, *dstream;  // inputs
    void *h, *out, *mean, *rstd, *dx, *df;   // on the device
    void *to_w;                              // the weight, on the device
} residual_case;

static residual_case make_residual(kcase *k, int N, int C, int centred, int dropped)
{
    size_t n = (size_t)N * C;
    residual_case a = {.shape = {N, C, centred, 1e-5, NULL},
                       .dropout = {0.25, 17, 3, 4099, C + 5}};
    if (!dropped)
        a.dropout.p = 0;
    a.x = kcase_random(k, n, 1, -2, 2);
    a.f = kcase_random(k, n, 2, -2, 2);
    a.w = kcase_random(k, C, 3, 0.5, 1.5);
    a.b = kcase_random(k, C, 4, -1, 1);
    a.dout = kcase_random(k, n, 5, -1, 1);
    a.dstream = kcase_random(k, n, 6, -1, 1);
    a.h = kcase_space(k, n);
    a.out = kcase_space(k, n);
    a.dx = kcase_space(k, n);
    a.df = dropped ? kcase_space(k, n) : NULL;
    a.mean = centred ? kcase_space_acc(k, N) : NULL;
    a.rstd = kcase_space_acc(k, N);
    a.to_w = kcase_put(k, a.w, C);
    return a;
}

static void run_residual(kcase *k, residual_case *a, const double *x, const double *f)
{
    size_t n = (size_t)a->shape.N * a->shape.C;
    a->shape.dropout = a->df ? &a->dropout : NULL;
    OK(dls_residual_norm_forward(&k->ctx, a->h, a->out, a->mean, a->rstd,
                                 kcase_put(k, x, n), kcase_put(k, f, n), a->to_w,
                                 a->mean ? kcase_put(k, a->b, a->shape.C) : NULL,
                                 &a->shape));
}

static void run_residual_backward(kcase *k, residual_case *a)
{
    size_t n = (size_t)a->shape.N * a->shape.C;
    OK(dls_residual_norm_backward(&k->ctx, a->dx, a->df, kcase_put(k, a->dstream, n),
                                  kcase_put(k, a->dout, n), a->h, a->to_w, a->mean,
                                  a->rstd, &a->shape));
}

/* 1 / (1 - p) where the element is kept, else 0. */
static double mask_at(const kcase *k, const residual_case *a, size_t i)
{
    const dls_dropout *d = &a->dropout;
    dls_dropout_gate gate = dls_dropout_gate_of(d->p, d->seed, d->stream);
    uint64_t C = a->shape.C, index = d->first + i / C * d->row + i % C;
    return dls_dropout_keeps(&gate, index) ? kcase_round_acc(k, gate.scale) : 0;
}

/* check a residual case */
static void check_residual(kcase *k, residual_case *a)
{
    int N = a->shape.N, C = a->shape.C, e_n = 0;
    size_t n = (size_t)N * C;
    double *want = kcase_zeros(k, n), *e = kcase_zeros(k, n), *dh = kcase_zeros(k, n);
    double *dh_e = kcase_zeros(k, n), *unused = kcase_zeros(k, 2 * C);
    run_residual(k, a, a->x, a->f);
    for (size_t i = 0; i < n; i++) {
        want[i] = a->x[i] + mask_at(k, a, i) * a->f[i];
        e[i] = rounding(k, 2) * (fabs(a->x[i]) + mask_at(k, a, i) * fabs(a->f[i]));
    }
    double *h = kcase_get(k, a->h, n);
    expect_stored(k, h, want, e, n, "h");
    /* check what follows from the stream */
    double *mean = a->mean ? kcase_get_acc(k, a->mean, N) : NULL;
    double *rstd = kcase_get_acc(k, a->rstd, N);
    run_residual_backward(k, a);
    for (e_n = 0; e_n < N; e_n++) {
        size_t at = (size_t)e_n * C;
        norm_row r = {.C = C, .centred = a->shape.centred, .epsilon = a->shape.epsilon,
                      .h = h + at, .w = a->w, .b = mean ? a->b : NULL, .dout = a->dout + at,
                      .out = want + at, .out_e = e + at, .dh = dh + at, .dh_e = dh_e + at,
                      .dw = unused, .dw_e = unused + C};
        refer_to_norm(k, &r, N);
        cr_assert(fabs(rstd[e_n] / r.rstd - 1) <= r.rstd_e, "rstd %d: %.9g, not %.9g", e_n,
                  rstd[e_n], r.rstd);
        cr_assert(mean == NULL || fabs(mean[e_n] - r.mean) <= rounding(k, C + 2) * 5,
                  "mean %d: %.9g, not %.9g", e_n, mean ? mean[e_n] : 0, r.mean);
    }
    expect_stored(k, kcase_get(k, a->out, n), want, e, n, "out");
    double *dx = kcase_get(k, a->dx, n);
    for (size_t i = 0; i < n; i++) {
        dh_e[i] += rounding(k, 1) * (fabs(dh[i]) + fabs(a->dstream[i]));
        dh[i] += a->dstream[i];
        want[i] = dx[i] * mask_at(k, a, i);
        e[i] = rounding(k, 1) * fabs(want[i]);
    }
    expect_stored(k, dx, dh, dh_e, n, "dx");
    if (a->df)
        expect_stored(k, kcase_get(k, a->df, n), want, e, n, "df");
}

/* compare fused and unfused */
static void expect_same(kcase *k, const void *got, const void *want, size_t n, int acc,
                        const char *what)
{
    double *x = acc ? kcase_get_acc(k, got, n) : kcase_get(k, got, n);
    double *y = acc ? kcase_get_acc(k, want, n) : kcase_get(k, want, n);
    expect_within(x, y, 0, n, what);
}

static void compare_residual(kcase *k, residual_case *a)
{
    int N = a->shape.N, C = a->shape.C;
    size_t n = (size_t)N * C;
    void *h = kcase_put(k, a->x, n), *f = kcase_put(k, a->f, n), *out = kcase_space(k, n);
    void *mean = kcase_space_acc(k, N), *rstd = kcase_space_acc(k, N);
    void *d = kcase_put(k, a->dout, n), *b = kcase_put(k, a->b, C);
    run_residual(k, a, a->x, a->f);
    run_residual_backward(k, a);
    OK(dls_add(&k->ctx, h, h, f, n));
    if (a->shape.centred) {
        OK(dls_layernorm_forward(&k->ctx, out, mean, rstd, h, a->to_w, b, N, C));
        OK(dls_layernorm_backward_input(&k->ctx, d, d, h, a->to_w, mean, rstd, N, C));
        expect_same(k, a->mean, mean, N, 1, "mean");
    } else {
        OK(dls_rmsnorm_forward(&k->ctx, out, rstd, h, a->to_w, N, C, a->shape.epsilon));
        OK(dls_rmsnorm_backward_input(&k->ctx, d, d, h, a->to_w, rstd, N, C));
    }
    expect_same(k, a->h, h, n, 0, "h");
    expect_same(k, a->rstd, rstd, N, 1, "rstd");
    expect_same(k, a->out, out, n, 0, "out");
    /* compare the gradient of the stream */
    OK(dls_add(&k->ctx, d, d, kcase_put(k, a->dstream, n), n));
    if (k->stored == 0)
        expect_same(k, a->dx, d, n, 0, "dx");
}

/* test the residual norm */
KERNEL_TEST(residual_norm_sizes)
{
    int sizes[][2] = {{1, 1}, {1, 2}, {5, 3}, {7, 33}, {4, 128}, {2, 131}, {3, 257}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int way = 0; way < 4; way++) {
            residual_case a =
                make_residual(k, sizes[i][0], sizes[i][1], way & 1, way & 2);
            check_residual(k, &a);
            kcase_release(k, 0, 0);
        }
}

KERNEL_TEST(residual_norm_is_the_same_fused)
{
    if (strcmp(getenv("DLS_KERNELS"), "simt") != 0)
        return;  // vectors of the host add in another order
    for (int way = 0; way < 2; way++) {
        residual_case a = make_residual(k, 5, 131, way, 0);
        compare_residual(k, &a);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(residual_norm_in_place)
{
    residual_case a = make_residual(k, 3, 37, 1, 1);
    void *x = kcase_put(k, a.x, 111), *f = kcase_put(k, a.f, 111);
    void *b = kcase_put(k, a.b, 37);
    void *stream = kcase_put(k, a.dstream, 111), *dout = kcase_put(k, a.dout, 111);
    run_residual(k, &a, a.x, a.f);
    run_residual_backward(k, &a);
    OK(dls_residual_norm_forward(&k->ctx, x, a.out, a.mean, a.rstd, x, f, a.to_w, b,
                                 &a.shape));
    expect_same(k, x, a.h, 111, 0, "h in x");
    OK(dls_residual_norm_backward(&k->ctx, stream, f, stream, dout, a.h, a.to_w, a.mean,
                                  a.rstd, &a.shape));
    expect_same(k, stream, a.dx, 111, 0, "dx in dstream");
    expect_same(k, f, a.df, 111, 0, "df");
    stream = kcase_put(k, a.dstream, 111);
    OK(dls_residual_norm_backward(&k->ctx, dout, f, stream, dout, a.h, a.to_w, a.mean,
                                  a.rstd, &a.shape));
    expect_same(k, dout, a.dx, 111, 0, "dx in dout");
}

static double residual_of(kcase *k, residual_case *a, const double *x, const double *f,
                          double *size)
{
    int devices = k->devices, hosts = k->hosts;
    size_t n = (size_t)a->shape.N * a->shape.C;
    double more;
    run_residual(k, a, x, f);
    double sum = weigh(k, a->out, a->dout, n, size);
    sum += weigh(k, a->h, a->dstream, n, &more);
    *size += more;
    kcase_release(k, devices, hosts);
    return sum;
}

static double residual_of_stream(kcase *k, void *env, const double *x, double *size)
{
    residual_case *a = env;
    return residual_of(k, a, x, a->f, size);
}

static double residual_of_branch(kcase *k, void *env, const double *f, double *size)
{
    residual_case *a = env;
    return residual_of(k, a, a->x, f, size);
}

KERNEL_TEST(residual_norm_differences)
{
    for (int way = 0; way < 4; way++) {
        residual_case a = make_residual(k, 2, 19, way & 1, way & 2);
        run_residual(k, &a, a.x, a.f);
        run_residual_backward(k, &a);
        double *dx = kcase_get(k, a.dx, 38);
        double *df = a.df ? kcase_get(k, a.df, 38) : dx;
        expect_gradient(k, residual_of_stream, &a, a.x, 38, dx, 100, "of the stream");
        expect_gradient(k, residual_of_branch, &a, a.f, 38, df, 100, "of the branch");
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(residual_norm_refuses)
{
    residual_case a = make_residual(k, 1, 3, 0, 1);
    a.shape.dropout = &a.dropout;
    a.dropout.p = 2;
    cr_assert_eq(dls_residual_norm_forward(&k->ctx, a.h, a.out, NULL, a.rstd, a.h, a.h,
                                           a.to_w, NULL, &a.shape), DLS_ERR_INPUT);
    a.shape.dropout = NULL;
    a.shape.epsilon = 0;
    cr_assert_eq(dls_residual_norm_backward(&k->ctx, a.dx, NULL, a.h, a.h, a.h, a.to_w,
                                            NULL, a.rstd, &a.shape), DLS_ERR_INPUT);
}

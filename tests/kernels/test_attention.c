/* tests/kernels/test_attention.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* This form of attention knows f32 and f64. */
#undef KERNEL_TEST
#define KERNEL_TEST(name)                                                 \
    static void name(kcase *k);                                           \
    Test(kernels, name##_host_f32) { kcase_run(name, "host", DLS_F32); }   \
    Test(kernels, name##_host_f64) { kcase_run(name, "host", DLS_F64); }   \
    Test(kernels, name##_simt_f32) { kcase_run(name, "simt", DLS_F32); }   \
    Test(kernels, name##_simt_f64) { kcase_run(name, "simt", DLS_F64); }   \
    static void name(kcase *k)

/* define an attention case */
typedef struct attn {
    int B, T, C, H;
    double *qkv, *dout;                             // inputs
    double *att, *out, *dqkv;                       // expected
    double *att_e, *out_e, *dqkv_e;                 // bounds
} attn;

static attn make_attention(kcase *k, int B, int T, int C, int H, double range)
{
    attn a = {.B = B, .T = T, .C = C, .H = H};
    size_t n = (size_t)B * T * C, square = (size_t)B * H * T * T;
    a.qkv = kcase_random(k, 3 * n, 1, -range, range);
    a.dout = kcase_random(k, n, 2, -1, 1);
    a.att = kcase_zeros(k, square);
    a.att_e = kcase_zeros(k, square);
    a.out = kcase_zeros(k, n);
    a.out_e = kcase_zeros(k, n);
    a.dqkv = kcase_zeros(k, 3 * n);
    a.dqkv_e = kcase_zeros(k, 3 * n);
    return a;
}

/* Index of channel i of head h at position t: part 0 queries, 1 keys, 2 values. */
static size_t at(const attn *a, int b, int h, int t, int part, int i)
{
    return ((size_t)b * a->T + t) * 3 * a->C + part * a->C + h * (a->C / a->H) + i;
}

/* refer to a row of attention */
/* Weights and output of position t; returns the bound of the weights' relative error. */
static double refer_row(const kcase *k, attn *a, int b, int h, int t)
{
    int D = a->C / a->H, T = a->T;
    double *w = a->att + (((size_t)b * a->H + h) * T + t) * T, most = -INFINITY, sum = 0;
    double error = 0, spread = 0;
    for (int j = 0; j <= t; j++) {
        double absolute = 0;
        for (int i = 0; i < D; i++) {
            double term = a->qkv[at(a, b, h, t, 0, i)] * a->qkv[at(a, b, h, j, 1, i)];
            w[j] += term / sqrt(D);
            absolute += fabs(term) / sqrt(D);
        }
        error = fmax(error, rounding(k, D + 2) * absolute);
        most = fmax(most, w[j]);
    }
    for (int j = 0; j <= t; j++) {
        spread = fmax(spread, most - w[j]);
        sum += w[j] = exp(w[j] - most);
    }
    double relative = 2 * error + rounding(k, T + 8) + rounding(k, 1) * spread;
    for (int j = 0; j <= t; j++) {
        w[j] /= sum;
        a->att_e[w - a->att + j] = relative * w[j] + 1e-37;
        /* refer to the output of a row */
        for (int i = 0; i < D; i++) {
            size_t o = ((size_t)b * T + t) * a->C + h * D + i;
            double v = a->qkv[at(a, b, h, j, 2, i)];
            a->out[o] += w[j] * v;
            a->out_e[o] += (relative + rounding(k, T + 2)) * w[j] * fabs(v);
        }
    }
    return relative;
}

/* refer to the gradient of a row */
static void refer_row_gradient(const kcase *k, attn *a, int b, int h, int t,
                               double relative)
{
    int D = a->C / a->H, T = a->T;
    const double *w = a->att + (((size_t)b * a->H + h) * T + t) * T;
    const double *dout = a->dout + ((size_t)b * T + t) * a->C + h * D;
    double dw[256], mean = 0, mean_abs = 0, error = 0;
    for (int j = 0; j <= t; j++) {
        double absolute = 0;
        dw[j] = 0;
        for (int i = 0; i < D; i++) {
            dw[j] += dout[i] * a->qkv[at(a, b, h, j, 2, i)];
            absolute += fabs(dout[i] * a->qkv[at(a, b, h, j, 2, i)]);
        }
        error = fmax(error, rounding(k, D + 1) * absolute);
        mean += w[j] * dw[j];
        mean_abs += w[j] * fabs(dw[j]);
    }
    for (int j = 0; j <= t; j++) {
        double ds = w[j] * (dw[j] - mean) / sqrt(D);
        double ds_e = w[j] / sqrt(D) * (2 * error + (2 * relative + rounding(k, T + 6))
                                                  * (fabs(dw[j]) + mean_abs));
        for (int i = 0; i < D; i++) {
            /* add to the expected gradients */
            size_t q = at(a, b, h, t, 0, i), key = at(a, b, h, j, 1, i), v = at(a, b, h, j, 2, i);
            double long_sum = rounding(k, T + 2);
            a->dqkv[q] += ds * a->qkv[key];
            a->dqkv_e[q] += (ds_e + long_sum * fabs(ds)) * fabs(a->qkv[key]);
            a->dqkv[key] += ds * a->qkv[q];
            a->dqkv_e[key] += (ds_e + long_sum * fabs(ds)) * fabs(a->qkv[q]);
            a->dqkv[v] += w[j] * dout[i];
            a->dqkv_e[v] += (relative + long_sum) * w[j] * fabs(dout[i]) + 1e-37;
        }
    }
}

/* refer to attention */
static void check_attention(kcase *k, attn *a)
{
    size_t n = (size_t)a->B * a->T * a->C, square = (size_t)a->B * a->H * a->T * a->T;
    for (int b = 0; b < a->B; b++)
        for (int h = 0; h < a->H; h++)
            for (int t = 0; t < a->T; t++)
                refer_row_gradient(k, a, b, h, t, refer_row(k, a, b, h, t));
    void *qkv = kcase_put(k, a->qkv, 3 * n), *dout = kcase_put(k, a->dout, n);
    void *out = kcase_space(k, n), *att = kcase_space(k, square);
    void *dqkv = kcase_space(k, 3 * n), *scratch = kcase_space(k, square);
    OK(packed_attention_forward(k, out, att, qkv, a->B, a->T, a->C, a->H));
    OK(packed_attention_backward(k, dqkv, scratch, dout, qkv, att, a->B, a->T, a->C,
                              a->H));
    expect_near(kcase_get(k, att, square), a->att, a->att_e, square, "att");
    expect_near(kcase_get(k, out, n), a->out, a->out_e, n, "out");
    expect_near(kcase_get(k, dqkv, 3 * n), a->dqkv, a->dqkv_e, 3 * n, "dqkv");
}

/* test attention */
KERNEL_TEST(attention_sizes)
{
    int sizes[][4] = {{1, 1, 1, 1}, {2, 3, 2, 2},   {1, 17, 6, 2},   {2, 16, 64, 2},
                      {1, 33, 37, 1}, {1, 65, 66, 1}, {1, 130, 26, 2}, {1, 20, 140, 2}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *s = sizes[i];
        attn a = make_attention(k, s[0], s[1], s[2], s[3], 2);
        check_attention(k, &a);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(attention_example)
{
    double qkv[] = {5, 0, 10, 1, log(3), 20}, out[] = {10, 17.5}, dout[] = {0, 1};
    double att[] = {1, 0, 0.25, 0.75};
    double dqkv[] = {0, -1.875, 0.25, 1.875 * log(3), 1.875, 0.75};
    void *in = kcase_put(k, qkv, 6), *o = kcase_space(k, 2), *w = kcase_space(k, 4);
    void *scratch = kcase_space(k, 4), *d = kcase_space(k, 6);
    OK(packed_attention_forward(k, o, w, in, 1, 2, 1, 1));
    OK(packed_attention_backward(k, d, scratch, kcase_put(k, dout, 2), in, w, 1, 2, 1,
                              1));
    expect_within(kcase_get(k, w, 4), att, rounding(k, 8), 4, "att");
    expect_within(kcase_get(k, o, 2), out, 20 * rounding(k, 8), 2, "out");
    expect_within(kcase_get(k, d, 6), dqkv, 20 * rounding(k, 16), 6, "dqkv");
}

KERNEL_TEST(attention_three_keys)
{
    double qkv[] = {0, log(2), 2, 0, 0, 0, 1, 0, 4}, dout[] = {0, 0, 1};
    double dqkv[] = {0, 0, 0.5, 0, -0.5, 0.25, 0, 0.5, 0.25};
    void *in = kcase_put(k, qkv, 9), *o = kcase_space(k, 3), *w = kcase_space(k, 9);
    void *scratch = kcase_space(k, 9), *d = kcase_space(k, 9);
    OK(packed_attention_forward(k, o, w, in, 1, 3, 1, 1));
    OK(packed_attention_backward(k, d, scratch, kcase_put(k, dout, 3), in, w, 1, 3, 1,
                              1));
    expect_within(kcase_get(k, d, 9), dqkv, 4 * rounding(k, 16), 9, "dqkv");
}

KERNEL_TEST(attention_extremes)
{
    //                q    k    v     scores of each row     weights
    double qkv[] = {100, 100, 1,   // 1e4                    1
                    100, -100, 2,  // 1e4 -1e4               1 0
                    -100, 100, 4,  // -1e4 1e4 -1e4          0 1 0
                    0, 100, 8,     // 0 0 0 0                1/4 each
                    100, 100, 16}; // 1e4 -1e4 1e4 1e4 1e4   1/4 0 1/4 1/4 1/4
    double out[] = {1, 1, 2, 3.75, 7.25}, dout[] = {1, 1, 1, 1, 1};
    double dv[] = {1 + 1 + 0.25 + 0.25, 1 + 0.25, 0.25 + 0.25, 0.25 + 0.25, 0.25};
    void *in = kcase_put(k, qkv, 15), *o = kcase_space(k, 5), *w = kcase_space(k, 25);
    void *scratch = kcase_space(k, 25), *d = kcase_space(k, 15);
    OK(packed_attention_forward(k, o, w, in, 1, 5, 1, 1));
    OK(packed_attention_backward(k, d, scratch, kcase_put(k, dout, 5), in, w, 1, 5, 1,
                              1));
    expect_within(kcase_get(k, o, 5), out, 0, 5, "out");
    double *got = kcase_get(k, d, 15);
    for (int t = 0; t < 5; t++)
        expect_within(&got[3 * t + 2], &dv[t], 0, 1, "dv");
    for (int i = 0; i < 15; i++)
        cr_assert(isfinite(got[i]));
}

KERNEL_TEST(attention_ignores_overflow_above_the_diagonal)
{
    double qkv[15] = {0}, dout[] = {100, 100, 100, 100, 0};
    qkv[14] = (float)3e38; // 100 times this overflows f32 where t < 4, which none may see
    void *in = kcase_put(k, qkv, 15), *o = kcase_space(k, 5), *w = kcase_space(k, 25);
    void *scratch = kcase_space(k, 25), *d = kcase_space(k, 15);
    OK(packed_attention_forward(k, o, w, in, 1, 5, 1, 1));
    OK(packed_attention_backward(k, d, scratch, kcase_put(k, dout, 5), in, w, 1, 5, 1,
                              1));
    double *got = kcase_get(k, d, 15);
    for (int i = 0; i < 15; i++)
        cr_assert(isfinite(got[i]), "dqkv[%d]", i);
}

KERNEL_TEST(attention_refuses_uneven_heads)
{
    dls_attention_shape s = {.B = 1, .Tq = 1, .Tk = 1, .H = 10, .Hk = 3, .D = 1};
    cr_assert_eq(dls_attention_naive_forward(&k->ctx, &s, NULL, NULL, NULL, NULL, NULL,
                                             NULL),
                 DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "attention: 10 query heads can not share 3 key heads");
}

static double attention_of_input(kcase *k, void *env, const double *x, double *size)
{
    attn *a = env;
    int devices = k->devices, hosts = k->hosts;
    size_t n = (size_t)a->B * a->T * a->C, square = (size_t)a->B * a->H * a->T * a->T;
    void *out = kcase_space(k, n), *att = kcase_space(k, square);
    OK(packed_attention_forward(k, out, att, kcase_put(k, x, 3 * n), a->B, a->T, a->C,
                             a->H));
    double sum = weigh(k, out, a->dout, n, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(attention_differences)
{
    attn a = make_attention(k, 2, 7, 6, 2, 1);
    size_t n = 2 * 7 * 6, square = 2 * 2 * 7 * 7;
    void *in = kcase_put(k, a.qkv, 3 * n), *dout = kcase_put(k, a.dout, n);
    void *out = kcase_space(k, n), *att = kcase_space(k, square);
    void *scratch = kcase_space(k, square), *d = kcase_space(k, 3 * n);
    OK(packed_attention_forward(k, out, att, in, 2, 7, 6, 2));
    OK(packed_attention_backward(k, d, scratch, dout, in, att, 2, 7, 6, 2));
    expect_gradient(k, attention_of_input, &a, a.qkv, 3 * n, kcase_get(k, d, 3 * n), 100,
                    "attention");
}

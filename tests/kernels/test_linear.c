/* tests/kernels/test_linear.c: from chapters/09-transformer-kernels-linear.md. Edit the chapter, or edit here and run "make untangle". */
/* Linear layers, fused and separate, against products in float64. */
#include "support.h"

#include "base/rng.h"

/* define a linear case */
typedef struct linear_case {
    int N, C, OC, fused, bias;
    double *x, *w, *b, *dout;                       // inputs
    double *pre, *pre_e, *out, *out_e;              // forward, and bounds
    double *dx, *dx_e, *dw, *dw_e, *db, *db_e;      // backward, the same
    double *gate, *dpre, *dpre_e;                   // an input of GELU, and its gradient
} linear_case;

static linear_case make_linear(kcase *k, int N, int C, int OC)
{
    linear_case a = {.N = N, .C = C, .OC = OC, .bias = 1};
    a.x = kcase_random(k, (size_t)N * C, 1, -1, 1);
    a.w = kcase_random(k, (size_t)OC * C, 2, -1, 1);
    a.b = kcase_random(k, OC, 3, -1, 1);
    a.dout = kcase_random(k, (size_t)N * OC, 4, -1, 1);
    a.gate = kcase_random(k, (size_t)N * C, 5, -3, 3);
    double **wide[] = {&a.pre, &a.pre_e, &a.out, &a.out_e};
    double **narrow[] = {&a.dx, &a.dx_e, &a.dpre, &a.dpre_e};
    double **weights[] = {&a.dw, &a.dw_e}, **biases[] = {&a.db, &a.db_e};
    for (int i = 0; i < 4; i++) {
        *wide[i] = kcase_zeros(k, (size_t)N * OC);
        *narrow[i] = kcase_zeros(k, (size_t)N * C);
    }
    for (int i = 0; i < 2; i++) {
        *weights[i] = kcase_zeros(k, (size_t)OC * C);
        *biases[i] = kcase_zeros(k, OC);
    }
    return a;
}

/* refer to the linear layer */
static double gelu(double x)
{
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static double gelu_slope(double x)
{
    double root = sqrt(2 / acos(-1)), t = tanh(root * (x + 0.044715 * x * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}

static void refer_forward(const kcase *k, linear_case *a, int n, int o)
{
    size_t at = (size_t)n * a->OC + o;
    double sum = 0, size = 0, b = a->bias ? a->b[o] : 0;
    for (int c = 0; c < a->C; c++) {
        double term = a->x[(size_t)n * a->C + c] * a->w[(size_t)o * a->C + c];
        sum += term;
        size += fabs(term);
    }
    double e = rounding(k, a->C + 1) * (size + fabs(b));
    double again = k->stored * (fabs(sum) + e);  // the product rounded before the bias
    a->pre[at] = sum + b;
    a->pre_e[at] = e + (a->fused ? 0 : again);
    double stored = e + again + k->stored * (fabs(sum + b) + e + again);
    a->out[at] = gelu(sum + b);
    a->out_e[at] = 1.13 * stored + 9 * rounding(k, 1) * (fabs(sum + b) + stored);
}

static void refer_backward(const kcase *k, linear_case *a, int n, int c)
{
    size_t at = (size_t)n * a->C + c;
    double sum = 0, size = 0, slope = gelu_slope(a->gate[at]);
    for (int o = 0; o < a->OC; o++) {
        double term = a->dout[(size_t)n * a->OC + o] * a->w[(size_t)o * a->C + c];
        sum += term;
        size += fabs(term);
    }
    double e = rounding(k, a->OC) * size, again = k->stored * (fabs(sum) + e);
    a->dx[at] = sum;
    a->dx_e[at] = e;
    a->dpre[at] = sum * slope;
    a->dpre_e[at] = (e + (a->fused ? 0 : again)) * fabs(slope)
                  + 200 * rounding(k, 1) * (fabs(sum) + e + again);
}

static void refer_weights(const kcase *k, linear_case *a)
{
    for (int o = 0; o < a->OC; o++)
        for (int n = 0; n < a->N; n++) {
            double d = a->dout[(size_t)n * a->OC + o], e = rounding(k, a->N + 2);
            a->db[o] += d;
            a->db_e[o] += e * fabs(d);
            for (int c = 0; c < a->C; c++) {
                double term = d * a->x[(size_t)n * a->C + c];
                a->dw[(size_t)o * a->C + c] += term;
                a->dw_e[(size_t)o * a->C + c] += e * fabs(term);
            }
        }
}

/* test the linear layer */
static void check_weights(kcase *k, linear_case *a, const void *dout, const void *x)
{
    size_t n = (size_t)a->OC * a->C;
    for (size_t i = 0; i < n; i++)
        a->dw[i] = 1, a->dw_e[i] = rounding(k, a->N + 2);
    for (int i = 0; i < a->OC; i++)
        a->db[i] = 1, a->db_e[i] = rounding(k, a->N + 2);
    void *dw = kcase_put_acc(k, a->dw, n), *db = kcase_put_acc(k, a->db, a->OC);
    refer_weights(k, a);
    OK(dls_linear_backward_weight(&k->ctx, 1, dw, db, dout, x, a->N, a->C, a->OC));
    expect_near(kcase_get_acc(k, dw, n), a->dw, a->dw_e, n, "dweight");
    expect_near(kcase_get_acc(k, db, a->OC), a->db, a->db_e, a->OC, "dbias");
}

static void check_forward(kcase *k, linear_case *a, const void *x, const void *w)
{
    size_t n = (size_t)a->N * a->OC;
    void *b = a->bias ? kcase_put(k, a->b, a->OC) : NULL;
    void *pre = kcase_space(k, n), *out = kcase_space(k, n);
    for (int i = 0; i < a->N; i++)
        for (int o = 0; o < a->OC; o++)
            refer_forward(k, a, i, o);
    OK(dls_linear_forward(&k->ctx, out, x, w, b, a->N, a->C, a->OC));
    expect_stored(k, kcase_get(k, out, n), a->pre, a->pre_e, n, "linear");
    OK(dls_linear_gelu_forward(&k->ctx, out, pre, x, w, b, a->N, a->C, a->OC));
    expect_stored(k, kcase_get(k, pre, n), a->pre, a->pre_e, n, "pre");
    expect_stored(k, kcase_get(k, out, n), a->out, a->out_e, n, "gelu(pre)");
}

static void check_linear(kcase *k, int N, int C, int OC, const char *way)
{
    linear_case a = make_linear(k, N, C, OC);
    void *x = kcase_put(k, a.x, (size_t)N * C), *w = kcase_put(k, a.w, (size_t)OC * C);
    void *dout = kcase_put(k, a.dout, (size_t)N * OC);
    void *dx = kcase_space(k, (size_t)N * C), *gate = kcase_put(k, a.gate, (size_t)N * C);
    setenv("DLS_LINEAR", way, 1);
    a.fused = strcmp(way, "fused") == 0 && k->stored > 0 && OC % 8 == 0;
    for (a.bias = 0; a.bias < 2; a.bias++)
        check_forward(k, &a, x, w);
    check_weights(k, &a, dout, x);
    a.fused = strcmp(way, "fused") == 0 && k->stored > 0 && C % 8 == 0;
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++)
            refer_backward(k, &a, n, c);
    OK(dls_linear_backward_input(&k->ctx, dx, dout, w, N, C, OC));
    expect_stored(k, kcase_get(k, dx, (size_t)N * C), a.dx, a.dx_e, (size_t)N * C, "dx");
    OK(dls_linear_gelu_backward_input(&k->ctx, dx, dout, w, gate, N, C, OC));
    expect_stored(k, kcase_get(k, dx, (size_t)N * C), a.dpre, a.dpre_e, (size_t)N * C,
                  "dpre");
    kcase_release(k, 0, 0);
}

KERNEL_TEST(linear_sizes)
{
    static const int sizes[][3] = {{1, 1, 1},   {3, 5, 7},   {17, 33, 8},  {9, 8, 16},
                                   {5, 16, 24}, {2, 24, 67}, {31, 24, 40}, {1, 129, 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_linear(k, sizes[i][0], sizes[i][1], sizes[i][2], "fused");
        check_linear(k, sizes[i][0], sizes[i][1], sizes[i][2], "separate");
    }
}

KERNEL_TEST(linear_rounds_once_when_fused)
{
    double x[] = {255, 1}, w[16] = {1, 0.5}, b[8] = {1.5};
    double fused[] = {256}, twice[] = {258};
    void *dx = kcase_put(k, x, 2), *dw = kcase_put(k, w, 16), *db = kcase_put(k, b, 8);
    void *out = kcase_space(k, 8);
    double exact[] = {257};
    setenv("DLS_LINEAR", "fused", 1);
    OK(dls_linear_forward(&k->ctx, out, dx, dw, db, 1, 2, 8));
    expect_within(kcase_get(k, out, 1), k->stored > 0 ? fused : exact, 0, 1, "fused");
    setenv("DLS_LINEAR", "separate", 1);
    OK(dls_linear_forward(&k->ctx, out, dx, dw, db, 1, 2, 8));
    expect_within(kcase_get(k, out, 1), k->stored > 0 ? twice : exact, 0, 1, "separate");
}

KERNEL_TEST(linear_edges)
{
    double one[] = {1};
    void *x = kcase_put_acc(k, one, 1), *y = kcase_space(k, 24);
    double bias[24], want[24];
    for (int i = 0; i < 24; i++) {
        bias[i] = i % 8 - 4;
        want[i] = gelu(bias[i % 8]);
    }
    OK(dls_linear_forward(&k->ctx, x, x, x, x, 0, 1, 1));
    OK(dls_linear_gelu_forward(&k->ctx, x, x, x, x, x, 0, 3, 8));
    OK(dls_linear_backward_input(&k->ctx, x, x, x, 0, 1, 1));
    OK(dls_linear_gelu_backward_input(&k->ctx, x, x, x, x, 0, 8, 1));
    OK(dls_linear_backward_weight(&k->ctx, 1, x, x, x, x, 0, 1, 1));
    expect_within(kcase_get_acc(k, x, 1), one, 0, 1, "untouched");
    OK(dls_linear_gelu_forward(&k->ctx, y, kcase_space(k, 24), x, x,
                               kcase_put(k, bias, 8), 3, 0, 8));  // the empty sum
    expect_stored_within(k, kcase_get(k, y, 24), want, 36 * rounding(k, 1), 24, "empty");
    setenv("DLS_LINEAR", "fusde", 1);
    cr_expect_eq(dls_linear_forward(&k->ctx, y, x, x, x, 1, 1, 1), DLS_ERR_INPUT);
    cr_expect_str_eq(dls_status_message(), "DLS_LINEAR: expected fused or separate, got "
                                           "\"fusde\"; did you mean fused?");
}

KERNEL_TEST(linear_example)
{
    double x[] = {1, 2}, w1[] = {1, -1, 0.5, 0.25}, b1[] = {1, 0}, w2[] = {2, 3};
    double one[] = {1, 1, 1, 1, 1, 1}, pre[] = {0, 1}, y[] = {0, 0.84119199};
    double dpre[] = {1, 3.24889225}, dx[] = {2.62444613, -0.18777694};
    double dw1[] = {2, 3, 4.24889225, 7.49778450}, db1[] = {2, 4.24889225};
    double digits = 1e-8 + rounding(k, 200), narrow = 3.25 * k->stored;
    void *in = kcase_put(k, x, 2), *w = kcase_put(k, w1, 4), *a = kcase_space(k, 2);
    void *out = kcase_space(k, 2), *da = kcase_space(k, 2), *din = kcase_space(k, 2);
    void *dw = kcase_put_acc(k, one, 4), *db = kcase_put_acc(k, one, 2);
    OK(dls_linear_gelu_forward(&k->ctx, out, a, in, w, kcase_put(k, b1, 2), 1, 2, 2));
    OK(dls_linear_gelu_backward_input(&k->ctx, da, kcase_put(k, one, 1),
                                      kcase_put(k, w2, 2), a, 1, 2, 1));
    OK(dls_linear_backward_input(&k->ctx, din, da, w, 1, 2, 2));
    OK(dls_linear_backward_weight(&k->ctx, 1, dw, db, da, in, 1, 2, 2));
    expect_within(kcase_get(k, a, 2), pre, 0, 2, "a");
    expect_stored_within(k, kcase_get(k, out, 2), y, digits, 2, "y");
    expect_stored_within(k, kcase_get(k, da, 2), dpre, 3 * digits, 2, "da");
    expect_stored_within(k, kcase_get(k, din, 2), dx, 3 * digits + narrow / 2, 2, "dx");
    expect_within(kcase_get_acc(k, dw, 4), dw1, 8 * digits + 2 * narrow, 4, "dw");
    expect_within(kcase_get_acc(k, db, 2), db1, 5 * digits + narrow, 2, "db");
}

/* differentiate through gelu and linear */
/* The second layer of an MLP as a function of GELU's input: (3, 8) -> (3, 5). */
static double second_layer(kcase *k, void *env, const double *gate, double *size)
{
    linear_case *a = env;
    int devices = k->devices, hosts = k->hosts;
    void *y = kcase_space(k, 24), *z = kcase_space(k, 15);
    OK(dls_gelu_forward(&k->ctx, y, kcase_put(k, gate, 24), 24));
    OK(dls_linear_forward(&k->ctx, z, y, kcase_put(k, a->w, 40), NULL, 3, 8, 5));
    double sum = weigh(k, z, a->dout, 15, size);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(linear_differences)
{
    linear_case a = make_linear(k, 3, 8, 5);
    void *dpre = kcase_space(k, 24);
    OK(dls_linear_gelu_backward_input(&k->ctx, dpre, kcase_put(k, a.dout, 15),
                                      kcase_put(k, a.w, 40), kcase_put(k, a.gate, 24), 3,
                                      8, 5));
    expect_gradient(k, second_layer, &a, a.gate, 24, kcase_get(k, dpre, 24), 60, "dpre");
}

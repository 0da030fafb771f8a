/* tests/layers/test_formulas.c: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layer's forward pass against a loop that is its formula. */
#include "fixture.h"

#include "base/hash.h"
#include "kernels/dropout.h"

/* write the naive linear */
static void naive_linear(const double *x, const double *w, const double *b, double *y,
                         int in, int out)
{
    for (int n = 0; n < N; n++)
        for (int o = 0; o < out; o++) {
            y[n * out + o] = b[o];
            for (int i = 0; i < in; i++)
                y[n * out + o] += x[n * in + i] * w[o * in + i];
        }
}

static void naive_layernorm(const double *x, const double *w, const double *b, double *y,
                            int C)
{
    for (int n = 0; n < N; n++) {
        double mean = 0, variance = 0;
        for (int c = 0; c < C; c++)
            mean += x[n * C + c] / C;
        for (int c = 0; c < C; c++)
            variance += (x[n * C + c] - mean) * (x[n * C + c] - mean) / C;
        for (int c = 0; c < C; c++)
            y[n * C + c] = (x[n * C + c] - mean) / sqrt(variance + 1e-5) * w[c] + b[c];
    }
}

/* write the naive attention */
static void naive_attention_row(const double *x, double *y, int b, int t, int h, int C,
                                int D)
{
    const double *q = x + (b * T + t) * 3 * C + h * D;
    double weight[T], sum = 0;
    for (int u = 0; u <= t; u++) {
        const double *k = x + (b * T + u) * 3 * C + C + h * D;
        double score = 0;
        for (int d = 0; d < D; d++)
            score += q[d] * k[d] / sqrt(D);
        sum += weight[u] = exp(score);
    }
    for (int d = 0; d < D; d++) {
        double *to = y + (b * T + t) * C + h * D + d;
        *to = 0;
        for (int u = 0; u <= t; u++)
            *to += weight[u] / sum * x[(b * T + u) * 3 * C + 2 * C + h * D + d];
    }
}

static void naive_attention(const double *x, double *y, int C, int H)
{
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < H; h++)
                naive_attention_row(x, y, b, t, h, C, C / H);
}

/* write the naive gelu and loss */
static void naive_gelu(const double *x, double *y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = 0.5 * x[i]
            * (1 + tanh(sqrt(2 / M_PI) * (x[i] + 0.044715 * pow(x[i], 3))));
}

static void naive_head(const double *x, const double *wte, const int *targets, double *y,
                       int C, int V)
{
    for (int n = 0; n < N; n++) {
        double sum = 0, chosen = 0;
        for (int v = 0; v < V; v++) {
            double logit = 0;
            for (int c = 0; c < C; c++)
                logit += x[n * C + c] * wte[v * C + c];
            sum += exp(logit);
            chosen = v == targets[n] ? logit : chosen;
        }
        y[n] = log(sum) - chosen;
    }
}

/* write the naive llama */
static void naive_rmsnorm(const double *x, const double *w, double *y, int C)
{
    for (int n = 0; n < N; n++) {
        double square = 0;
        for (int c = 0; c < C; c++)
            square += x[n * C + c] * x[n * C + c] / C;
        for (int c = 0; c < C; c++)
            y[n * C + c] = x[n * C + c] / sqrt(square + 1e-6) * w[c];
    }
}

static void naive_swiglu(const double *x, double *y, int F)
{
    for (int n = 0; n < N; n++)
        for (int f = 0; f < F; f++) {
            double gate = x[n * 2 * F + f], up = x[n * 2 * F + F + f];
            y[n * F + f] = gate / (1 + exp(-gate)) * up;
        }
}

/* Turns the first `heads` heads of D = 4 channels of each row. */
static void naive_rotation(double *x, int row, int heads)
{
    for (int n = 0; n < N; n++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < 2; i++) {
                double *a = x + n * row + 4 * h + i, *b = a + 2, was = *a;
                double angle = n % T * pow(10, -i / 2.0);
                *a = was * cos(angle) - *b * sin(angle);
                *b = *b * cos(angle) + was * sin(angle);
            }
}

static void naive_grouped_row(const double *x, double *y, int n, int h, int H, int Hk)
{
    int row = (H + 2 * Hk) * 4, first = n - n % T, k = H + h * Hk / H;
    double sum = 0, weight[T];
    for (int u = first; u <= n; u++) {
        double score = 0;
        for (int d = 0; d < 4; d++)
            score += x[n * row + 4 * h + d] * x[u * row + 4 * k + d] / 2;
        sum += weight[u - first] = exp(score);
    }
    for (int d = 0; d < 4; d++) {
        double *to = y + (n * H + h) * 4 + d;
        *to = 0;
        for (int u = first; u <= n; u++)
            *to += weight[u - first] / sum * x[u * row + 4 * (k + Hk) + d];
    }
}

/* compare arrays */
static void assert_close(const double *got, const double *want, int n, double tolerance)
{
    for (int i = 0; i < n; i++)
        cr_assert(fabs(got[i] - want[i]) <= tolerance * (1 + fabs(want[i])),
                  "element %d: %.17g, expected %.17g", i, got[i], want[i]);
}

/* test layers against formulas */
static double x[N * 64], y[N * 64], want[N * 64], values[4096];

static void fetch(fixture *f)
{
    forward(f, y);
    get(x, f->x, N * f->layer->in * sizeof *x);
    get(values, f->params.values, f->params.elements * sizeof *values);
}

Test(layers, linear_is_its_formula)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_linear(&f.build, "l", 5, 7, 1, 1), 0);
    fetch(&f);
    naive_linear(x, values, values + 35, want, 5, 7);
    assert_close(y, want, N * 7, 1e-13);
    end(&f);
}

#define FORMULA(name, columns, layer, expect)           \
    Test(layers, name##_is_its_formula)                 \
    {                                                   \
        fixture f;                                      \
        begin(&f);                                      \
        prepare(&f, layer, 0);                          \
        fetch(&f);                                      \
        expect;                                         \
        assert_close(y, want, N * (columns), 1e-12);    \
        end(&f);                                        \
    }
FORMULA(layernorm, 9, dls_layernorm(&f.build, "l", 9),
        naive_layernorm(x, values, values + 9, want, 9))
FORMULA(gelu, 6, dls_gelu(&f.build, 6), naive_gelu(x, want, N * 6))
FORMULA(attention, 8, dls_attention(&f.build, "a", 2, 2, 4, 0),
        naive_attention(x, want, 8, 2))

Test(layers, embedding_and_head_are_their_formulas)
{
    enum { V = 5, C = 4 };
    int ids[2 * N];
    fixture f;
    begin(&f);
    dls_layer *embedding = dls_embedding(&f.build, V, T, C, 1);
    dls_layer *head = dls_tied_head(&f.build, embedding);
    prepare(&f, dls_sequence(&f.build, (dls_layer *[]){embedding, head}, 2), 0);
    fetch(&f);
    get(ids, f.ids, sizeof ids);
    double row[N * C];
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++)
            row[n * C + c] = values[ids[n] * C + c] + values[(V + n % T) * C + c];
    naive_head(row, values, ids + N, want, C, V);
    assert_close(y, want, N, 1e-12);
    cr_assert_eq(f.params.items[embedding->weight].uses, 2);
    end(&f);
}

FORMULA(rmsnorm, 9, dls_rmsnorm(&f.build, "l", 9, 1e-6),
        naive_rmsnorm(x, values, want, 9))
FORMULA(swiglu, 7, dls_swiglu(&f.build, 7), naive_swiglu(x, want, 7))
FORMULA(gelu_without_the_fit, 7, dls_gelu_erf(&f.build, 7),
        for (int i = 0; i < N * 7; i++) want[i] = x[i] / 2 * erfc(-x[i] / sqrt(2)))

Test(layers, rotated_grouped_attention_is_its_formula)
{
    enum { H = 4, Hk = 2, ROW = (H + 2 * Hk) * 4 };
    fixture f;
    begin(&f);
    dls_layer *two[2];
    two[0] = dls_rotary(&f.build, H, Hk, 4, 4);
    two[1] = dls_attention(&f.build, "a", H, Hk, 4, 0);
    prepare(&f, dls_sequence(&f.build, two, 2), 0);
    fetch(&f);
    naive_rotation(x, ROW, H + Hk);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H; h++)
            naive_grouped_row(x, want, n, h, H, Hk);
    assert_close(y, want, N * H * 4, 1e-12);
    end(&f);
}

Test(layers, dropout_is_its_mask)
{
    enum { C = 5, FIRST = 3 };
    fixture f;
    begin(&f);
    dls_layer *l = dls_dropout_layer(&f.build, "there", C, 0.25);
    prepare(&f, l, 0);
    f.pass.drops = 1;
    f.pass.seed = 77;
    f.pass.first_sequence = FIRST;
    fetch(&f);
    dls_dropout_gate gate = dls_dropout_gate_of(0.25, 77, dls_hash64("there", 5));
    for (int i = 0; i < N * C; i++)
        cr_assert_eq(y[i], dls_dropout_keeps(&gate, FIRST * T * C + i)
                     ? x[i] * gate.scale : 0);
    f.pass.drops = 0;
    forward(&f, y);
    cr_assert_arr_eq(x, y, N * C * sizeof *x);
    end(&f);
}

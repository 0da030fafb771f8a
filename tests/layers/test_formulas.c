/* tests/layers/test_formulas.c: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layer's forward pass against a loop that is its formula. */
#include "fixture.h"

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

Test(layers, layernorm_is_its_formula)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_layernorm(&f.build, "l", 9), 0);
    fetch(&f);
    naive_layernorm(x, values, values + 9, want, 9);
    assert_close(y, want, N * 9, 1e-12);
    end(&f);
}

Test(layers, gelu_is_its_formula)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_gelu(&f.build, 6), 0);
    fetch(&f);
    naive_gelu(x, want, N * 6);
    assert_close(y, want, N * 6, 1e-12);
    end(&f);
}

Test(layers, attention_is_its_formula)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_attention(&f.build, "a", 2, 2, 4, 0), 0);
    fetch(&f);
    naive_attention(x, want, 8, 2);
    assert_close(y, want, N * 8, 1e-12);
    end(&f);
}

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

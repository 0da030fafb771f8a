/* tests/kernels/attention_case.c: from chapters/10-flash-attention-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See attention_case.h. */
#include <stdio.h>

#include "attention_case.h"

/* number the elements */
static const int *starts_of(const acase *a, int array)
{
    return array == Q || array == OUT ? a->s.starts_q : a->s.starts_k;
}

static size_t row_of(const acase *a, int array)
{
    return (size_t[]){a->s.q_row, a->s.k_row, a->s.v_row, a->s.o_row}[array];
}

static size_t sequence_of(const acase *a, int array)
{
    return (size_t[]){a->s.q_sequence, a->s.k_sequence, a->s.v_sequence,
                      a->s.o_sequence}[array];
}

size_t acase_at(const acase *a, int array, int b, int i, int h, int d)
{
    size_t first = dls_attention_at(starts_of(a, array), sequence_of(a, array),
                                    row_of(a, array), b);
    return first + i * row_of(a, array) + (size_t)h * a->s.D + d;
}

/* make a case of attention */
static size_t size_of(const acase *a, int array)
{
    const int *starts = starts_of(a, array);
    int T = array == Q || array == OUT ? a->s.Tq : a->s.Tk;
    size_t sequences = a->s.B * sequence_of(a, array);
    if (starts)
        return starts[a->s.B] * row_of(a, array) + 3;
    return (a->s.B == 0 || T == 0 ? 0 : sequences + row_of(a, array)) + 3;
}

static double *nans(kcase *k, size_t n)
{
    double *x = kcase_zeros(k, n);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

/* NaN in the gaps, random or zero where there are heads. */
static double *heads_of(kcase *k, const acase *a, int array, unsigned stream,
                        double range)
{
    double *x = nans(k, a->size[array]);
    double *from = kcase_random(k, a->size[array], stream, -range, range);
    int per_query = array == Q || array == OUT, H = per_query ? a->s.H : a->s.Hk;
    for (int b = 0; b < a->s.B; b++) {
        int rows = per_query ? dls_attention_queries(&a->s, b)
                             : dls_attention_keys(&a->s, b);
        for (int i = 0; i < rows; i++)
            for (int n = 0; n < H * a->s.D; n++) {
                size_t at = acase_at(a, array, b, i, n / a->s.D, n % a->s.D);
                x[at] = range > 0 ? kcase_round(k, from[at]) : 0;
            }
    }
    return x;
}

acase *acase_make(kcase *k, dls_attention_shape s, double range)
{
    acase *a = (acase *)kcase_zeros(k, (sizeof *a + 7) / 8);
    a->s = s;
    OK(dls_attention_complete(&a->s));
    for (int n = 0; n < ARRAYS; n++) {
        a->size[n] = size_of(a, n);
        a->x[n] = heads_of(k, a, n, 10 + n, n == OUT ? 0 : range);
        a->dx[n] = heads_of(k, a, n, 20 + n, n == OUT ? 1 : 0);
        a->x_e[n] = kcase_zeros(k, a->size[n]);
        a->dx_e[n] = kcase_zeros(k, a->size[n]);
    }
    size_t rows = (size_t)s.B * s.H * s.Tq;
    a->lse = kcase_zeros(k, rows);
    a->lse_e = kcase_zeros(k, rows);
    for (size_t i = 0; i < rows; i++)
        a->lse[i] = -INFINITY;
    return a;
}

/* refer to a query */
/* What is known of one query of one head. */
typedef struct query {
    int b, h, i, keys, seen;
    double *score, *weight;          // [seen]
    double error, spread, lse_error, relative;
} query;

/* The scores of a query, and the largest error of one. */
static void refer_scores(const kcase *k, const acase *a, query *r, double *most)
{
    int shared = r->h / (a->s.H / a->s.Hk);
    double least = INFINITY;
    *most = -INFINITY;
    for (int j = 0; j < r->seen; j++) {
        double absolute = 0;
        r->score[j] = 0;
        for (int d = 0; d < a->s.D; d++) {
            double term = a->s.scale * a->x[Q][acase_at(a, Q, r->b, r->i, r->h, d)]
                          * a->x[K][acase_at(a, K, r->b, j, shared, d)];
            r->score[j] += term;
            absolute += fabs(term);
        }
        r->error = fmax(r->error, rounding(k, a->s.D + 3) * absolute);
        *most = fmax(*most, r->score[j]);
        least = fmin(least, r->score[j]);
    }
    r->spread = r->seen > 0 ? *most - least : 0;
}

static void refer_weights(const kcase *k, acase *a, query *r)
{
    double most, sum = 0;
    refer_scores(k, a, r, &most);
    for (int j = 0; j < r->seen; j++)
        sum += r->weight[j] = exp(r->score[j] - most);
    for (int j = 0; j < r->seen; j++)
        r->weight[j] /= sum;
    double roundings = rounding(k, 2 * r->seen + 16) + rounding(k, 2) * r->spread;
    size_t at = ((size_t)r->b * a->s.H + r->h) * a->s.Tq + r->i;
    a->lse[at] = r->seen > 0 ? most + log(sum) : -INFINITY;
    r->lse_error = r->error + roundings;
    if (r->seen > 0)
        r->lse_error += rounding(k, 2) * fabs(a->lse[at]);
    a->lse_e[at] = r->lse_error;
    r->relative = expm1(2 * r->error + roundings);
}

static double kept(const acase *a, const query *r, int j)
{
    if (a->s.dropout == 0)
        return 1;
    int queries = dls_attention_queries(&a->s, r->b);
    dls_dropout_gate gate = dls_attention_gate(&a->s, r->b, r->h);
    int position = a->s.causal ? r->keys - queries + r->i : r->i;
    return dls_dropout_keeps(&gate, (uint64_t)(uint32_t)position << 32 | (uint32_t)j)
               ? 1 / (1 - a->s.dropout) : 0;
}

static void refer_output(const kcase *k, acase *a, const query *r)
{
    int shared = r->h / (a->s.H / a->s.Hk);
    for (int j = 0; j < r->seen; j++)
        for (int d = 0; d < a->s.D; d++) {
            size_t o = acase_at(a, OUT, r->b, r->i, r->h, d);
            double v = a->x[V][acase_at(a, V, r->b, j, shared, d)];
            double w = r->weight[j] * kept(a, r, j);
            a->x[OUT][o] += w * v;
            a->x_e[OUT][o] += ((r->relative + rounding(k, r->seen + 4)) * w + 1e-37)
                * fabs(v);
        }
}

/* refer to the gradient of a query */
/* The gradient of the weights, their mean, and the errors of both. */
typedef struct gradient { double *dw, delta, dw_error, delta_error; } gradient;

static void refer_weight_gradients(const kcase *k, const acase *a, const query *r,
                                   gradient *g)
{
    int D = a->s.D, shared = r->h / (a->s.H / a->s.Hk);
    const double *dout = &a->dx[OUT][acase_at(a, OUT, r->b, r->i, r->h, 0)];
    double size = 0;
    for (int j = 0; j < r->seen; j++) {
        const double *v = &a->x[V][acase_at(a, V, r->b, j, shared, 0)];
        double absolute = 0, factor = kept(a, r, j);
        g->dw[j] = 0;
        for (int d = 0; d < D; d++) {
            g->dw[j] += factor * dout[d] * v[d];
            absolute += factor * fabs(dout[d] * v[d]);
        }
        g->dw_error = fmax(g->dw_error, rounding(k, D + 2) * absolute);
        g->delta += r->weight[j] * g->dw[j];
        size += r->weight[j] * fabs(g->dw[j]);
    }
    /* bound the mean gradient */
    g->delta_error = g->dw_error + (r->relative + rounding(k, r->seen + 2)) * size;
    for (int d = 0; d < D; d++) {
        size_t o = acase_at(a, OUT, r->b, r->i, r->h, d);
        double error = a->x_e[OUT][o] + k->stored * fabs(a->x[OUT][o]);
        g->delta_error += fabs(dout[d]) * (error + rounding(k, D + 1) * fabs(a->x[OUT][o]));
    }
}

static void refer_gradient(const kcase *k, acase *a, const query *r, gradient *g)
{
    int shared = r->h / (a->s.H / a->s.Hk);
    size_t at = ((size_t)r->b * a->s.H + r->h) * a->s.Tq + r->i;
    double sums = rounding(k, a->s.H / a->s.Hk * a->s.Tq + a->s.Tk + 4);
    refer_weight_gradients(k, a, r, g);
    for (int j = 0; j < r->seen; j++) {
        double w = r->weight[j], w_kept = w * kept(a, r, j);
        double size = fabs(g->dw[j]) + fabs(g->delta);
        double again = r->error + r->lse_error
                       + rounding(k, 1) * fabs(r->score[j] - a->lse[at]) + rounding(k, 4);
        double relative = r->relative + expm1(again);
        double ds = a->s.scale * w * (g->dw[j] - g->delta);
        double ds_e = fabs(a->s.scale) * (w + 1e-37)
                      * ((relative + rounding(k, 6)) * size + g->dw_error
                         + g->delta_error);
        for (int d = 0; d < a->s.D; d++) {
            /* add a pair to the gradients */
            size_t q = acase_at(a, Q, r->b, r->i, r->h, d), key = acase_at(a, K, r->b, j, shared, d);
            size_t v = acase_at(a, V, r->b, j, shared, d);
            double dout = a->dx[OUT][acase_at(a, OUT, r->b, r->i, r->h, d)];
            a->dx[Q][q] += ds * a->x[K][key];
            a->dx_e[Q][q] += (ds_e + sums * fabs(ds)) * fabs(a->x[K][key]);
            a->dx[K][key] += ds * a->x[Q][q];
            a->dx_e[K][key] += (ds_e + sums * fabs(ds)) * fabs(a->x[Q][q]);
            a->dx[V][v] += w_kept * dout;
            a->dx_e[V][v] += ((relative + sums) * w_kept + 1e-37) * fabs(dout);
        }
    }
}

/* refer to a case */
void acase_refer(const kcase *k, acase *a)
{
    double *room = malloc(3 * (a->s.Tk + 1) * sizeof *room);
    for (int b = 0; b < a->s.B; b++) {
        int queries = dls_attention_queries(&a->s, b);
        int keys = dls_attention_keys(&a->s, b);
        for (int n = 0; n < a->s.H * queries; n++) {
            int i = n % queries, last = a->s.causal ? i + keys - queries : keys - 1;
            query r = {.b = b, .h = n / queries, .i = i, .keys = keys, .score = room,
                       .weight = room + a->s.Tk};
            gradient g = {.dw = room + 2 * a->s.Tk};
            r.seen = last < 0 ? 0 : last + 1;
            refer_weights(k, a, &r);
            refer_output(k, a, &r);
            refer_gradient(k, a, &r, &g);
        }
    }
    free(room);
}

/* run a case */
void acase_put(kcase *k, acase *a)
{
    a->on_device = a->s;
    if (a->s.starts_q)
        a->on_device.starts_q = kcase_put_ints(k, a->s.starts_q, a->s.B + 1);
    if (a->s.starts_k)
        a->on_device.starts_k = kcase_put_ints(k, a->s.starts_k, a->s.B + 1);
    if (a->s.lengths_k)
        a->on_device.lengths_k = kcase_put_ints(k, a->s.lengths_k, a->s.B);
    for (int n = 0; n < ARRAYS; n++) {
        a->dev[n] = n == OUT ? NULL : kcase_put(k, a->x[n], a->size[n]);
        a->ddev[n] = n == OUT ? kcase_put(k, a->dx[n], a->size[n]) : NULL;
    }
}

void acase_run(kcase *k, acase *a, const char *way)
{
    setenv("DLS_ATTENTION", way, 1);
    size_t bytes = dls_attention_temporary(&a->on_device, k->ctx.dtype);
    a->dev_lse = kcase_space_acc(k, (size_t)a->s.B * a->s.H * a->s.Tq);
    a->temporary =
        kcase_space_acc(k, bytes / dls_dtype_size(dls_dtype_accumulator(k->ctx.dtype)));
    a->dev[OUT] = kcase_space(k, a->size[OUT]);
    for (int n = 0; n < OUT; n++)
        a->ddev[n] = kcase_space(k, a->size[n]);
    OK(dls_attention_forward(&k->ctx, &a->on_device, a->dev[OUT], a->dev_lse, a->dev[Q],
                             a->dev[K], a->dev[V]));
    OK(dls_attention_backward(&k->ctx, &a->on_device, a->ddev[Q], a->ddev[K], a->ddev[V],
                              a->temporary, a->ddev[OUT], a->dev[Q], a->dev[K], a->dev[V],
                              a->dev[OUT], a->dev_lse));
    OK(dls_ctx_sync(&k->ctx));
}

void acase_expect(kcase *k, acase *a, const char *what)
{
    static const char *const names[] = {"dq", "dk", "dv", "out"};
    char text[160];
    size_t rows = (size_t)a->s.B * a->s.H * a->s.Tq;
    snprintf(text, sizeof text, "%s: lse", what);
    expect_near(kcase_get_acc(k, a->dev_lse, rows), a->lse, a->lse_e, rows, text);
    for (int n = OUT; n >= 0; n--) {
        void *got = n == OUT ? a->dev[n] : a->ddev[n];
        snprintf(text, sizeof text, "%s: %s", what, names[n]);
        expect_stored(k, kcase_get(k, got, a->size[n]), n == OUT ? a->x[n] : a->dx[n],
                      n == OUT ? a->x_e[n] : a->dx_e[n], a->size[n], text);
    }
}

void acase_check(kcase *k, dls_attention_shape s, double range, const char *what)
{
    int devices = k->devices, hosts = k->hosts;
    acase *a = acase_make(k, s, range);
    acase_refer(k, a);
    acase_put(k, a);
    for (int flash = 0; flash < 2; flash++) {
        char text[128];
        int kept_devices = k->devices, kept_hosts = k->hosts;
        snprintf(text, sizeof text, "%s, %s", what, flash ? "flash" : "naive");
        acase_run(k, a, flash ? "flash" : "naive");
        acase_expect(k, a, text);
        kcase_release(k, kept_devices, kept_hosts);
    }
    kcase_release(k, devices, hosts);
}

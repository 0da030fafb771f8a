/* tests/kernels/attention_problem.c: from chapters/10-flash-attention-tensor-cores-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See attention_problem.h. */
#include "attention_problem.h"

#include <cuda_fp16.h>

#include "base/rng.h"
#include "kernels/dropout.h"
#include "tensor/tolerance.h"

/* convert to sixteen bits */
uint16_t attention_to_bits(dls_attention_format format, double x)
{
    float f = (float)dls_precision_round(format == DLS_ATTENTION_BF16 ? &dls_bf16
                                                                      : &dls_f16, x);
    uint32_t bits;
    uint16_t half_bits;
    _Float16 half = (_Float16)f;
    memcpy(&bits, &f, sizeof bits);
    memcpy(&half_bits, &half, sizeof half_bits);
    return format == DLS_ATTENTION_BF16 ? (uint16_t)(bits >> 16) : half_bits;
}

double attention_from_bits(dls_attention_format format, uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float f;
    _Float16 half;
    memcpy(&f, &wide, sizeof f);
    memcpy(&half, &bits, sizeof half);
    return format == DLS_ATTENTION_BF16 ? (double)f : (double)half;
}

/* find rows of a problem */
static int queries_of(const problem *p, int b)
{
    return p->packed ? p->starts_q[b + 1] - p->starts_q[b] : p->s.Tq;
}

static int keys_of(const problem *p, int b)
{
    return p->cached ? p->lengths_k[b]
           : p->packed ? p->starts_k[b + 1] - p->starts_k[b] : p->s.Tk;
}

/* Where row i of sequence b begins. */
static size_t row_at(int b, int i, const int *starts, int packed, size_t row,
                     size_t sequence)
{
    return packed ? (size_t)(starts[b] + i) * row : b * sequence + i * row;
}

static size_t q_at(const problem *p, int b, int h, int i)
{
    return row_at(b, i, p->starts_q, p->packed, p->s.q_row, p->s.q_sequence) +
           (size_t)h * p->s.D;
}

static size_t o_at(const problem *p, int b, int h, int i)
{
    return row_at(b, i, p->starts_q, p->packed, p->s.o_row, p->s.o_sequence) +
           (size_t)h * p->s.D;
}

/* Of keys and of values; `h` is a query head. */
static size_t kv_at(const problem *p, int b, int h, int j, size_t row, size_t sequence)
{
    return row_at(b, j, p->starts_k, p->packed, row, sequence) +
           (size_t)(h / (p->s.H / p->s.Hk)) * p->s.D;
}

/* make the arrays of a problem */
static uint16_t *filled_with_nan(const problem *p, size_t n)
{
    uint16_t *x = malloc((n + 8) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = attention_to_bits(p->format, NAN);
    return x;
}

static void draw(const problem *p, uint16_t *x, uint64_t stream, uint64_t first)
{
    for (int d = 0; d < p->s.D; d++)
        x[d] = attention_to_bits(p->format,
                       p->size * (2 * dls_rng_uniform(1, stream, first + d) - 1));
}

static void draw_keys(problem *p, int b, int h)
{
    const dls_attention_shape *s = &p->s;
    int query_head = h * (s->H / s->Hk);
    for (int j = 0; j < keys_of(p, b); j++) {
        uint64_t first = (((uint64_t)b * s->Hk + h) * 5000 + j) * 256;
        draw(p, p->k + kv_at(p, b, query_head, j, s->k_row, s->k_sequence), 2, first);
        draw(p, p->v + kv_at(p, b, query_head, j, s->v_row, s->v_sequence), 3, first);
    }
}

void make_attention(problem *p)
{
    dls_attention_shape *s = &p->s;
    size_t *row[] = {&s->q_row, &s->k_row, &s->v_row, &s->o_row};
    for (int i = 0; i < 4; i++)
        if (!*row[i])
            *row[i] = (size_t)(i % 3 ? s->Hk : s->H) * s->D;
    size_t *step[] = {&s->q_sequence, &s->k_sequence, &s->v_sequence, &s->o_sequence};
    for (int i = 0; i < 4; i++)
        if (!*step[i])
            *step[i] = (size_t)(i % 3 ? s->Tk : s->Tq) * *row[i];
    if (s->scale == 0)
        s->scale = 1 / sqrt(s->D);
    p->n_q = p->packed ? p->starts_q[s->B] * s->q_row : s->B * s->q_sequence;
    p->n_o = p->packed ? p->starts_q[s->B] * s->o_row : s->B * s->o_sequence;
    p->n_k = p->packed ? p->starts_k[s->B] * s->k_row : s->B * s->k_sequence;
    p->n_v = p->packed ? p->starts_k[s->B] * s->v_row : s->B * s->v_sequence;
    p->q = filled_with_nan(p, p->n_q);
    p->k = filled_with_nan(p, p->n_k);
    p->v = filled_with_nan(p, p->n_v);
    p->o = filled_with_nan(p, p->n_o);
    p->lse = calloc((size_t)s->B * s->H * s->Tq + 1, sizeof *p->lse);
    for (int b = 0; b < s->B; b++) {
        for (int h = 0; h < s->H; h++)
            for (int i = 0; i < queries_of(p, b); i++)
                draw(p, p->q + q_at(p, b, h, i), 1,
                     (((uint64_t)b * s->H + h) * 5000 + i) * 256);
        for (int h = 0; h < s->Hk; h++)
            draw_keys(p, b, h);
    }
}

/* run an attention problem */
static void *to_device(const void *host, size_t bytes)
{
    void *device;
    CUDA(cudaMalloc(&device, bytes + 16));
    CUDA(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    return device;
}

void run_attention(problem *p)
{
    dls_attention_shape s = p->s;
    size_t starts = (size_t)(s.B + 1) * sizeof(int), rows = (size_t)s.B * s.H * s.Tq;
    void *o = to_device(p->o, 2 * p->n_o), *q = to_device(p->q, 2 * p->n_q);
    void *k = to_device(p->k, 2 * p->n_k), *v = to_device(p->v, 2 * p->n_v);
    void *lse = to_device(p->lse, rows * sizeof(float));
    if (p->packed) {
        s.starts_q = to_device(p->starts_q, starts);
        s.starts_k = to_device(p->starts_k, starts);
    }
    if (p->cached)
        s.lengths_k = to_device(p->lengths_k, (size_t)s.B * sizeof(int));
    OK(p->run(0, p->format, &s, o, lse, q, k, v));
    CUDA(cudaMemcpy(p->o, o, 2 * p->n_o, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(p->lse, lse, rows * sizeof(float), cudaMemcpyDeviceToHost));
    void *all[] = {o, q, k, v, lse, (void *)s.starts_q, (void *)s.starts_k,
                   (void *)s.lengths_k};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        CUDA(cudaFree(all[i]));
}

/* compute a row in double */
enum { LONGEST = 512, WIDEST = 256 };

typedef struct row {
    int keys;           // that the query sees
    double rho, lse;    // the relative error of a weight
    double out[WIDEST], size[WIDEST], values[WIDEST];  // o, A, sum of |v|
    double weight[LONGEST], kept[LONGEST];  // before dropout; its factor
} row;

/* The scores of the query; sets rho. */
static void score(const problem *p, int b, int h, int i, row *r, double s[LONGEST])
{
    const double u = 0x1p-24, scale = p->s.scale;
    const uint16_t *q = p->q + q_at(p, b, h, i);
    double largest = 0, size = 0;
    for (int j = 0; j < r->keys; j++) {
        const uint16_t *k = p->k + kv_at(p, b, h, j, p->s.k_row, p->s.k_sequence);
        double sum = 0, absolute = 0;
        for (int d = 0; d < p->s.D; d++) {
            double term = attention_from_bits(p->format, q[d]) *
                          attention_from_bits(p->format, k[d]);
            sum += term;
            absolute += fabs(term);
        }
        s[j] = scale * sum;
        largest = fmax(largest, fabs(s[j]));
        size = fmax(size, absolute);
    }
    int tiles = (r->keys + 31) / 32;
    r->rho = expm1(scale * dls_gamma(p->s.D, 0x1p-23) * size +
                   (tiles + 1) * (6 * u * largest + 0x1p-22 + 2 * u));
}

static void reference(const problem *p, int b, int h, int i, row *r)
{
    static double s[LONGEST];
    int len_q = queries_of(p, b), len_k = keys_of(p, b);
    int at = len_k - len_q + i;
    memset(r, 0, sizeof *r);
    r->keys = !p->s.causal ? len_k : at < 0 ? 0 : at + 1;
    r->lse = -INFINITY;
    if (!r->keys)
        return;
    score(p, b, h, i, r, s);
    double most = s[0], sum = 0;
    for (int j = 0; j < r->keys; j++)
        most = fmax(most, s[j]);
    for (int j = 0; j < r->keys; j++)
        sum += exp(s[j] - most);
    r->lse = most + log(sum);
    dls_dropout_gate own = dls_attention_gate(&p->s, b, h);
    int position = dls_attention_position(&p->s, i, len_q, len_k);
    /* average the values of a row */
    for (int j = 0; j < r->keys; j++) {
        const uint16_t *v = p->v + kv_at(p, b, h, j, p->s.v_row, p->s.v_sequence);
        r->weight[j] = exp(s[j] - most) / sum;
        r->kept[j] = p->s.dropout > 0 ? dls_attention_kept(&own, position, j) : 1;
        double weight = r->weight[j] * r->kept[j];
        for (int d = 0; d < p->s.D; d++) {
            double x = attention_from_bits(p->format, v[d]);
            r->out[d] += weight * x;
            r->size[d] += weight * fabs(x);
            r->values[d] += fabs(x) / (1 - p->s.dropout);
        }
    }
}

/* hold a problem to its bound */
static const dls_precision *format_of(const problem *p)
{
    return p->format == DLS_ATTENTION_BF16 ? &dls_bf16 : &dls_f16;
}

/* How far channel d of the row may be off, before it is stored. */
static double row_bound(const problem *p, const row *r, int d)
{
    double u = dls_precision_unit(format_of(p)), gamma = dls_gamma(r->keys, 0x1p-23);
    double relative = (1 + u) * (1 + r->rho) * (1 + gamma) / (1 - r->rho - gamma) - 1;
    return r->size[d] * relative + dls_precision_tiny(format_of(p)) * (r->values[d] + 1);
}

static void expect_row(const problem *p, int b, int h, int i, uint16_t *o)
{
    static row r;
    reference(p, b, h, i, &r);
    double u = dls_precision_unit(format_of(p)), gamma = dls_gamma(r.keys, 0x1p-23);
    for (int d = 0; d < p->s.D; d++) {
        double got = attention_from_bits(p->format, o[d]);
        double bound = row_bound(p, &r, d) + u * fabs(got);
        cr_assert(fabs(got - r.out[d]) <= bound, "sequence %d head %d query %d channel "
                  "%d: %g, not %g; bound %g", b, h, i, d, got, r.out[d], bound);
        o[d] = attention_to_bits(p->format, NAN);
    }
    double lse = p->lse[((size_t)b * p->s.H + h) * p->s.Tq + i];
    double off = r.keys ? r.rho + gamma + 0x1p-22 * (1 + fabs(r.lse)) : 0;
    cr_assert(r.keys ? fabs(lse - r.lse) <= off : lse == r.lse,
              "sequence %d head %d query %d: lse %g, not %g", b, h, i, lse, r.lse);
}

void free_attention(problem *p)
{
    free(p->q), free(p->k), free(p->v), free(p->o), free(p->lse);
}

void expect_attention(problem p)
{
    make_attention(&p);
    run_attention(&p);
    for (int b = 0; b < p.s.B; b++)
        for (int h = 0; h < p.s.H; h++)
            for (int i = 0; i < p.s.Tq; i++)
                if (i < queries_of(&p, b))
                    expect_row(&p, b, h, i, p.o + o_at(&p, b, h, i));
                else
                    cr_assert_eq(p.lse[((size_t)b * p.s.H + h) * p.s.Tq + i], -INFINITY);
    for (size_t i = 0; i < p.n_o; i++)
        cr_assert(isnan(attention_from_bits(p.format, p.o[i])), "element %zu was "
                  "written", i);
    free_attention(&p);
}

/* differentiate a problem */
typedef struct gradient {
    double *want, *bound;
} gradient;

/* What one pair adds: x times the error of the factor y, and to the sum. */
static void add_pair(gradient *g, size_t at, double y, double y_error, double x,
                     double gamma)
{
    g->want[at] += y * x;
    g->bound[at] += (y_error + gamma * (fabs(y) + y_error)) * fabs(x);
}

/* The sum over channels of dout and value j, and the sum of the absolute terms. */
static double weight_gradient(const problem *p, const uint16_t *dout, const uint16_t *v,
                              double *size)
{
    double sum = *size = 0;
    for (int d = 0; d < p->s.D; d++) {
        double x = attention_from_bits(p->format, dout[d]) *
                   attention_from_bits(p->format, v[d]);
        sum += x;
        *size += fabs(x);
    }
    return sum;
}

/* delta of the row, and its error. */
static double output_gradient(const problem *p, const row *r, const uint16_t *dout,
                              double *error)
{
    double u = dls_precision_unit(format_of(p)), delta = *error = 0;
    for (int d = 0; d < p->s.D; d++) {
        double g = attention_from_bits(p->format, dout[d]);
        double off = row_bound(p, r, d) + u * (fabs(r->out[d]) + row_bound(p, r, d));
        delta += g * r->out[d];
        *error += fabs(g) * (off + dls_gamma(p->s.D, 0x1p-24) * (fabs(r->out[d]) + off));
    }
    return delta;
}

/* Adds what query i of head h gives to dq, dk, dv. */
static void differentiate_row(const problem *p, const uint16_t *all_dout, gradient g[3],
                              int b, int h, int i)
{
    const dls_attention_shape *s = &p->s;
    static row r;
    reference(p, b, h, i, &r);
    double u = dls_precision_unit(format_of(p));
    double tiny = dls_precision_tiny(format_of(p)) + 0x1p-126;
    double by_key = dls_gamma(r.keys + 2, 0x1p-23), delta_error, dp_size;
    double by_query = dls_gamma(s->Tq * (s->H / s->Hk) + 2, 0x1p-23);
    const uint16_t *dout = all_dout + o_at(p, b, h, i), *q = p->q + q_at(p, b, h, i);
    double delta = output_gradient(p, &r, dout, &delta_error);
    double off = r.rho + by_key + 0x1p-22 * (1 + fabs(r.lse));
    double rho = (1 + r.rho) * exp(off) - 1 + 0x1p-21;
    for (int j = 0; j < r.keys; j++) {
        /* differentiate a pair */
        size_t k_at = kv_at(p, b, h, j, s->k_row, s->k_sequence);
        size_t v_at = kv_at(p, b, h, j, s->v_row, s->v_sequence);
        double w = r.weight[j], kept = r.kept[j], wf = w * kept;
        double dp = kept * weight_gradient(p, dout, p->v + v_at, &dp_size);
        double dp_error = dls_gamma(s->D + 2, 0x1p-23) * kept * dp_size;
        double ds = w * (dp - delta);
        double ds_error = w * ((1 + rho) * (dp_error + delta_error) +
                               (rho + 0x1p-22) * (fabs(dp) + fabs(delta)));
        ds_error += u * (fabs(ds) + ds_error) + tiny * (1 + fabs(dp) + fabs(delta));
        for (int d = 0; d < s->D; d++) {
            add_pair(&g[0], q_at(p, b, h, i) + d, s->scale * ds, s->scale * ds_error,
                     attention_from_bits(p->format, p->k[k_at + d]), by_key);
            add_pair(&g[1], k_at + d, s->scale * ds, s->scale * ds_error,
                     attention_from_bits(p->format, q[d]), by_query);
            add_pair(&g[2], v_at + d, wf, wf * (rho + u * (1 + rho)) + kept * tiny,
                     attention_from_bits(p->format, dout[d]), by_query);
        }
    }
}

static void expect_gradient_of(const problem *p, const char *name, const uint16_t *input,
                               const uint16_t *got, const gradient *g, size_t n)
{
    double u = dls_precision_unit(format_of(p)), tiny = dls_precision_tiny(format_of(p));
    for (size_t i = 0; i < n; i++) {
        double x = attention_from_bits(p->format, got[i]);
        double bound = g->bound[i] * (1 + u) + u * fabs(g->want[i]) + tiny;
        if (isnan(attention_from_bits(p->format, input[i])))
            cr_assert(isnan(x), "%s[%zu] was written", name, i);
        else
            cr_assert(fabs(x - g->want[i]) <= bound, "%s[%zu] = %g, not %g; bound %g",
                      name, i, x, g->want[i], bound);
    }
}

/* Runs the backward pass on copies; got[] are dq, dk, dv. */
static void run_backward(const problem *p, const uint16_t *dout, uint16_t *got[3])
{
    dls_attention_shape s = p->s;
    size_t rows = (size_t)s.B * s.H * s.Tq, starts = (size_t)(s.B + 1) * sizeof(int);
    const size_t n[3] = {p->n_q, p->n_k, p->n_v};
    void *q = to_device(p->q, 2 * p->n_q), *k = to_device(p->k, 2 * p->n_k);
    void *v = to_device(p->v, 2 * p->n_v), *o = to_device(p->o, 2 * p->n_o);
    void *g = to_device(dout, 2 * p->n_o), *lse = to_device(p->lse, 4 * rows), *d[3];
    void *delta = to_device(p->lse, 4 * rows);
    for (int i = 0; i < 3; i++)
        d[i] = to_device(got[i], 2 * n[i]);
    if (p->packed) {
        s.starts_q = to_device(p->starts_q, starts);
        s.starts_k = to_device(p->starts_k, starts);
    }
    if (p->cached)
        s.lengths_k = to_device(p->lengths_k, (size_t)s.B * sizeof(int));
    OK(dls_attention_tensor_backward(0, p->format, &s, d[0], d[1], d[2], delta, g, q, k,
                                     v, o, lse));
    for (int i = 0; i < 3; i++)
        CUDA(cudaMemcpy(got[i], d[i], 2 * n[i], cudaMemcpyDeviceToHost));
    void *all[] = {q, k, v, o, g, lse, d[0], d[1], d[2], delta, (void *)s.starts_q,
                   (void *)s.starts_k, (void *)s.lengths_k};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        CUDA(cudaFree(all[i]));
}

void expect_attention_gradients(problem p)
{
    static const char *const names[3] = {"dq", "dk", "dv"};
    make_attention(&p);
    run_attention(&p);
    const size_t n[3] = {p.n_q, p.n_k, p.n_v};
    const uint16_t *inputs[3] = {p.q, p.k, p.v};
    uint16_t *dout = filled_with_nan(&p, p.n_o), *got[3];
    gradient g[3];
    for (int i = 0; i < 3; i++) {
        got[i] = filled_with_nan(&p, n[i]);
        g[i] = (gradient){calloc(n[i], 8), calloc(n[i], 8)};
    }
    for (int row = 0; row < p.s.B * p.s.H * p.s.Tq; row++) {
        int i = row % p.s.Tq, h = row / p.s.Tq % p.s.H, b = row / p.s.Tq / p.s.H;
        if (i >= queries_of(&p, b))
            continue;
        draw(&p, dout + o_at(&p, b, h, i), 4, (uint64_t)row * 256);
        differentiate_row(&p, dout, g, b, h, i);
    }
    run_backward(&p, dout, got);
    for (int i = 0; i < 3; i++) {
        expect_gradient_of(&p, names[i], inputs[i], got[i], &g[i], n[i]);
        free(got[i]), free(g[i].want), free(g[i].bound);
    }
    free(dout);
    free_attention(&p);
}

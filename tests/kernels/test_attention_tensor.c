/* tests/kernels/test_attention_tensor.c: from chapters/10-flash-attention-tensor-cores-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention on tensor cores against the definition in double, element by element, within
 * the bound of the chapter. Everything around the arrays is NaN: gaps between rows, rows
 * past a sequence's end, the rest of a cache. */
#include <criterion/criterion.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/attention_tensor.h"
#include "kernels/dropout.h"
#include "tensor/tolerance.h"

#define OK(expr) cr_assert_eq((expr), DLS_OK, "%s: %s", #expr, dls_status_message())
#define CUDA(expr) cr_assert_eq((expr), cudaSuccess, "%s", #expr)

/* convert to sixteen bits */
static uint16_t to_bits(dls_attention_format format, double x)
{
    float f = (float)dls_precision_round(format == DLS_ATTENTION_BF16 ? &dls_bf16
                                                                      : &dls_f16, x);
    uint32_t bits;
    uint16_t half_bits;
    __half half = __float2half(f);
    memcpy(&bits, &f, sizeof bits);
    memcpy(&half_bits, &half, sizeof half_bits);
    return format == DLS_ATTENTION_BF16 ? (uint16_t)(bits >> 16) : half_bits;
}

static double from_bits(dls_attention_format format, uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float f;
    __half half;
    memcpy(&f, &wide, sizeof f);
    memcpy(&half, &bits, sizeof half);
    return format == DLS_ATTENTION_BF16 ? (double)f : (double)__half2float(half);
}

/* describe an attention problem */
enum { MOST = 8 };  // sequences

typedef struct problem {
    dls_attention_shape s;
    dls_attention_format format;
    int starts_q[MOST + 1], starts_k[MOST + 1], lengths_k[MOST];
    int packed, cached;       // starts_q and starts_k count; lengths_k counts
    double size;              // elements are drawn from (-size, size)
    size_t n_q, n_k, n_v, n_o;
    uint16_t *q, *k, *v, *o;  // on the host
    float *lse;
} problem;

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
        x[i] = to_bits(p->format, NAN);
    return x;
}

static void draw(const problem *p, uint16_t *x, uint64_t stream, uint64_t first)
{
    for (int d = 0; d < p->s.D; d++)
        x[d] = to_bits(p->format,
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

static void make_arrays(problem *p)
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

static void *to_device(const void *host, size_t bytes)
{
    void *device;
    CUDA(cudaMalloc(&device, bytes + 16));
    CUDA(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    return device;
}

static void run_problem(problem *p)
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
    OK(dls_attention_tensor_forward(0, p->format, &s, o, lse, q, k, v));
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
            double term = from_bits(p->format, q[d]) * from_bits(p->format, k[d]);
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
    dls_dropout_gate gate = dls_dropout_gate_of(p->s.dropout, p->s.seed, p->s.stream);
    dls_dropout_gate own = dls_dropout_of_head(
        gate, (uint32_t)(p->s.first_sequence + b), (uint32_t)(p->s.first_head + h));
    /* average the values of a row */
    for (int j = 0; j < r->keys; j++) {
        const uint16_t *v = p->v + kv_at(p, b, h, j, p->s.v_row, p->s.v_sequence);
        double weight = exp(s[j] - most) / sum;
        if (p->s.dropout > 0)
            weight *= dls_dropout_keeps(&own, dls_dropout_pair((uint32_t)i, (uint32_t)j))
                          ? gate.scale : 0;
        for (int d = 0; d < p->s.D; d++) {
            double x = from_bits(p->format, v[d]);
            r->out[d] += weight * x;
            r->size[d] += weight * fabs(x);
            r->values[d] += fabs(x) * (gate.scale > 1 ? gate.scale : 1);
        }
    }
}

/* hold a problem to its bound */
static void expect_row(const problem *p, int b, int h, int i, uint16_t *o)
{
    const dls_precision *f = p->format == DLS_ATTENTION_BF16 ? &dls_bf16 : &dls_f16;
    static row r;
    reference(p, b, h, i, &r);
    double u = dls_precision_unit(f), gamma = dls_gamma(r.keys, 0x1p-23);
    double relative = (1 + u) * (1 + r.rho) * (1 + gamma) / (1 - r.rho - gamma) - 1;
    for (int d = 0; d < p->s.D; d++) {
        double got = from_bits(p->format, o[d]), tiny = dls_precision_tiny(f);
        double bound = r.size[d] * relative + tiny * (r.values[d] + 1) + u * fabs(got);
        cr_assert(fabs(got - r.out[d]) <= bound, "sequence %d head %d query %d channel "
                  "%d: %g, not %g; bound %g", b, h, i, d, got, r.out[d], bound);
        o[d] = to_bits(p->format, NAN);
    }
    double lse = p->lse[((size_t)b * p->s.H + h) * p->s.Tq + i];
    double off = r.keys ? r.rho + gamma + 0x1p-22 * (1 + fabs(r.lse)) : 0;
    cr_assert(r.keys ? fabs(lse - r.lse) <= off : lse == r.lse,
              "sequence %d head %d query %d: lse %g, not %g", b, h, i, lse, r.lse);
}

static void expect_problem(problem p)
{
    make_arrays(&p);
    run_problem(&p);
    for (int b = 0; b < p.s.B; b++)
        for (int h = 0; h < p.s.H; h++)
            for (int i = 0; i < queries_of(&p, b); i++)
                expect_row(&p, b, h, i, p.o + o_at(&p, b, h, i));
    for (size_t i = 0; i < p.n_o; i++)
        cr_assert(isnan(from_bits(p.format, p.o[i])), "element %zu was written", i);
    free(p.q), free(p.k), free(p.v), free(p.o), free(p.lse);
}

/* test the shapes */
#define SHAPE(...) .s = {__VA_ARGS__}, .size = 2

Test(attention_tensor, lengths_around_a_tile)
{
    static const int lengths[][2] = {{1, 1}, {63, 65}, {64, 64}, {65, 63}, {1, 130},
                                     {130, 1}, {17, 191}};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
        for (int causal = 0; causal < 2; causal++)
            expect_problem((problem){SHAPE(.B = 1, .Tq = lengths[n][0],
                                           .Tk = lengths[n][1], .H = 1, .Hk = 1,
                                           .D = 64, .causal = causal)});
}

Test(attention_tensor, head_sizes)
{
    static const int sizes[] = {8, 32, 40, 64, 72, 96, 128, 200, 256};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (int format = 0; format < 2; format++)
            expect_problem((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 70, .H = 1, .Hk = 1,
                                           .D = sizes[n], .causal = 1),
                                     .format = format});
}

Test(attention_tensor, groups_of_heads_in_one_array)
{
    expect_problem((problem){SHAPE(.B = 2, .Tq = 37, .Tk = 37, .H = 6, .Hk = 2, .D = 32,
                                   .causal = 1, .q_row = 328, .k_row = 72, .v_row = 80,
                                   .o_row = 200, .q_sequence = 37 * 328 + 16,
                                   .k_sequence = 40 * 72)});
    expect_problem((problem){SHAPE(.B = 1, .Tq = 5, .Tk = 9, .H = 4, .Hk = 1, .D = 64)});
}

Test(attention_tensor, packed_sequences)
{
    for (int causal = 0; causal < 2; causal++)
        expect_problem((problem){SHAPE(.B = 5, .Tq = 70, .Tk = 80, .H = 2, .Hk = 1,
                                       .D = 32, .causal = causal),
                                 .packed = 1, .starts_q = {0, 70, 70, 71, 84, 90},
                                 .starts_k = {0, 66, 70, 71, 151, 151}});
}

Test(attention_tensor, a_cache)
{
    expect_problem((problem){SHAPE(.B = 4, .Tq = 3, .Tk = 100, .H = 2, .Hk = 2, .D = 64,
                                   .causal = 1),
                             .cached = 1, .lengths_k = {100, 0, 1, 67}});
}

Test(attention_tensor, dropped_weights)
{
    for (int format = 0; format < 2; format++)
        expect_problem((problem){SHAPE(.B = 2, .Tq = 66, .Tk = 71, .H = 2, .Hk = 1,
                                       .D = 64, .causal = 1, .dropout = 0.25, .seed = 7,
                                       .stream = 11, .first_sequence = 5,
                                       .first_head = 3),
                                 .format = format});
}

Test(attention_tensor, large_scores)
{
    for (int format = 0; format < 2; format++)
        expect_problem((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 90, .H = 1, .Hk = 1,
                                       .D = 64, .scale = 4),
                                 .format = format});
}

/* test what is not a number */
static double first_of_row(int i, double in_query, double in_key, int keys)
{
    problem p = {SHAPE(.B = 1, .Tq = 20, .Tk = keys, .H = 1, .Hk = 1, .D = 32)};
    make_arrays(&p);
    memset(p.q, 0, 2 * p.n_q);
    p.q[3 * 32] = to_bits(p.format, in_query);
    for (int j = 0; j < keys; j++)
        p.k[j * 32] = to_bits(p.format, j == keys - 1 ? in_key : 0);
    run_problem(&p);
    double got = from_bits(p.format, p.o[i * 32]);
    free(p.q), free(p.k), free(p.v), free(p.o), free(p.lse);
    return got;
}

Test(attention_tensor, infinite_scores)
{
    cr_expect_eq(first_of_row(3, -1, INFINITY, 1), 0);
    cr_expect(isfinite(first_of_row(3, -1, INFINITY, 2)));
    cr_expect(isnan(first_of_row(3, 1, INFINITY, 2)));
    cr_expect(isnan(first_of_row(3, NAN, 1, 2)));
    cr_expect(isfinite(first_of_row(4, NAN, 1, 2)));
}

/* test what does not apply */
Test(attention_tensor, refusals)
{
    static uint16_t x[16] __attribute__((aligned(16)));
    dls_attention_shape good = {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 8};
    cr_expect(dls_attention_tensor_applies(&good, x, x, x, x));
    cr_expect_not(dls_attention_tensor_applies(&good, x + 1, x, x, x));
    dls_attention_shape bad[] = {good, good, good, good, good};
    bad[0].D = 12;
    bad[1].D = 264;
    bad[2].k_row = 12;
    bad[3].scale = -1;
    bad[4].v_sequence = 4;
    for (int i = 0; i < 5; i++) {
        cr_expect_not(dls_attention_tensor_applies(&bad[i], x, x, x, x), "%d", i);
        cr_expect_eq(dls_attention_tensor_forward(0, 0, &bad[i], x, NULL, x, x, x),
                     DLS_ERR_STATE);
    }
}

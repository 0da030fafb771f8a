/* tests/kernels/test_grouped.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/grouped.h"

/* describe grouped cases */
enum { MOST = 150 };

typedef struct grouped_case {
    int experts, in, out, rows; /* rows of the buffers; some are in no segment */
    int segments;
    dls_segment segment[MOST];
} grouped_case;

/* `segments` short segments in a row, of experts in an order of no use, with a gap of a
 * row before every fourth. */
static grouped_case many(int experts, int segments, int most, int in, int out)
{
    grouped_case c = {.experts = experts, .in = in, .out = out, .segments = segments};
    for (int i = 0; i < segments; i++) {
        c.rows += i % 4 == 3;
        c.segment[i] = (dls_segment){i * 5 % experts, c.rows, i * 7 % (most + 1)};
        c.rows += c.segment[i].count;
    }
    c.rows++;
    return c;
}

/* refer to grouped products */
/* y (rows, N) := x (rows, K) by W (N, K), turned, or (K, N); and bounds behind it. */
static void refer_rows(kcase *k, const grouped_case *c, int turned, const double *x,
                       const double *W, double *y)
{
    int N = turned ? c->out : c->in, K = turned ? c->in : c->out;
    for (int i = 0; i < c->rows * N; i++)
        y[i] = NAN;             // nobody writes what is in no segment
    for (int s = 0; s < c->segments; s++)
        for (int i = 0; i < c->segment[s].count * N; i++) {
            const double *w = W + (size_t)c->segment[s].expert * N * K;
            int row = c->segment[s].begin + i / N, n = i % N;
            double sum = 0, size = 0;
            for (int j = 0; j < K; j++) {
                double term = x[row * K + j] * (turned ? w[n * K + j] : w[j * N + n]);
                sum += term;
                size += fabs(term);
            }
            y[row * N + n] = sum;
            y[(c->rows + row) * N + n] = rounding(k, K + 1) * size;
        }
}

/* dW (experts, out, in) += the products of the rows of each expert; bounds behind. */
static void refer_weights(kcase *k, const grouped_case *c, const double *dy,
                          const double *x, double *dW)
{
    int count = c->out * c->in, terms[MOST] = {0};
    double *size = dW + c->experts * count;
    for (int i = 0; i < c->experts * count; i++)
        size[i] = fabs(dW[i]);
    for (int s = 0; s < c->segments; s++) {
        int e = c->segment[s].expert, begin = c->segment[s].begin;
        terms[e] += c->segment[s].count;
        for (int r = begin; r < begin + c->segment[s].count; r++)
            for (int i = 0; i < count; i++) {
                double term = dy[r * c->out + i / c->in] * x[r * c->in + i % c->in];
                dW[e * count + i] += term;
                size[e * count + i] += fabs(term);
            }
    }
    for (int i = 0; i < c->experts * count; i++)
        size[i] *= rounding(k, terms[i / count] + c->segments + 2);
}

/* check grouped products */
static void point(void **to, void *base, int experts, size_t bytes)
{
    for (int e = 0; e < experts; e++)
        to[e] = (char *)base + e * bytes;
}

static void check_rows(kcase *k, const grouped_case *c, int turned)
{
    int N = turned ? c->out : c->in, K = turned ? c->in : c->out;
    size_t n = (size_t)c->rows * N, count = (size_t)c->experts * c->in * c->out;
    double *x = kcase_random(k, (size_t)c->rows * K, 1, -1, 1);
    double *W = kcase_random(k, count, 2, -1, 1), *want = kcase_zeros(k, 2 * n);
    dls_groups g = {c->segment, c->segments, c->experts, c->in, c->out};
    void *weight[MOST], *y = kcase_space(k, n);
    refer_rows(k, c, turned, x, W, want);
    point(weight, kcase_put(k, W, count), c->experts,
          (size_t)c->in * c->out * dls_dtype_size(k->ctx.dtype));
    OK((turned ? dls_grouped_forward : dls_grouped_backward_input)(
        &k->ctx, &g, y, kcase_put(k, x, (size_t)c->rows * K),
        (const void *const *)weight));
    expect_stored(k, kcase_get(k, y, n), want, want + n, n, turned ? "y" : "dx");
}

static void check_weights(kcase *k, const grouped_case *c)
{
    size_t each = (size_t)c->in * c->out, count = c->experts * each;
    double *x = kcase_random(k, (size_t)c->rows * c->in, 1, -1, 1), keep[MOST];
    double *dy = kcase_random(k, (size_t)c->rows * c->out, 3, -1, 1);
    double *want = kcase_zeros(k, 2 * count), *before = kcase_random(k, count, 4, -1, 1);
    dls_groups g = {c->segment, c->segments, c->experts, c->in, c->out};
    void *dweight[MOST];
    for (size_t i = 0; i < count; i++) {
        keep[i / each] = i / each % 2;
        want[i] = keep[i / each] * before[i];
        before[i] = keep[i / each] ? before[i] : NAN;   // is not read
    }
    void *dW = kcase_put_acc(k, before, count);
    refer_weights(k, c, dy, x, want);
    point(dweight, dW, c->experts,
          each * dls_dtype_size(dls_dtype_accumulator(k->ctx.dtype)));
    OK(dls_grouped_backward_weight(&k->ctx, &g, dweight, keep,
                                   kcase_put(k, dy, (size_t)c->rows * c->out),
                                   kcase_put(k, x, (size_t)c->rows * c->in)));
    expect_near(kcase_get_acc(k, dW, count), want, want + count, count, "dW");
}

/* test grouped products */
static void check_all(kcase *k, const char *way)
{
    const grouped_case cases[] = {
        {1, 1, 1, 1, 1, {{0, 0, 1}}},
        {3, 5, 7, 9, 4, {{2, 0, 2}, {0, 2, 0}, {2, 2, 3}, {0, 6, 2}}},  // 1 has none
        {2, 33, 35, 70, 2, {{1, 0, 33}, {0, 35, 34}}},  // a bit more than a tile
        {4, 2, 3, 3, 0, {{0}}},                         // no rows at all
        {2, 3, 4, 5, 2, {{0, 0, 0}, {1, 0, 0}}},
        many(1, 130, 2, 3, 2),                          // one expert, three launches
        many(70, 71, 1, 2, 3),
        many(3, 40, 5, 19, 18),
    };
    setenv("DLS_GROUPED", way, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_rows(k, &cases[i], 1);
        check_rows(k, &cases[i], 0);
        check_weights(k, &cases[i]);
        kcase_release(k, 0, 0);
    }
}

KERNEL_TEST(grouped_by_tiles) { check_all(k, "tiles"); }

KERNEL_TEST(grouped_by_cublas) { check_all(k, "cublas"); }

Test(kernels, grouped_ways_have_names)
{
    dls_ctx ctx;
    dls_groups g = {NULL, 0, 0, 1, 1};
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    setenv("DLS_GROUPED", "tile", 1);
    cr_assert_eq(dls_grouped_forward(&ctx, &g, NULL, NULL, NULL), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "DLS_GROUPED: expected cublas or tiles, got "
                     "\"tile\"; did you mean tiles?");
    dls_ctx_destroy(&ctx);
}

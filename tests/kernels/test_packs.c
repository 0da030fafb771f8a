/* tests/kernels/test_packs.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Operations on a part of an array: the same bits inside, and nothing outside. */
#include "support.h"

/* list elementwise operations */
enum { WHOLE = 64 };

/* y (n) becomes a function of itself, of x (n), and of g (n) in the accumulator's
 * type. */
typedef dls_status (*operation)(dls_ctx *ctx, char *y, char *x, char *g, size_t n);

static dls_status add(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    (void)g;
    return dls_add(ctx, y, y, x, n);
}

static dls_status add_bias(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    (void)g;
    return dls_bias_add(ctx, y, x, 1, (int)n);
}

static dls_status scale(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    (void)x, (void)g;
    return dls_scale(ctx, y, 0.375, n);
}

static dls_status apply_gelu(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    (void)g;
    return dls_gelu_forward(ctx, y, x, n);
}

static dls_status pass_gelu(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    (void)g;
    return dls_gelu_backward(ctx, y, y, x, n);
}

static dls_status step(dls_ctx *ctx, char *y, char *x, char *g, size_t n)
{
    size_t whole = WHOLE * dls_dtype_size(dls_dtype_accumulator(ctx->dtype));
    (void)x;
    return dls_adamw(ctx, y, NULL, g, g + whole, g + 2 * whole, n, 0.5, 0.9, 0.95, 1e-8,
                     0.1, 1, NULL);
}

static const operation operations[] = {add, add_bias, scale, apply_gelu, pass_gelu, step};

/* test parts of arrays */
/* The operation on y[from .. from + n), as an array of all WHOLE numbers. */
static double *apply(kcase *k, operation run, int from, int n, double *before)
{
    size_t s = dls_dtype_size(k->ctx.dtype);
    size_t wide = dls_dtype_size(dls_dtype_accumulator(k->ctx.dtype));
    double *x = kcase_random(k, WHOLE, 2, -2, 2), *g = kcase_zeros(k, 3 * WHOLE);
    for (int i = 0; i < WHOLE; i++)
        g[i] = x[i];
    char *y = kcase_put(k, before, WHOLE), *dx = kcase_put(k, x, WHOLE);
    char *dg = kcase_put_acc(k, g, 3 * WHOLE);
    OK(run(&k->ctx, y + from * s, dx + from * s, dg + from * wide, n));
    return kcase_get(k, y, WHOLE);
}

KERNEL_TEST(parts_of_arrays)
{
    static const int parts[][2] = {{0, 23}, {0, 24}, {1, 24}, {8, 16}, {8, 17}, {5, 1}};
    double *before = kcase_random(k, WHOLE, 1, -2, 2);
    for (size_t o = 0; o < sizeof operations / sizeof *operations; o++) {
        double *whole = apply(k, operations[o], 0, WHOLE, before);
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            int from = parts[p][0], n = parts[p][1];
            double *got = apply(k, operations[o], from, n, before);
            expect_within(got, before, 0, from, "before the part");
            expect_within(got + from, whole + from, 0, n, "the part");
            expect_within(got + from + n, before + from + n, 0, WHOLE - from - n,
                          "behind the part");
            cr_assert_neq(got[from], before[from], "operation %zu did nothing", o);
        }
        kcase_release(k, 0, 1);
    }
}

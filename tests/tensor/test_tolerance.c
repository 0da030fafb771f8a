/* tests/tensor/test_tolerance.c: from chapters/02-numerics.md. Edit the chapter, or edit here and run "make untangle". */
/* The bounds of tolerance.h: never violated by correct sums, nearly attained by the worst
 * ones, and violated by wrong programs. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "base/rng.h"
#include "tensor/tolerance.h"

/* add in a precision */
enum { MOST = 4096 };
static double A[MOST], B[MOST], products[MOST];

enum order { FORWARD, BACKWARD, IN_PAIRS, ORDERS };

static double add(const dls_precision *p, const double *x, int n, enum order order)
{
    double sum = 0;
    if (order == IN_PAIRS && n > 1)
        return dls_precision_round(p, add(p, x, n / 2, order) +
                                          add(p, x + n / 2, n - n / 2, order));
    for (int l = 0; l < n; l++)
        sum = dls_precision_round(p, sum + x[order == BACKWARD ? n - 1 - l : l]);
    return sum;
}

static double dot(const dls_precision *accumulator, int n, enum order order)
{
    for (int l = 0; l < n; l++)
        products[l] = dls_precision_round(accumulator, A[l] * B[l]);
    return add(accumulator, products, n, order);
}

static double error_of(double computed, int n, double *size)
{
    long double sum = 0, absolute = 0;
    for (int l = 0; l < n; l++) {
        sum += (long double)A[l] * B[l];
        absolute += fabsl((long double)A[l] * B[l]);
    }
    *size = (double)absolute;
    return (double)fabsl(computed - sum);
}

/* fill the factors */
enum { KINDS = 4 };

static void fill(const dls_precision *input, int kind, int n, unsigned stream)
{
    for (int l = 0; l < n; l++) {
        double u = dls_rng_uniform(5, stream, 3 * (unsigned)l);
        double v = dls_rng_uniform(5, stream, 3 * (unsigned)l + 1);
        double w = dls_rng_uniform(5, stream, 3 * (unsigned)l + 2);
        double a = kind == 0 ? u : 2 * u - 1, b = kind == 0 ? v : 2 * v - 1;
        if (kind == 2)
            a *= exp2(floor(10 * w) - 5);
        A[l] = dls_precision_round(input, a);
        B[l] = dls_precision_round(input, b);
        if (kind == 3 && l % 2) {
            A[l] = A[l - 1];
            B[l] = dls_precision_round(input, -B[l - 1] * (1 + w / 64));
        }
    }
}

/* test the precisions */
Test(tolerance, units)
{
    cr_expect_eq(dls_precision_unit(&dls_f32), FLT_EPSILON / 2);
    cr_expect_eq(dls_precision_unit(&dls_f64), DBL_EPSILON / 2);
    cr_expect_eq(dls_precision_unit(&dls_bf16), 0x1p-8);
    cr_expect_eq(dls_precision_tiny(&dls_f32), 0x1p-150);  // half of 2^-149
    cr_expect_eq(dls_f32.largest, FLT_MAX);
    cr_expect_eq(dls_f64.largest, DBL_MAX);
    cr_expect_eq(dls_gamma(3, 0.25), 3);
    cr_expect(isinf(dls_gamma(256, 0x1p-8)));
}

Test(tolerance, rounding_is_the_compilers)
{
    for (unsigned long i = 0; i < 1ul << 21; i++) {
        union { unsigned long bits; double x; } u = {.bits = i << 43};
        u.bits ^= i * 0x9e3779b97f4a7c15ul >> 21;  // digits below, and ties among them
        if (i % 4 == 0)
            u.bits = u.bits >> 28 << 28;
        if (isnan(u.x))
            continue;
        cr_assert_eq(dls_precision_round(&dls_f32, u.x), (double)(float)u.x, "%a", u.x);
    }
}

Test(tolerance, rounding_of_short_formats)
{
    cr_expect_eq(dls_precision_round(&dls_bf16, 0.1), 0.10009765625);
    cr_expect_eq(dls_precision_round(&dls_f16, 0.1), 0.0999755859375);
    cr_expect_eq(dls_precision_round(&dls_bf16, 257), 256);
    cr_expect_eq(dls_precision_round(&dls_bf16, 259), 260);
    cr_expect_eq(dls_precision_round(&dls_f16, 0x1.8p-24), 0x1p-23);
    cr_expect_eq(dls_precision_round(&dls_f16, 0x1p-25), 0);
    cr_expect_eq(dls_precision_round(&dls_f16, 65519), 65504);
    cr_expect_eq(dls_precision_round(&dls_f16, -65520), -INFINITY);
    cr_expect_eq(dls_precision_round(&dls_e4m3, 300), 288);
    cr_expect_eq(dls_precision_round(&dls_e5m2, 0x1p-17), 0);
    cr_expect_eq(dls_precision_round(&dls_tf32, 1 + 0x1.8p-11), 1 + 0x1p-10);
}

/* test that the bounds hold */
static void expect_bound(const dls_precision *input, const dls_precision *accumulator,
                         int n, int kind, unsigned stream)
{
    fill(input, kind, n, stream);
    for (int order = 0; order < ORDERS; order++) {
        dls_dot d = {.terms = n, .input = input, .accumulator = accumulator};
        double size, error = error_of(dot(accumulator, n, order), n, &size);
        if (order == IN_PAIRS)
            d.depth = ceil(log2(n));
        cr_assert(error <= dls_dot_bound(&d, size),
                  "%s in %s, %d terms, kind %d, order %d: error %g, bound %g",
                  input->name, accumulator->name, n, kind, order, error,
                  dls_dot_bound(&d, size));
    }
}

Test(tolerance, bounds_hold)
{
    static const dls_precision *const pairs[][2] = {
        {&dls_f32, &dls_f32},  {&dls_tf32, &dls_f32}, {&dls_f16, &dls_f32},
        {&dls_bf16, &dls_f32}, {&dls_f16, &dls_f16},  {&dls_bf16, &dls_bf16},
        {&dls_e4m3, &dls_f32}, {&dls_e5m2, &dls_f16}};
    static const int lengths[] = {1, 2, 3, 7, 32, 255, 1024, 4096};
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (int kind = 0; kind < KINDS; kind++)
                for (unsigned stream = 0; stream < 20; stream++)
                    expect_bound(pairs[p][0], pairs[p][1], lengths[i], kind, stream);
}

/* test that the bounds are tight */
/* 1 + u + u + ...: a chain from the front loses every term but the first. */
static void fill_with_lost_terms(const dls_precision *p, int n)
{
    for (int l = 0; l < n; l++) {
        A[l] = l ? dls_precision_unit(p) : 1;
        B[l] = 1;
    }
}

Test(tolerance, the_worst_chain_attains_the_bound)
{
    double size, error;
    fill_with_lost_terms(&dls_f32, 1025);
    dls_dot d = {.terms = 1025, .input = &dls_bf16, .accumulator = &dls_f32};
    error = error_of(dot(&dls_f32, 1025, FORWARD), 1025, &size);
    cr_expect_eq(error, 0x1p-14);
    cr_expect(error > 0.999 * dls_dot_bound(&d, size));
    d.input = &dls_f32;
    cr_expect(error > 0.998 * dls_dot_bound(&d, size));
    fill_with_lost_terms(&dls_bf16, 65);
    d = (dls_dot){.terms = 65, .input = &dls_e5m2, .accumulator = &dls_bf16};
    error = error_of(dot(&dls_bf16, 65, FORWARD), 65, &size);
    cr_expect_eq(error, 0.25);
    cr_expect_float_eq(dls_dot_bound(&d, size), 5 / 12.0, 1e-12);
}

Test(tolerance, underflow_is_allowed_for)
{
    double size, error;
    for (int l = 0; l < 8; l++)
        A[l] = B[l] = 0x1p-13;
    dls_dot d = {.terms = 8, .input = &dls_f16, .accumulator = &dls_f16};
    error = error_of(dot(&dls_f16, 8, FORWARD), 8, &size);
    cr_expect_eq(error, 0x1p-23);
    cr_expect(error > dls_gamma(8, 0x1p-11) * size && error <= dls_dot_bound(&d, size));
}

Test(tolerance, scaled_sums_and_narrow_outputs)
{
    dls_dot d = {.terms = 300, .input = &dls_f32, .accumulator = &dls_f32};
    for (unsigned stream = 0; stream < 200; stream++) {
        double size, alpha = 0x1.23456p-1, beta = -0x1.fedcbap0, c = 3.14159f;
        fill(&dls_f32, 1, 300, stream);
        double rest = error_of(0, 300, &size), sum = dot(&dls_f32, 300, FORWARD);
        double sign = sum < 0 ? -1 : 1, want = alpha * sign * rest + beta * c;
        float got = (float)alpha * (float)sum + (float)beta * (float)c;
        d.output = NULL;
        double full = dls_gemm_bound(&d, size, alpha, beta, c);
        cr_assert(fabs(got - want) <= full);
        d.output = &dls_bf16;
        double narrow = dls_gemm_bound(&d, size, alpha, beta, c);
        cr_assert(fabs(dls_precision_round(&dls_bf16, got) - want) <= narrow);
        cr_assert(narrow > full + 0x1p-8 * fabs(beta * c));
    }
}

/* test that wrong programs are rejected */
static int rejected(const dls_dot *claim, double computed)
{
    double size, error = error_of(computed, (int)claim->terms, &size);
    return error > dls_dot_bound(claim, size);
}

Test(tolerance, a_narrow_accumulator_is_rejected)
{
    dls_dot claim = {.terms = 64, .input = &dls_bf16, .accumulator = &dls_f32};
    for (unsigned stream = 0; stream < 50; stream++) {
        fill(&dls_bf16, 0, 64, stream);
        cr_expect_not(rejected(&claim, dot(&dls_f32, 64, FORWARD)));
        cr_expect(rejected(&claim, dot(&dls_bf16, 64, FORWARD)));
        cr_expect(rejected(&claim, dot(&dls_f16, 64, FORWARD)));
        cr_expect(rejected(&claim, dot(&dls_bf16, 64, IN_PAIRS)));
    }
}

Test(tolerance, a_chain_that_claims_pairs_is_rejected)
{
    dls_dot claim = {
        .terms = 1024, .depth = 10, .input = &dls_f32, .accumulator = &dls_f32};
    fill_with_lost_terms(&dls_f32, 1024);
    cr_expect_not(rejected(&claim, dot(&dls_f32, 1024, IN_PAIRS)));
    cr_expect(rejected(&claim, dot(&dls_f32, 1024, FORWARD)));
    claim.depth = 0;
    cr_expect_not(rejected(&claim, dot(&dls_f32, 1024, FORWARD)));
}

Test(tolerance, a_narrowed_input_is_rejected)
{
    dls_dot claim = {.terms = 64, .input = &dls_f32, .accumulator = &dls_f32};
    double narrow[64];
    int rejections = 0;
    for (unsigned stream = 0; stream < 50; stream++) {
        fill(&dls_f32, 0, 64, stream);
        for (int l = 0; l < 64; l++)
            narrow[l] = dls_precision_round(&dls_bf16, A[l]) * B[l];
        rejections += rejected(&claim, add(&dls_f32, narrow, 64, FORWARD));
    }
    cr_expect_geq(rejections, 45);
}

Test(tolerance, a_lost_term_is_rejected)
{
    dls_dot claim = {.terms = 1024, .input = &dls_f32, .accumulator = &dls_f32};
    for (unsigned stream = 0; stream < 50; stream++) {
        fill(&dls_f32, 0, 1024, stream);
        A[1023] = fmax(A[1023], 0.25);
        B[1023] = fmax(B[1023], 0.25);
        cr_expect(rejected(&claim, dot(&dls_f32, 1023, FORWARD)));
    }
}

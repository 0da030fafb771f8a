/* tests/tensor/test_ladder.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The steps of the ladder against the definition in float64, at awkward sizes and under
 * many orders of the threads. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/rng.h"
#include "tensor/ladder/ladder.h"
#include "tensor/tensor.h"
#ifdef DLS_BACKEND_virtual
#include "vgpu/simt.h"
#endif

/* prepare a climb */
#define OK(expr)                                                              \
    do {                                                                      \
        dls_status status_ = (expr);                                          \
        cr_assert(status_ == DLS_OK, "%s: %s", #expr, dls_status_message());  \
    } while (0)
#define CUDA_OK(expr) cr_assert_eq((int)(expr), 0, "%s", #expr)

struct climb {
    int M, N, K;
    float alpha, beta;
    float *A, *B, *C;  // as the device was given them
};

static float *numbers(size_t count, unsigned stream)
{
    float *x = malloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)dls_precision_round(&dls_bf16,
                                          2 * dls_rng_uniform(13, stream, i) - 1);
    return x;
}

static struct climb prepare(int M, int N, int K, float alpha, float beta)
{
    struct climb c = {M, N, K, alpha, beta, NULL, NULL, NULL};
    c.A = numbers((size_t)M * (size_t)K, 1);
    c.B = numbers((size_t)K * (size_t)N, 2);
    c.C = numbers((size_t)M * (size_t)N, 3);
    for (int i = 0; beta == 0 && i < M * N; i++)
        c.C[i] = NAN;
    return c;
}

/* compare a climb */
static double definition(const struct climb *c, int i, int j, double *size)
{
    double sum = 0;
    *size = 0;
    for (int l = 0; l < c->K; l++) {
        double product = (double)c->A[i * c->K + l] * c->B[l * c->N + j];
        sum += product;
        *size += fabs(product);
    }
    return sum;
}

static void compare(const struct climb *c, int step, const float *result)
{
    dls_dot dot = {.terms = c->K, .input = &dls_f32, .accumulator = &dls_f32};
    for (int i = 0; i < c->M; i++)
        for (int j = 0; j < c->N; j++) {
            double size, sum = definition(c, i, j, &size);
            double before = c->beta == 0 ? 0 : c->C[i * c->N + j];
            double want = c->alpha * sum + c->beta * before;
            double error = fabs(result[i * c->N + j] - want);
            cr_assert(error <= dls_gemm_bound(&dot, size, c->alpha, c->beta, before),
                      "step %d, M %d N %d K %d: element (%d, %d) is %.9g, expected %.9g",
                      step, c->M, c->N, c->K, i, j, result[i * c->N + j], want);
        }
}

/* climb once */
enum { BEHIND = 64 };

static void *copy_to_device(const void *host, size_t bytes)
{
    void *device;
    OK(dls_device_alloc(&device, bytes / 4 + 4, DLS_F32, DLS_MEM_OTHER));
    CUDA_OK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    return device;
}

static void *factor_to_device(const float *x, size_t count, int step)
{
    uint16_t *halves = malloc((count + 1) * sizeof *halves);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        halves[i] = (uint16_t)(bits >> 16);
    }
    int narrow = step == DLS_LADDER_TENSOR_CORE;
    void *device = copy_to_device(narrow ? (const void *)halves : x,
                                  count * (narrow ? 2 : 4));
    free(halves);
    return device;
}

static void climb(dls_ctx *ctx, int step, int M, int N, int K, float alpha, float beta)
{
    struct climb c = prepare(M, N, K, alpha, beta);
    size_t count = (size_t)M * (size_t)N;
    float *result = malloc((count + BEHIND) * sizeof *result);
    for (size_t i = 0; i < count + BEHIND; i++)
        result[i] = i < count ? c.C[i] : 4711;
    dls_ladder_product p = {M, N, K, alpha, beta, NULL, NULL, NULL};
    p.A = factor_to_device(c.A, (size_t)M * (size_t)K, step);
    p.B = factor_to_device(c.B, (size_t)K * (size_t)N, step);
    p.C = copy_to_device(result, (count + BEHIND) * 4);
    OK(dls_ladder_multiply(ctx, step, &p));
    OK(dls_ctx_sync(ctx));
    CUDA_OK(cudaMemcpy(result, p.C, (count + BEHIND) * 4, cudaMemcpyDeviceToHost));
    compare(&c, step, result);
    for (size_t i = count; i < count + BEHIND; i++)
        cr_assert_eq(result[i], 4711, "step %d wrote behind C", step);
    /* free a climb */
    dls_device_free((void *)p.A);
    dls_device_free((void *)p.B);
    dls_device_free(p.C);
    free(c.A);
    free(c.B);
    free(c.C);
    free(result);
}

/* test the values of the ladder */
static const int sizes[][3] = {
    {1, 1, 1},    {1, 7, 5},      {13, 1, 3},     {2, 3, 0},      {67, 45, 33},
    {32, 32, 32}, {128, 128, 16}, {131, 137, 19}, {36, 132, 100}, {129, 8, 4}};

static void climb_all(int step)
{
    dls_ctx ctx;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        climb(&ctx, step, sizes[s][0], sizes[s][1], sizes[s][2], 1, 0);
        climb(&ctx, step, sizes[s][0], sizes[s][1], sizes[s][2], -0.375f, 1.5f);
    }
    dls_ctx_destroy(&ctx);
}

#define LADDER_TEST(step)                         \
    Test(ladder, values_of_step_##step)           \
    {                                             \
        climb_all(step);                          \
    }

LADDER_TEST(1)
LADDER_TEST(2)
LADDER_TEST(3)
LADDER_TEST(4)
LADDER_TEST(5)
LADDER_TEST(6)
LADDER_TEST(7)
LADDER_TEST(8)
LADDER_TEST(9)

#ifdef DLS_BACKEND_virtual
Test(ladder, fifty_orders_of_the_threads)
{
    dls_ctx ctx;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    for (unsigned long long seed = 0; seed < 50; seed++)
        for (int step = 1; step <= DLS_LADDER_STEPS; step++) {
            dls_simt_configure(1 + (int)(seed & 1), seed);
            climb(&ctx, step, 35, 24, 72, 1, 0);
        }
    dls_ctx_destroy(&ctx);
}
#endif

/* test what the ladder does not read */
Test(ladder, what_is_not_read)
{
    dls_ctx ctx;
    float before[6] = {1, 2, 3, 4, 5, 6}, after[6];
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    for (int step = 1; step <= DLS_LADDER_STEPS; step++) {
        dls_ladder_product p = {2, 3, 1000, 0, 0.5f, NULL, NULL, NULL};
        p.C = copy_to_device(before, sizeof before);
        OK(dls_ladder_multiply(&ctx, step, &p));
        OK(dls_ctx_sync(&ctx));
        CUDA_OK(cudaMemcpy(after, p.C, sizeof after, cudaMemcpyDeviceToHost));
        for (int i = 0; i < 6; i++)
            cr_expect_eq(after[i], before[i] / 2, "step %d", step);
        dls_device_free(p.C);
    }
    dls_ctx_destroy(&ctx);
}

/* test the refusals of the ladder */
Test(ladder, refusals)
{
    dls_ctx ctx;
    dls_ladder_product p = {1, 1, -1, 1, 0, NULL, NULL, NULL};
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    cr_expect_eq(dls_ladder_multiply(&ctx, 0, &p), DLS_ERR_STATE);
    cr_expect_eq(dls_ladder_multiply(&ctx, 1, &p), DLS_ERR_STATE);
    cr_expect_str_eq(dls_status_message(), "ladder: negative size: M 1, N 1, K -1");
    p.K = 1;
    p.N = 65535 * 8 + 1;
    cr_expect_eq(dls_ladder_multiply(&ctx, 1, &p), DLS_ERR_STATE);
    cr_expect_str_eq(dls_status_message(),
                     "ladder: N 524281: step 1 takes at most 524280 columns");
    p.N = 0;
    OK(dls_ladder_multiply(&ctx, 1, &p));
    dls_ctx_destroy(&ctx);
}

/* tests/tensor/test_gemm.c: from chapters/02-tensor-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Products against the definition in float64: by cuBLAS and by both kernels, in f32 and
 * f64, on plain C and on emulated threads, in all transpositions, at awkward sizes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/rng.h"
#include "tensor/bf16.h"
#include "tensor/tensor.h"

/* describe a product to test */
struct product {
    dls_gemm_kind kind;
    dls_dtype dtype, result; // of A and B, of C
    int trans_a, trans_b, M, N, K;
    double alpha, beta;
};

#define OK(expr)                                                              \
    do {                                                                      \
        dls_status status_ = (expr);                                          \
        cr_assert(status_ == DLS_OK, "%s: %s", #expr, dls_status_message());  \
    } while (0)
#define CUDA_OK(expr) cr_assert_eq((int)(expr), 0, "%s", #expr)

/* move a matrix to the device */
static const dls_precision *precision_of(dls_dtype dtype)
{
    return dtype == DLS_F32 ? &dls_f32 : dtype == DLS_F64 ? &dls_f64 : &dls_bf16;
}

static double *random_matrix(size_t count, dls_dtype dtype, uint64_t stream)
{
    double *x = malloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++) {
        x[i] = dls_precision_round(precision_of(dtype),
                                   2 * dls_rng_uniform(11, stream, i) - 1);
    }
    return x;
}

static void *to_device(const double *x, size_t count, dls_dtype dtype)
{
    void *device, *host = malloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++)
        switch (dtype) {
        case DLS_F64: ((double *)host)[i] = x[i]; break;
        case DLS_BF16: ((dls_bfloat16 *)host)[i] = dls_narrow_bf16((float)x[i]); break;
        default: ((float *)host)[i] = (float)x[i];
        }
    OK(dls_device_alloc(&device, count, dtype, DLS_MEM_OTHER));
    if (count)
        CUDA_OK(cudaMemcpy(device, host, count * dls_dtype_size(dtype),
                           cudaMemcpyHostToDevice));
    free(host);
    return device;
}

static double *from_device(const void *device, size_t count, dls_dtype dtype)
{
    double *x = malloc((count + 1) * sizeof *x);
    void *host = malloc((count + 1) * sizeof *x);
    CUDA_OK(cudaMemcpy(host, device, count * dls_dtype_size(dtype),
                       cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < count; i++)
        switch (dtype) {
        case DLS_F64: x[i] = ((double *)host)[i]; break;
        case DLS_BF16: x[i] = dls_widen_bf16(((dls_bfloat16 *)host)[i]); break;
        default: x[i] = ((float *)host)[i];
        }
    free(host);
    return x;
}

/* compute the reference */
/* One element of the result, and through *size the sum of |a| |b|. */
static double reference(const struct product *p, const double *A, const double *B,
                        double c, int i, int j, double *size)
{
    double sum = 0, absolute = 0;
    for (int l = 0; p->alpha != 0 && l < p->K; l++) {
        double a = p->trans_a ? A[l * p->M + i] : A[i * p->K + l];
        double b = p->trans_b ? B[j * p->K + l] : B[l * p->N + j];
        sum += a * b;
        absolute += fabs(a * b);
    }
    *size = absolute;
    return p->alpha * sum + (p->beta != 0 ? p->beta * c : 0);
}

/* compare with the reference */
static void compare(const struct product *p, const double *A, const double *B,
                    const double *before, const double *after)
{
    dls_dot subject = {.terms = p->K, .depth = p->K, .input = precision_of(p->dtype),
                       .accumulator = precision_of(dls_dtype_accumulator(p->dtype)),
                       .output = precision_of(p->result)};
    dls_dot self = {.terms = p->K, .input = &dls_f64, .accumulator = &dls_f64};
    for (int i = 0; i < p->M; i++)
        for (int j = 0; j < p->N; j++) {
            double size, c = before[i * p->N + j];
            double want = reference(p, A, B, c, i, j, &size);
            double allowed = dls_gemm_bound(&subject, size, p->alpha, p->beta, c) +
                             dls_gemm_bound(&self, size, p->alpha, p->beta, c);
            double error = fabs(after[i * p->N + j] - want);
            cr_assert(error <= allowed,
                      "kind %d %s trans %d%d M %d N %d K %d: element (%d, %d) is %.17g, "
                      "expected %.17g", p->kind, dls_dtype_name(p->dtype), p->trans_a,
                      p->trans_b, p->M, p->N, p->K, i, j, after[i * p->N + j], want);
        }
}

/* run one product */
/* A and B may be NULL: random ones are then made. C is random, or NaN when beta is 0. */
static void run(dls_ctx *ctx, const struct product *p)
{
    size_t a = (size_t)p->M * (size_t)p->K, b = (size_t)p->K * (size_t)p->N;
    size_t c = (size_t)p->M * (size_t)p->N;
    double *A = random_matrix(a, p->dtype, 1), *B = random_matrix(b, p->dtype, 2);
    double *C = random_matrix(c, p->result, 3);
    for (size_t i = 0; p->beta == 0 && i < c; i++)
        C[i] = NAN;
    for (size_t i = 0; p->alpha == 0 && i < a; i++)
        A[i] = NAN;
    void *dA = to_device(A, a, p->dtype), *dB = to_device(B, b, p->dtype);
    void *dC = to_device(C, c, p->result);
    CUDA_OK(cudaDeviceSynchronize());
    ctx->dtype = p->dtype;
    OK(dls_gemm_with(ctx, p->kind, p->trans_a, p->trans_b, p->M, p->N, p->K, p->alpha, dA,
                     dB, p->beta, dC, p->result));
    OK(dls_ctx_sync(ctx));
    double *result = from_device(dC, c, p->result);
    compare(p, A, B, C, result);
    /* free the matrices of a test */
    dls_device_free(dA);
    dls_device_free(dB);
    dls_device_free(dC);
    free(A);
    free(B);
    free(C);
    free(result);
}

/* run all transpositions */
static const int sizes[][3] = {{1, 1, 1},   {1, 7, 5},    {13, 1, 3},  {2, 3, 0},
                               {17, 31, 1}, {16, 16, 16}, {33, 47, 19}, {64, 8, 37}};

static void run_all(const char *kernels, dls_gemm_kind kind, dls_dtype dtype,
                    dls_dtype result)
{
    dls_ctx ctx;
    setenv("DLS_KERNELS", kernels, 1);
    OK(dls_ctx_create(&ctx, 0, dtype));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int trans = 0; trans < 4; trans++) {
            struct product p = {kind, dtype, result, trans & 1, trans >> 1, sizes[s][0],
                                sizes[s][1], sizes[s][2], 1, 0};
            run(&ctx, &p);
            p.alpha = -0.375;
            p.beta = 1;
            run(&ctx, &p);
        }
    dls_ctx_destroy(&ctx);
}

/* test the products */
static void run_wide(const char *kernels, dls_gemm_kind kind)
{
    run_all(kernels, kind, DLS_F32, DLS_F32);
    run_all(kernels, kind, DLS_F64, DLS_F64);
}

static void run_bf16(const char *kernels, dls_gemm_kind kind)
{
    run_all(kernels, kind, DLS_BF16, DLS_BF16);
    run_all(kernels, kind, DLS_BF16, DLS_F32);
}

Test(tensor, gemm_cublas) { run_wide("host", DLS_GEMM_CUBLAS); }
Test(tensor, gemm_cublas_bf16) { run_bf16("host", DLS_GEMM_CUBLAS); }
Test(tensor, gemm_naive_host) { run_wide("host", DLS_GEMM_NAIVE); }
Test(tensor, gemm_naive_host_bf16) { run_bf16("host", DLS_GEMM_NAIVE); }
Test(tensor, gemm_naive_simt) { run_wide("simt", DLS_GEMM_NAIVE); }
Test(tensor, gemm_naive_simt_bf16) { run_bf16("simt", DLS_GEMM_NAIVE); }
Test(tensor, gemm_tiled_host) { run_wide("host", DLS_GEMM_TILED); }
Test(tensor, gemm_tiled_host_bf16) { run_bf16("host", DLS_GEMM_TILED); }
Test(tensor, gemm_tiled_simt) { run_wide("simt", DLS_GEMM_TILED); }
Test(tensor, gemm_tiled_simt_bf16) { run_bf16("simt", DLS_GEMM_TILED); }

/* test what is not read */
static void run_special(const char *kernels, dls_gemm_kind kind)
{
    dls_ctx ctx;
    double A[4] = {1, NAN, 3, 4}, B[4] = {0, 1, 0, 1}, *C;
    setenv("DLS_KERNELS", kernels, 1);
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    for (int dtype = 0; dtype < DLS_DTYPES; dtype++)
        run(&ctx, &(struct product){kind, (dls_dtype)dtype, (dls_dtype)dtype, 0, 1, 5, 3,
                                     4, 0, 0.5});
    void *dA = to_device(A, 4, DLS_F32), *dB = to_device(B, 4, DLS_F32), *dC;
    ctx.dtype = DLS_F32;
    OK(dls_device_alloc(&dC, 4, DLS_F32, DLS_MEM_OTHER));
    CUDA_OK(cudaDeviceSynchronize());
    OK(dls_gemm_with(&ctx, kind, 0, 0, 2, 2, 2, 1, dA, dB, 0, dC, DLS_F32));
    OK(dls_ctx_sync(&ctx));
    C = from_device(dC, 4, DLS_F32);
    cr_expect(isnan(C[0]) && isnan(C[1]), "a NaN of A was lost");
    cr_expect(C[2] == 0 && C[3] == 7, "a NaN spread to another row");
    free(C);
}

Test(tensor, gemm_special_values)
{
    run_special("host", DLS_GEMM_CUBLAS);
    run_special("host", DLS_GEMM_NAIVE);
}

Test(tensor, gemm_special_values_simt)
{
    run_special("simt", DLS_GEMM_NAIVE);
    run_special("simt", DLS_GEMM_TILED);
}

/* test gemm errors */
Test(tensor, gemm_by_environment)
{
    dls_ctx ctx;
    float one = 1;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    setenv("DLS_GEMM", "tield", 1);
    cr_expect_eq(dls_gemm(&ctx, 0, 0, 1, 1, 0, 1, &one, &one, 0, &one), DLS_ERR_INPUT);
    cr_expect_str_eq(dls_status_message(), "DLS_GEMM: expected cublas, naive or tiled, "
                                           "got \"tield\"; did you mean tiled?");
    setenv("DLS_GEMM", "naive", 1);
    cr_expect_eq(dls_gemm(&ctx, 0, 0, 2, 2, -1, 1, 0, 0, 0, 0), DLS_ERR_STATE);
    cr_expect_str_eq(dls_status_message(), "gemm: negative size: M 2, N 2, K -1");
    OK(dls_gemm(&ctx, 0, 0, 0, 5, 3, 1, NULL, NULL, 0, NULL));
    cr_expect_eq(dls_gemm_into(&ctx, 0, 0, 1, 1, 1, 1, &one, &one, 0, &one, DLS_BF16),
                 DLS_ERR_INPUT);
    cr_expect_str_eq(dls_status_message(),
                     "gemm: a product of f32 matrices can not be bf16");
    cr_expect_eq(dls_gemm(&ctx, 0, 0, 1, 65535 * 32 + 1, 1, 1, 0, 0, 0, 0),
                 DLS_ERR_STATE);
    cr_expect_str_eq(dls_status_message(),
                     "gemm: N 2097121: this kernel takes at most 2097120 columns");
    dls_ctx_destroy(&ctx);
}

enum { SIDE = 384 };  // smaller ones take as long as a launch, whoever computes them

static double seconds_of(dls_ctx *ctx, dls_gemm_kind kind, int trans_b, void *x, void *y)
{
    cudaEvent_t start, stop;
    float ms;
    CUDA_OK(cudaEventCreate(&start));
    CUDA_OK(cudaEventCreate(&stop));
    // warm up
    OK(dls_gemm_with(ctx, kind, 0, 0, SIDE, SIDE, SIDE, 1, x, x, 0, y, DLS_F32));
    CUDA_OK(cudaEventRecord(start, ctx->stream));
    OK(dls_gemm_with(ctx, kind, 0, trans_b, SIDE, SIDE, SIDE, 1, x, x, 0, y, DLS_F32));
    CUDA_OK(cudaEventRecord(stop, ctx->stream));
    OK(dls_ctx_sync(ctx));
    CUDA_OK(cudaEventElapsedTime(&ms, start, stop));
    return ms * 1e-3;
}

Test(tensor, gemm_virtual_time_follows_the_traffic)
{
    dls_ctx ctx;
    void *x, *y;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    OK(dls_device_alloc(&x, SIDE * SIDE, DLS_F32, DLS_MEM_OTHER));
    OK(dls_device_alloc(&y, SIDE * SIDE, DLS_F32, DLS_MEM_OTHER));
    CUDA_OK(cudaMemset(x, 0, SIDE * SIDE * sizeof(float)));
    CUDA_OK(cudaDeviceSynchronize());
    double cublas = seconds_of(&ctx, DLS_GEMM_CUBLAS, 0, x, y);
    double tiled = seconds_of(&ctx, DLS_GEMM_TILED, 1, x, y);
    double naive = seconds_of(&ctx, DLS_GEMM_NAIVE, 0, x, y);
    double scattered = seconds_of(&ctx, DLS_GEMM_NAIVE, 1, x, y);
    cr_expect(cublas < tiled && tiled < naive && naive < scattered);
    dls_ctx_destroy(&ctx);
}

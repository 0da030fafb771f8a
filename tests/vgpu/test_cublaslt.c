/* tests/vgpu/test_cublaslt.c: from chapters/A-virtual-gpu-blaslt.md. Edit the chapter, or edit here and run "make untangle". */
/* cublasLt: layouts, types, epilogues and refusals. */
#include <criterion/criterion.h>
#include <cublasLt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)
#define BAD(expr) cr_expect_eq((expr), CUBLAS_STATUS_INVALID_VALUE, "%s", #expr)

/* describe a test product */
enum { M = 5, N = 4, K = 3, LD = 8 };

typedef struct test {
    cublasLtHandle_t h;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c, d;
} test;

static cublasLtMatrixLayout_t layout(cudaDataType type, int rows, int columns, int order)
{
    cublasLtMatrixLayout_t l;
    OK(cublasLtMatrixLayoutCreate(&l, type, (uint64_t)rows, (uint64_t)columns, LD));
    OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER, &order,
                                        sizeof order));
    return l;
}

/* bits: orders of A, B, C, D; then transpositions of A and B. */
static test make(cudaDataType in, cudaDataType out, cublasComputeType_t compute,
                 cudaDataType scale, int bits)
{
    test t;
    int32_t ta = bits >> 4 & 1, tb = bits >> 5 & 1;
    OK(cublasLtCreate(&t.h));
    OK(cublasLtMatmulDescCreate(&t.desc, compute, scale));
    OK(cublasLtMatmulDescSetAttribute(t.desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, 4));
    OK(cublasLtMatmulDescSetAttribute(t.desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, 4));
    t.a = layout(in, ta ? K : M, ta ? M : K, bits & 1);
    t.b = layout(in, tb ? N : K, tb ? K : N, bits >> 1 & 1);
    t.c = layout(out, M, N, bits >> 2 & 1);
    t.d = layout(out, M, N, bits >> 3 & 1);
    return t;
}

static void *shared(size_t bytes)
{
    void *p;
    OK(cudaMallocManaged(&p, bytes, cudaMemAttachGlobal));
    return p;
}

static cublasStatus_t multiply(const test *t, const void *alpha, const void *A,
                               const void *B, const void *beta, const void *C, void *D)
{
    return cublasLtMatmul(t->h, t->desc, alpha, A, t->a, B, t->b, beta, C, t->c, D, t->d,
                          NULL, NULL, 0, NULL);
}

/* test every order and transposition */
static float value(int which, int i, int j)
{
    return (float)((3 * i + 5 * j + which) % 7 - 3);
}

/* Writes the matrix as the layout says: by rows or columns, transposed or not. */
static float *stored(int which, int rows, int columns, int order, int turned)
{
    float *p = shared(LD * LD * sizeof *p);
    for (int i = 0; i < LD * LD; i++)
        p[i] = NAN;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            p[order != turned ? i * LD + j : i + j * LD] = value(which, i, j);
    return p;
}

static void check(int bits, int separate)
{
    test t = make(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, bits);
    int od = bits >> 3 & 1;
    float *A = stored(1, M, K, bits & 1, bits >> 4 & 1), alpha = 2, beta = -1;
    float *B = stored(2, K, N, bits >> 1 & 1, bits >> 5 & 1);
    float *C = stored(3, M, N, bits >> 2 & 1, 0), *D = C;
    if (separate)
        D = stored(0, 0, 0, 0, 0);
    OK(multiply(&t, &alpha, A, B, &beta, C, D));
    OK(cudaDeviceSynchronize());
    int numbers = 0;
    for (int i = 0; i < LD * LD; i++)
        numbers += !isnan(D[i]);
    cr_expect_eq(numbers, M * N, "gaps were written, layout %x", bits);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float want = -value(3, i, j), got = D[od ? i * LD + j : i + j * LD];
            for (int l = 0; l < K; l++)
                want += 2 * value(1, i, l) * value(2, l, j);
            cr_expect_eq(got, want, "layout %x, (%d, %d): %g, not %g", bits, i, j,
                         (double)got, (double)want);
        }
}

Test(vgpu, described_products_follow_their_layouts)
{
    for (int bits = 0; bits < 64; bits++) {
        check(bits, 1);
        if ((bits >> 2 & 1) == (bits >> 3 & 1))
            check(bits, 0); // in place
    }
}

/* test quantised products */
Test(vgpu, int8_products_are_scaled_rounded_and_clipped)
{
    static const float scales[] = {0.001f, 0.01f, -0.01f, 2.5f / 30000};
    static const int want[] = {30, 127, -128, 2};
    test t = make(CUDA_R_8I, CUDA_R_8I, CUBLAS_COMPUTE_32I, CUDA_R_32F, 16);
    signed char *A = shared(LD * LD), *B = shared(LD * LD), *D = shared(LD * LD);
    float zero = 0;
    memset(A, 100, LD * LD);
    memset(B, 100, LD * LD);
    for (int i = 0; i < 4; i++) {
        OK(multiply(&t, &scales[i], A, B, &zero, NULL, D));
        OK(cudaDeviceSynchronize());
        cr_expect_eq(D[0], want[i], "%d, not %d", D[0], want[i]);
    }
}

#ifdef DLS_BACKEND_virtual // sizes that no tensor core likes
Test(vgpu, fp8_products_take_a_scale_per_matrix)
{
    test t = make(CUDA_R_8F_E4M3, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 16);
    unsigned char *A = shared(LD * LD), *B = shared(LD * LD);
    float *D = shared(LD * LD * sizeof *D), *scale = shared(8), one = 1, zero = 0;
    void *p = scale;
    memset(A, 0x38, LD * LD); // 1 in e4m3: exponent 7 of bias 7
    memset(B, 0x40, LD * LD); // 2
    scale[0] = 0.25f;
    OK(cublasLtMatmulDescSetAttribute(t.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p,
                                      sizeof p));
    OK(multiply(&t, &one, A, B, &zero, NULL, D));
    OK(cudaDeviceSynchronize());
    cr_expect_eq(D[0], 0.25f * 1 * 2 * K);
    test wrong = make(CUDA_R_8F_E4M3, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 0);
    cr_expect_eq(multiply(&wrong, &one, A, B, &zero, NULL, D),
                 CUBLAS_STATUS_NOT_SUPPORTED, "A is not transposed");
}
#endif

/* test epilogues forward */
#ifdef DLS_BACKEND_virtual
static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void set_epilogue(test *t, uint32_t e, void *bias, void *aux, int64_t ld)
{
    OK(cublasLtMatmulDescSetAttribute(t->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, 4));
    OK(cublasLtMatmulDescSetAttribute(t->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                      8));
    OK(cublasLtMatmulDescSetAttribute(t->desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                                      &aux, 8));
    OK(cublasLtMatmulDescSetAttribute(t->desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld,
                                      8));
}

static double plain(int i, int j)
{
    double sum = 0;
    for (int l = 0; l < K; l++)
        sum += (double)value(1, i, l) * (double)value(2, l, j);
    return sum;
}

static void check_forward(uint32_t e)
{
    test t = make(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 0);
    float *A = stored(1, M, K, 0, 0), *B = stored(2, K, N, 0, 0), half = 0.5f, zero = 0;
    float *D = shared(LD * LD * 4), *bias = shared(M * 4), *aux = shared(LD * LD * 4);
    unsigned char *bits = shared(N * 128 / 8);
    int is_relu = (e & 2) != 0;
    for (int i = 0; i < M; i++)
        bias[i] = (float)(i - 2) * 0.25f;
    set_epilogue(&t, e, bias, is_relu ? (void *)bits : aux, is_relu ? 128 : LD);
    OK(multiply(&t, &half, A, B, &zero, NULL, D));
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            /* compare an epilogue with its formula */
            double v = 0.5 * plain(i, j) + (e & 4 ? (double)bias[i] : 0);
            double want = is_relu ? fmax(v, 0) : e & 32 ? gelu(v) : v;
            double got = (double)D[i + j * LD];
            double u = 0.79788456 * (v + 0.044715 * v * v * v);
            double units = e & 32 ? 6 + 10 * fabs(u) : 1;
            cr_expect(fabs(got - want) <= 0x1p-24 * units * fabs(want) + 0x1p-120,
                      "epilogue %u, (%d, %d): %g, not %g", e, i, j, got, want);
            if ((e & 128) && !is_relu)
                cr_expect_eq((double)aux[i + j * LD], v, "what GELU was given");
            if ((e & 128) && is_relu)
                cr_expect_eq(bits[(i + j * 128) / 8] >> i % 8 & 1, v > 0);
        }
}

Test(vgpu, epilogues_add_a_bias_and_apply_an_activation)
{
    static const uint32_t all[] = {
        CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU,
        CUBLASLT_EPILOGUE_RELU_BIAS, CUBLASLT_EPILOGUE_RELU_AUX,
        CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_GELU,
        CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX,
        CUBLASLT_EPILOGUE_GELU_AUX_BIAS};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_forward(all[i]);
}
#endif

/* test epilogues backward */
#ifdef DLS_BACKEND_virtual
static double slope(double x)
{
    const double h = 0x1p-12;
    return (gelu(x + h) - gelu(x - h)) / (2 * h);
}

static void check_backward(uint32_t e)
{
    test t = make(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 0);
    float *A = stored(1, M, K, 0, 0), *B = stored(2, K, N, 0, 0), one = 1, zero = 0;
    float *D = shared(LD * LD * 4), *bias = shared(M * 4), *aux = shared(LD * LD * 4);
    unsigned char *bits = shared(N * 128 / 8);
    int is_relu = (e & 8) != 0;
    for (int i = 0; i < LD * LD; i++)
        aux[i] = (float)(i % 13 - 6) * 0.5f;
    memset(bits, 0x15, N * 128 / 8); // rows 0, 2 and 4
    set_epilogue(&t, e, bias, is_relu ? (void *)bits : aux, is_relu ? 128 : LD);
    OK(multiply(&t, &one, A, B, &zero, NULL, D));
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < M; i++) {
        double sum = 0, size = 0;
        for (int j = 0; j < N; j++) {
            double g = plain(i, j), x = (double)aux[i + j * LD];
            double want = is_relu ? (i % 2 ? 0 : g) : g * slope(x);
            double bound = is_relu ? 0 : fabs(g) * (0x1p-25 + 14 * 0x1p-24);
            cr_expect(fabs((double)D[i + j * LD] - want) <= bound, "%u, %d", e, i);
            sum += want;
            size += fabs(g);
        }
        if (e & 16)
            cr_expect(fabs((double)bias[i] - sum) <= size * (0x1p-25 + 14 * 0x1p-24));
    }
}

Test(vgpu, epilogues_go_back_through_an_activation)
{
    check_backward(CUBLASLT_EPILOGUE_DGELU);
    check_backward(CUBLASLT_EPILOGUE_DGELU_BGRAD);
    check_backward(CUBLASLT_EPILOGUE_DRELU);
    check_backward(CUBLASLT_EPILOGUE_DRELU_BGRAD);
}

Test(vgpu, the_gradient_of_a_bias_is_a_sum_over_k)
{
    float *A = stored(1, M, K, 0, 1), *B = stored(2, K, N, 0, 0), one = 1, zero = 0;
    float *D = shared(LD * LD * 4), *bias = shared(LD * 4);
    for (int of_b = 0; of_b < 2; of_b++) {
        test t = make(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 16);
        set_epilogue(&t, of_b ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_BGRADA, bias,
                     NULL, 0);
        OK(multiply(&t, &one, A, B, &zero, NULL, D));
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < (of_b ? N : M); i++) {
            float want = 0;
            for (int l = 0; l < K; l++)
                want += of_b ? value(2, l, i) : value(1, i, l);
            cr_expect_eq(bias[i], want);
        }
        cr_expect_eq((double)D[0], plain(0, 0));
    }
}
#endif

/* test objects of cublaslt */
Test(vgpu, attributes_have_exact_sizes)
{
    cublasLtMatmulDesc_t d;
    cublasLtMatrixLayout_t l;
    cublasLtMatmulPreference_t p;
    int32_t i = 77;
    uint64_t q = 0;
    size_t w = 0;
    OK(cublasLtMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &i, 4));
    BAD(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &q, 8));
    BAD(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, NULL, 4));
    BAD(cublasLtMatmulDescSetAttribute(NULL, CUBLASLT_MATMUL_DESC_TRANSA, &i, 4));
    BAD(cublasLtMatmulDescSetAttribute(d, (cublasLtMatmulDescAttributes_t)999, &i, 4));
    i = 0;
    OK(cublasLtMatmulDescGetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &i, 4, NULL));
    cr_expect_eq(i, 77);
    OK(cublasLtMatmulDescGetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, NULL, 0, &w));
    cr_expect_eq(w, 4);
    BAD(cublasLtMatmulDescGetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &q, 8, &w));
    BAD(cublasLtMatmulDescGetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, NULL, 0, NULL));
    BAD(cublasLtMatmulDescCreate(NULL, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 4, 5, 3)); // judged by the product
    OK(cublasLtMatrixLayoutGetAttribute(l, CUBLASLT_MATRIX_LAYOUT_COLS, &q, 8, &w));
    cr_expect(q == 5 && w == 8);
    OK(cublasLtMatmulPreferenceCreate(&p));
    BAD(cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &i, 4));
    OK(cublasLtMatmulDescDestroy(d));
    OK(cublasLtMatrixLayoutDestroy(l));
    OK(cublasLtMatmulPreferenceDestroy(p));
    OK(cublasLtMatmulDescDestroy(NULL));
    BAD(cublasLtCreate(NULL));
    BAD(cublasLtDestroy(NULL));
}

/* test refusals of cublaslt */
static void expect_both(const test *t, cublasStatus_t want, const char *what)
{
    static float *x;
    float one = 1;
    cublasLtMatmulPreference_t p;
    cublasLtMatmulHeuristicResult_t r;
    int n = -1;
    if (x == NULL)
        x = shared(4096);
    memset(x, 0, 4096);
    OK(cublasLtMatmulPreferenceCreate(&p));
    cr_expect_eq(multiply(t, &one, x, x + 128, &one, x + 256, x + 512), want, "%s", what);
    cr_expect_eq(cublasLtMatmulAlgoGetHeuristic(t->h, t->desc, t->a, t->b, t->c, t->d, p,
                                                1, &r, &n), want, "%s", what);
    cr_expect_eq(n, want == CUBLAS_STATUS_SUCCESS, "%s", what);
}

#define SET(object, Kind, attribute, T, v)                                              \
    do {                                                                                \
        T value_ = (T)(v);                                                              \
        OK(cublasLt##Kind##SetAttribute(object, attribute, &value_, sizeof value_));    \
    } while (0)

static test good(void)
{
    return make(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 0);
}

#ifdef DLS_BACKEND_virtual
Test(vgpu, described_products_refuse_what_does_not_fit)
{
    const cublasStatus_t bad = CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t not = CUBLAS_STATUS_NOT_SUPPORTED;
    test t = good();
    expect_both(&t, CUBLAS_STATUS_SUCCESS, "nothing wrong");
    SET(t.b, MatrixLayout, CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t, K + 1);
    expect_both(&t, bad, "inner sizes differ");
    t = good();
    SET(t.a, MatrixLayout, CUBLASLT_MATRIX_LAYOUT_LD, int64_t, M - 1);
    expect_both(&t, bad, "leading dimension");
    t = good();
    SET(t.a, MatrixLayout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, int32_t, 2);
    expect_both(&t, bad, "batches differ");
    t = good();
    SET(t.a, MatrixLayout, CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t, 2);
    expect_both(&t, not, "an order of tiles");
    t = good();
    SET(t.desc, MatmulDesc, CUBLASLT_MATMUL_DESC_SCALE_TYPE, int32_t, CUDA_R_64F);
    expect_both(&t, not, "scalars of another type");
    t = good();
    SET(t.desc, MatmulDesc, CUBLASLT_MATMUL_DESC_TRANSA, int32_t, 77);
    expect_both(&t, bad, "no such operation");
    t = good();
    SET(t.desc, MatmulDesc, CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t, 12345);
    expect_both(&t, bad, "no such epilogue");
    t = good();
    SET(t.desc, MatmulDesc, CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t,
        CUBLASLT_EPILOGUE_BIAS);
    expect_both(&t, bad, "a bias without a pointer");
    float dummy;
    t = good();
    set_epilogue(&t, CUBLASLT_EPILOGUE_GELU_AUX, NULL, &dummy, M);
    expect_both(&t, bad, "an auxiliary leading dimension that 8 does not divide");
    set_epilogue(&t, CUBLASLT_EPILOGUE_RELU_AUX, NULL, &dummy, 64);
    expect_both(&t, bad, "bits by 128");
}
#endif

Test(vgpu, described_products_need_a_handle_and_pointers)
{
    float *x = shared(4096), one = 1, zero = 0;
    cublasLtMatmulPreference_t p;
    cublasLtMatmulHeuristicResult_t r;
    int n;
    test t = good();
    cr_expect_eq(cublasLtMatmul(NULL, t.desc, &one, x, t.a, x, t.b, &zero, x, t.c, x, t.d,
                                NULL, NULL, 0, NULL), CUBLAS_STATUS_NOT_INITIALIZED);
    BAD(multiply(&t, NULL, x, x, &zero, x, x));
    BAD(multiply(&t, &one, NULL, x, &zero, x, x));
    BAD(multiply(&t, &one, x, x, &zero, x, NULL));
    BAD(cublasLtMatmul(t.h, NULL, &one, x, t.a, x, t.b, &zero, x, t.c, x, t.d, NULL, NULL,
                       0, NULL));
    OK(cublasLtMatmulPreferenceCreate(&p));
    BAD(cublasLtMatmulAlgoGetHeuristic(t.h, t.desc, t.a, t.b, t.c, t.d, p, 0, &r, &n));
    cr_expect_eq(cublasLtMatmulAlgoGetHeuristic(NULL, t.desc, t.a, t.b, t.c, t.d, p, 1,
                                                &r, &n), CUBLAS_STATUS_NOT_INITIALIZED);
}

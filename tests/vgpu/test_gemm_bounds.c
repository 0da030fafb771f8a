/* tests/vgpu/test_gemm_bounds.c: from chapters/A-virtual-gpu-blas-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* cuBLAS products of random numbers within bounds that follow from their formats. */
#include <criterion/criterion.h>
#include <cublas_v2.h>
#include <math.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* convert by the header */
enum { M = 7, N = 5, K = 67 };

static size_t width(cudaDataType t)
{
    return t == CUDA_R_64F ? 8 : t == CUDA_R_32F ? 4 : 2;
}

/* bf16 and fp16 by their bits: the test's own conversion, exact for normal numbers. */
static double get(cudaDataType t, const void *p, int i)
{
    unsigned short bits = ((const unsigned short *)p)[i];
    if (t == CUDA_R_64F)
        return ((const double *)p)[i];
    if (t == CUDA_R_32F)
        return (double)((const float *)p)[i];
    int digits = t == CUDA_R_16BF ? 7 : 10, bias = t == CUDA_R_16BF ? 127 : 15;
    int exponent = (bits & 0x7fff) >> digits;
    double m = bits & ((1 << digits) - 1);
    double v = exponent ? ldexp(m + (1 << digits), exponent - bias - digits)
                        : ldexp(m, 1 - bias - digits);
    return bits & 0x8000 ? -v : v;
}

static void put(cudaDataType t, void *p, int i, double v)
{
    if (t == CUDA_R_64F)
        ((double *)p)[i] = v;
    else if (t == CUDA_R_32F)
        ((float *)p)[i] = (float)v;
    else {
        int digits = t == CUDA_R_16BF ? 7 : 10, bias = t == CUDA_R_16BF ? 127 : 15, e;
        double m = v == 0 ? 0 : frexp(fabs(v), &e) * (2 << digits);
        int whole = v == 0 ? 0 : (int)rint(m) + ((e - 1 + bias - 1) << digits);
        ((unsigned short *)p)[i] = (unsigned short)(whole | (v < 0 ? 0x8000 : 0));
    }
}

/* draw random matrices */
static unsigned seed = 12345;

static double uniform(void)
{
    seed = seed * 1664525 + 1013904223;
    return (double)(seed >> 8) / (1 << 23) - 1 + 0x1p-24; // -1 to 1, never 0
}

static void *drawn(cudaDataType t, int n)
{
    void *p;
    OK(cudaMallocManaged(&p, (size_t)n * width(t), cudaMemAttachGlobal));
    for (int i = 0; i < n; i++)
        put(t, p, i, uniform());
    return p;
}

typedef struct format {
    cudaDataType in, out;
    cublasComputeType_t compute;
    double u, factor, store;
} format;

static const format formats[] = {
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 0x1p-24, 0, 0},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC, 0x1p-24, 0, 0},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, 0x1p-24, 0x1p-11, 0},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_16BF, 0x1p-24, 0x1p-8, 0},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_16F, 0x1p-24, 0x1p-11, 0},
    {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, 0x1p-24, 0, 0x1p-8},
    {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, 0x1p-24, 0, 0},
    {CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, 0x1p-24, 0, 0x1p-11},
    {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 0x1p-24, 0, 0},
    {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F, 0x1p-53, 0, 0},
};

/* test the bounds */
/* Element (i, j), and the sum of magnitudes that the bound is a share of. */
static double exact(const format *f, int ta, int tb, const void *A, const void *B,
                    double old, int i, int j, double *magnitude)
{
    double sum = 0, all = 0;
    for (int l = 0; l < K; l++) {
        double v = get(f->in, A, ta ? l + i * K : i + l * M) *
                   get(f->in, B, tb ? j + l * N : l + j * K);
        sum += v;
        all += fabs(v);
    }
    *magnitude = 0.75 * all + fabs(0.5 * old);
    return -0.75 * sum + 0.5 * old;
}

static double gamma_of(double u, int n) { return n * u / (1 - n * u); }

static void check(cublasHandle_t h, const format *f, int ta, int tb)
{
    void *A = drawn(f->in, M * K), *B = drawn(f->in, K * N), *C = drawn(f->out, M * N);
    double old[M * N], d[2] = {-0.75, 0.5};
    float s[2] = {-0.75f, 0.5f};
    int wide = f->out == CUDA_R_64F;
    for (int i = 0; i < M * N; i++)
        old[i] = get(f->out, C, i);
    OK(cublasGemmEx(h, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, M,
                    N, K, wide ? (void *)d : s, A, f->in, ta ? K : M, B, f->in,
                    tb ? N : K, wide ? (void *)(d + 1) : s + 1, C, f->out, M, f->compute,
                    CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    for (int j = 0; j < N; j++)
        for (int i = 0; i < M; i++) {
            double all, want = exact(f, ta, tb, A, B, old[i + j * M], i, j, &all);
            double share = gamma_of(f->u, K + 3) + gamma_of(0x1p-53, K + 3) +
                           2 * f->factor + f->factor * f->factor;
            double bound = share * all + f->store * (fabs(want) + share * all);
            double got = get(f->out, C, i + j * M);
            cr_expect(fabs(got - want) <= bound, "type %d to %d, %d%d: off by %g > %g",
                      (int)f->in, (int)f->out, ta, tb, got - want, bound);
        }
    OK(cudaFree(A));
    OK(cudaFree(B));
    OK(cudaFree(C));
}

Test(vgpu, products_of_random_numbers_are_within_their_bounds)
{
    cublasHandle_t h;
    OK(cublasCreate(&h));
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (int bits = 0; bits < 4; bits++)
            check(h, &formats[f], bits & 1, bits >> 1);
    OK(cublasDestroy(h));
}

/* test what rounding does */
#ifdef DLS_BACKEND_virtual
static float scaled_by_4096(cublasHandle_t h, float x, cublasComputeType_t compute)
{
    float *p, one = 1, zero = 0;
    OK(cudaMallocManaged((void **)&p, 3 * sizeof *p, cudaMemAttachGlobal));
    p[0] = x;
    p[1] = 4096;
    OK(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, p, CUDA_R_32F, 1, p + 1,
                    CUDA_R_32F, 1, &zero, p + 2, CUDA_R_32F, 1, compute,
                    CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    return p[2];
}

Test(vgpu, fast_products_round_their_factors)
{
    cublasHandle_t h;
    OK(cublasCreate(&h));
    const float fine = 1 + 0x1p-12f, coarse = 1 + 0x1p-9f;
    cr_expect_eq(scaled_by_4096(h, fine, CUBLAS_COMPUTE_32F), 4097);
    cr_expect_eq(scaled_by_4096(h, fine, CUBLAS_COMPUTE_32F_FAST_TF32), 4096);
    cr_expect_eq(scaled_by_4096(h, fine, CUBLAS_COMPUTE_32F_FAST_16BF), 4096);
    cr_expect_eq(scaled_by_4096(h, coarse, CUBLAS_COMPUTE_32F_FAST_TF32), 4104);
    cr_expect_eq(scaled_by_4096(h, coarse, CUBLAS_COMPUTE_32F_FAST_16F), 4104);
    cr_expect_eq(scaled_by_4096(h, coarse, CUBLAS_COMPUTE_32F_FAST_16BF), 4096);
    OK(cublasSetMathMode(h, CUBLAS_TF32_TENSOR_OP_MATH));
    cr_expect_eq(scaled_by_4096(h, fine, CUBLAS_COMPUTE_32F), 4096);
    cr_expect_eq(scaled_by_4096(h, fine, CUBLAS_COMPUTE_32F_PEDANTIC), 4097);
    cr_expect_eq(scaled_by_4096(h, 1 + 0x1p-11f, CUBLAS_COMPUTE_32F), 4096, "to even");
    cr_expect_eq(scaled_by_4096(h, 1 + 0x3p-11f, CUBLAS_COMPUTE_32F), 4104, "a tie: up");
}
#endif

/* test sums in half */
#ifdef DLS_BACKEND_virtual
Test(vgpu, hgemm_keeps_its_sum_in_half)
{
    enum { COUNT = 40000 };
    __half *x, one, zero;
    float f1 = 1, f0 = 0;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    put(CUDA_R_16F, &one, 0, 1);
    put(CUDA_R_16F, &zero, 0, 0);
    OK(cudaMallocManaged((void **)&x, (COUNT + 2) * sizeof *x, cudaMemAttachGlobal));
    for (int i = 0; i < COUNT; i++)
        x[i] = one;
    OK(cublasHgemm(h, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, COUNT, &one, x, COUNT, x, COUNT,
                   &zero, x + COUNT, 1));
    OK(cublasGemmEx(h, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, COUNT, &f1, x, CUDA_R_16F, COUNT,
                    x, CUDA_R_16F, COUNT, &f0, x + COUNT + 1, CUDA_R_16F, 1,
                    CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    cr_expect_eq(get(CUDA_R_16F, x, COUNT), 32768);
    cr_expect_eq(get(CUDA_R_16F, x, COUNT + 1), 40000);
}
#endif

/* test what a product leaves unread */
Test(vgpu, what_a_product_must_not_read_may_be_nan)
{
    float *x, zero = 0, one = 1, half = 0.5f;
    const cublasOperation_t no = CUBLAS_OP_N;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, 4 * sizeof *x, cudaMemAttachGlobal));
    x[0] = x[1] = NAN;
    x[2] = 6;
    OK(cublasSgemm(h, no, no, 1, 1, 1, &zero, x, 1, x, 1, &half, x + 2, 1));
    OK(cudaDeviceSynchronize());
    cr_expect_eq(x[2], 3, "alpha = 0");
    OK(cublasSgemm(h, no, no, 1, 1, 0, &one, x, 1, x, 1, &half, x + 2, 1));
    OK(cudaDeviceSynchronize());
    cr_expect_eq(x[2], 1.5f, "k = 0");
    OK(cublasSgemm(h, no, no, 1, 1, 0, &one, x, 1, x, 1, &zero, x + 1, 1));
    OK(cudaDeviceSynchronize());
    cr_expect_eq(x[1], 0, "k = 0 and beta = 0");
    x[1] = 2;
    OK(cublasSgemm(h, no, no, 1, 1, 1, &one, x, 1, x + 1, 1, &zero, x + 3, 1));
    OK(cublasSgemm(h, no, no, 0, 1, 1, &one, x, 1, x, 1, &zero, x + 2, 1));
    OK(cublasSgemm(h, no, no, 1, 0, 1, &one, x, 1, x, 1, &zero, x + 2, 1));
    OK(cudaDeviceSynchronize());
    cr_expect(isnan(x[3]), "alpha = 1 does read A");
    cr_expect_eq(x[2], 1.5f, "no rows or no columns: nothing is written");
}

/* test batches by pointers */
Test(vgpu, short_batches_may_be_given_by_pointers)
{
    unsigned short *x, **at, a[3], b[3];
    float one = 1, zero = 0;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, 16 * sizeof *x, cudaMemAttachGlobal));
    OK(cudaMallocManaged((void **)&at, 9 * sizeof *at, cudaMemAttachGlobal));
    for (int i = 0; i < 3; i++) {
        put(CUDA_R_16BF, a, i, i + 2);
        put(CUDA_R_16BF, b, i, 10);
        at[i] = x + 4 - i; // the matrices lie backwards
        at[3 + i] = x + 8;
        at[6 + i] = x + 12 + i;
        *at[i] = a[i];
        *at[3 + i] = b[i];
    }
    OK(cublasGemmBatchedEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one,
                           (const void *const *)at, CUDA_R_16BF, 1,
                           (const void *const *)(at + 3), CUDA_R_16BF, 1, &zero,
                           (void *const *)(at + 6), CUDA_R_16BF, 1, 3, CUBLAS_COMPUTE_32F,
                           CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 3; i++)
        cr_expect_eq(get(CUDA_R_16BF, x + 12, i), 10 * (i + 2));
}

/* test the modes of a handle */
Test(vgpu, a_handle_keeps_its_modes)
{
    cublasHandle_t h;
    cublasPointerMode_t pointers;
    cublasMath_t math;
    cublasAtomicsMode_t atomics;
    cudaStream_t s, got;
    int version;
    OK(cudaStreamCreate(&s));
    cr_expect_eq(cublasCreate(NULL), CUBLAS_STATUS_INVALID_VALUE);
    OK(cublasCreate(&h));
    OK(cublasGetPointerMode(h, &pointers));
    OK(cublasGetMathMode(h, &math));
    OK(cublasGetAtomicsMode(h, &atomics));
    cr_expect(pointers == CUBLAS_POINTER_MODE_HOST && math == CUBLAS_DEFAULT_MATH &&
              atomics == CUBLAS_ATOMICS_NOT_ALLOWED);
    OK(cublasSetStream(h, s));
    OK(cublasGetStream(h, &got));
    cr_expect_eq(got, s);
    OK(cublasSetMathMode(h, CUBLAS_TF32_TENSOR_OP_MATH));
    OK(cublasGetMathMode(h, &math));
    cr_expect_eq(math, CUBLAS_TF32_TENSOR_OP_MATH);
    cr_expect_eq(cublasSetPointerMode(h, (cublasPointerMode_t)2),
                 CUBLAS_STATUS_INVALID_VALUE);
    cr_expect_eq(cublasSetPointerMode(NULL, pointers), CUBLAS_STATUS_NOT_INITIALIZED);
    cr_expect_eq(cublasGetPointerMode(h, NULL), CUBLAS_STATUS_INVALID_VALUE);
    cr_expect_eq(cublasDestroy(NULL), CUBLAS_STATUS_NOT_INITIALIZED);
    OK(cublasGetVersion(h, &version));
    cr_expect_geq(version, 130000);
    cr_expect_str_eq(cublasGetStatusName(CUBLAS_STATUS_INVALID_VALUE),
                     "CUBLAS_STATUS_INVALID_VALUE");
    cr_expect_str_eq(cublasGetStatusString(CUBLAS_STATUS_INVALID_VALUE),
                     "an unsupported value or parameter was passed to the function");
    OK(cublasDestroy(h));
}

#ifdef DLS_BACKEND_virtual
Test(vgpu, a_handle_stays_on_its_device)
{
    cublasHandle_t h;
    float *x, one = 1, zero = 0, got = 0;
    int device;
    OK(cublasCreate(&h));
    OK(cudaMalloc((void **)&x, 2 * sizeof *x));
    OK(cudaMemcpy(x, &one, sizeof one, cudaMemcpyHostToDevice));
    OK(cudaSetDevice(1));
    OK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1, &zero, x + 1,
                   1));
    OK(cudaGetDevice(&device));
    cr_expect_eq(device, 1, "the caller's device is left alone");
    OK(cudaStreamSynchronize(NULL)); // device 1's: nothing ran there
    OK(cudaSetDevice(0));
    cr_expect_eq(cudaStreamQuery(NULL), cudaErrorNotReady);
    OK(cudaMemcpy(&got, x + 1, sizeof got, cudaMemcpyDeviceToHost));
    cr_expect_eq(got, 1);
}
#endif

/* test refusals of products */
typedef struct call {
    int ta, tb, m, n, k, lda, ldb, ldc, no_alpha, no_beta, no_c, batch;
    cublasStatus_t want;
} call;

Test(vgpu, products_refuse_each_bad_argument)
{
    static const call good = {0, 0, 2, 3, 4, 2, 4, 2, 0, 0, 0, 1, CUBLAS_STATUS_SUCCESS};
    const cublasStatus_t bad = CUBLAS_STATUS_INVALID_VALUE;
    float *x, one = 1;
    call all[16];
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, 64 * sizeof *x, cudaMemAttachGlobal));
    for (int i = 0; i < 16; i++) {
        all[i] = good;
        all[i].want = i == 0 || i == 14 ? CUBLAS_STATUS_SUCCESS : bad;
    }
    all[1].ta = 3, all[2].tb = -1, all[3].m = -1, all[4].n = -1, all[5].k = -1;
    all[6].lda = 1, all[7].ldb = 3, all[8].ldc = 1, all[9].no_alpha = 1;
    all[10].no_beta = 1, all[11].no_c = 1, all[12].batch = -1;
    all[13].ta = 1, all[13].lda = 3; // transposed: lda counts against k
    all[14].tb = 1, all[14].ldb = 3; // transposed: ldb counts against n
    all[15].m = 0, all[15].lda = 0;  // at least 1, even then
    for (int i = 0; i < 16; i++) {
        const call *c = &all[i];
        cr_expect_eq(cublasSgemmStridedBatched(
                         h, (cublasOperation_t)c->ta, (cublasOperation_t)c->tb, c->m,
                         c->n, c->k, c->no_alpha ? NULL : &one, x, c->lda, 0, x + 16,
                         c->ldb, 0, c->no_beta ? NULL : &one, c->no_c ? NULL : x + 32,
                         c->ldc, 0, c->batch), c->want, "case %d", i);
    }
}

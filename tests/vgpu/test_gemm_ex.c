/* tests/vgpu/test_gemm_ex.c: from chapters/A-virtual-gpu-blas-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* cublasGemmEx and the batched products against the definition, on integers. */
#include <criterion/criterion.h>
#include <cublas_v2.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* store and load test elements */
static size_t width(cudaDataType t)
{
    return t == CUDA_R_8I ? 1 : t == CUDA_R_64F ? 8 :
           t == CUDA_R_16F || t == CUDA_R_16BF ? 2 : 4;
}

static void put(cudaDataType t, void *p, size_t i, double value)
{
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    switch (t) {
    case CUDA_R_8I: ((int8_t *)p)[i] = (int8_t)value; break;
    case CUDA_R_16F: ((_Float16 *)p)[i] = (_Float16)f; break;
    case CUDA_R_16BF:
        bits = isnan(f) ? 0x7fc00000 : bits + 0x7fff + (bits >> 16 & 1);
        ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
        break;
    case CUDA_R_32I: ((int32_t *)p)[i] = isnan(f) ? INT32_MIN : (int32_t)value; break;
    case CUDA_R_64F: ((double *)p)[i] = value; break;
    default: ((float *)p)[i] = f;
    }
}

static double get(cudaDataType t, const void *p, size_t i)
{
    float f;
    uint32_t bits;
    switch (t) {
    case CUDA_R_8I: return ((const int8_t *)p)[i];
    case CUDA_R_16F: return (double)((const _Float16 *)p)[i];
    case CUDA_R_16BF:
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return f;
    case CUDA_R_32I: return ((const int32_t *)p)[i];
    case CUDA_R_64F: return ((const double *)p)[i];
    default: return ((const float *)p)[i];
    }
}

/* describe mixed test products */
typedef struct kind {
    cudaDataType in, out;
    cublasComputeType_t compute;
} kind;

static const kind kinds[] = {
    {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F},
    {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC},
    {CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F},
    {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32},
    {CUDA_R_8I, CUDA_R_32F, CUBLAS_COMPUTE_32F},
    {CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I},
    {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F},
};

/* Managed memory for a batch of matrices: integers in -8..8, and a marker in the gaps. */
static void *filled(cudaDataType t, int rows, int columns, int ld, int batch,
                    unsigned seed)
{
    size_t n = (size_t)ld * (size_t)columns * (size_t)batch;
    void *p;
    OK(cudaMallocManaged(&p, n * width(t) + 1, cudaMemAttachGlobal));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        int inside = (int)(i % (size_t)ld) < rows;
        put(t, p, i, inside ? (int)(seed >> 24) % 17 - 8 : t == CUDA_R_8I ? 99 : NAN);
    }
    return p;
}

/* multiply mixed by the definition */
typedef struct shape { int ta, tb, m, n, k, lda, ldb, ldc, batch; } shape;

static double sum_of(const shape *s, cudaDataType t, const void *A, const void *B,
                     size_t a0, size_t b0, size_t i, size_t j)
{
    double sum = 0;
    size_t lda = (size_t)s->lda, ldb = (size_t)s->ldb;
    for (size_t l = 0; l < (size_t)s->k; l++)
        sum += get(t, A, a0 + (s->ta ? l + i * lda : i + l * lda)) *
               get(t, B, b0 + (s->tb ? j + l * ldb : l + j * ldb));
    return sum;
}

static void define(const shape *s, const kind *t, double alpha, const void *A,
                   const void *B, double beta, void *C, const long long st[3])
{
    for (size_t b = 0; b < (size_t)s->batch; b++)
        for (size_t j = 0; j < (size_t)s->n; j++)
            for (size_t i = 0; i < (size_t)s->m; i++) {
                size_t at = b * (size_t)st[2] + i + j * (size_t)s->ldc;
                double v = alpha * sum_of(s, t->in, A, B, b * (size_t)st[0],
                                          b * (size_t)st[1], i, j);
                put(t->out, C, at, beta == 0 ? v : v + beta * get(t->out, C, at));
            }
}

static void check(cublasHandle_t h, const shape *s, const kind *t, int alpha, int beta)
{
    int ca = s->ta ? s->m : s->k, cb = s->tb ? s->k : s->n, ra = s->ta ? s->k : s->m;
    long long st[3] = {(long long)s->lda * ca, (long long)s->ldb * cb,
                       (long long)s->ldc * s->n};
    size_t bytes = (size_t)(st[2] * s->batch) * width(t->out);
    void *A = filled(t->in, ra, ca, s->lda, s->batch, 1), *want = malloc(bytes);
    void *B = filled(t->in, s->tb ? s->n : s->k, cb, s->ldb, s->batch, 2);
    void *C = filled(t->out, beta ? s->m : 0, s->n, s->ldc, s->batch, 3);
    float f[2] = {(float)alpha, (float)beta};
    double d[2] = {alpha, beta};
    int i[2] = {alpha, beta};
    char *scalars = t->out == CUDA_R_64F ? (char *)d : t->out == CUDA_R_32I ? (char *)i
                                                                            : (char *)f;
    memcpy(want, C, bytes);
    define(s, t, alpha, A, B, beta, want, st);
    OK(cublasGemmStridedBatchedEx(
        h, s->ta ? CUBLAS_OP_T : CUBLAS_OP_N, s->tb ? CUBLAS_OP_C : CUBLAS_OP_N, s->m,
        s->n, s->k, scalars, A, t->in, s->lda, st[0], B, t->in, s->ldb, st[1],
        scalars + (t->out == CUDA_R_64F ? 8 : 4), C, t->out, s->ldc, st[2], s->batch,
        t->compute, CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    for (size_t at = 0; at < bytes / width(t->out); at++) {
        double got = get(t->out, C, at), right = get(t->out, want, at);
        cr_assert(got == right || (isnan(got) && isnan(right)),
                  "%d×%d×%d, %d%d, type %d to %d: %g, not %g", s->m, s->n, s->k, s->ta,
                  s->tb, (int)t->in, (int)t->out, got, right);
    }
    free(want);
    OK(cudaFree(A));
    OK(cudaFree(B));
    OK(cudaFree(C));
}

/* test mixed products */
Test(vgpu, mixed_products_follow_the_definition)
{
    static const int sizes[][3] = {{1, 1, 1}, {5, 3, 7}, {33, 17, 65}, {4, 6, 0},
                                   {1, 19, 40}, {31, 1, 2}};
    cublasHandle_t h;
    OK(cublasCreate(&h));
    for (size_t t = 0; t < sizeof kinds / sizeof *kinds; t++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int bits = 0; bits < 16; bits++) {
                shape s = {bits & 1, bits >> 1 & 1, sizes[i][0], sizes[i][1],
                           sizes[i][2], .batch = bits & 4 ? 3 : 1};
                s.lda = ((s.ta ? s.k : s.m) + 4) / 4 * 4;
                s.ldb = ((s.tb ? s.n : s.k) + 7) / 4 * 4;
                s.ldc = (s.m + 5) / 4 * 4;
                check(h, &s, &kinds[t], bits & 4 ? 2 : -1, bits & 8 ? 0 : 3);
            }
    OK(cublasDestroy(h));
}

/* test int8 extremes */
Test(vgpu, mixed_products_of_int8_extremes_are_exact)
{
    const int k = 131068;
    cublasHandle_t h;
    int8_t *x;
    int32_t *c, one = 1, zero = 0;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, (size_t)k, cudaMemAttachGlobal));
    OK(cudaMallocManaged((void **)&c, sizeof *c, cudaMemAttachGlobal));
    memset(x, -128, (size_t)k);
    OK(cublasGemmEx(h, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, k, &one, x, CUDA_R_8I, k, x,
                    CUDA_R_8I, k, &zero, c, CUDA_R_32I, 4, CUBLAS_COMPUTE_32I,
                    CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    cr_assert_eq(*c, 16384 * k);
}

/* test pointer batches and modes */
Test(vgpu, mixed_pointer_batches_read_pointers_and_scalars_on_the_device)
{
    cublasHandle_t h;
    float *x, *scalars, **pointers;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, 16 * sizeof *x, cudaMemAttachGlobal));
    OK(cudaMallocManaged((void **)&scalars, 8, cudaMemAttachGlobal));
    OK(cudaMallocManaged((void **)&pointers, 6 * sizeof *pointers, cudaMemAttachGlobal));
    for (int i = 0; i < 16; i++)
        x[i] = i < 12 ? (float)i : NAN;
    float *const order[6] = {x + 4, x, x, x + 8, x + 12, x + 13}; // A, A, B, B, C, C
    memcpy(pointers, order, sizeof order);
    scalars[0] = 2;
    scalars[1] = 0;
    OK(cublasSetPointerMode(h, CUBLAS_POINTER_MODE_DEVICE));
    OK(cublasSgemmBatched(h, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, 4, scalars,
                          (const float *const *)pointers, 4,
                          (const float *const *)pointers + 2, 4, scalars + 1,
                          pointers + 4, 1, 2));
    OK(cudaDeviceSynchronize());
    cr_assert_eq(x[12], 2 * (5 + 12 + 21));
    cr_assert_eq(x[13], 2 * (9 + 20 + 33));
}

/* test mixed errors */
static cublasStatus_t try_product(cublasHandle_t h, int m, int lda, cudaDataType in,
                                  cudaDataType out, cublasComputeType_t compute,
                                  const void *alpha)
{
    static float x[64];
    return cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, m, 4, 4, alpha, x, in, lda, x, in, 4,
                        x, x, out, 4, compute, CUBLAS_GEMM_DEFAULT);
}

Test(vgpu, mixed_products_refuse_what_makes_no_sense)
{
    const cublasComputeType_t f32 = CUBLAS_COMPUTE_32F, i32 = CUBLAS_COMPUTE_32I;
    cublasHandle_t h;
    float one = 1;
    OK(cublasCreate(&h));
    cr_assert_eq(try_product(NULL, 4, 4, CUDA_R_16F, CUDA_R_16F, f32, &one),
                 CUBLAS_STATUS_NOT_INITIALIZED);
    cr_assert_eq(try_product(h, -1, 4, CUDA_R_16F, CUDA_R_16F, f32, &one),
                 CUBLAS_STATUS_INVALID_VALUE);
    cr_assert_eq(try_product(h, 4, 3, CUDA_R_16F, CUDA_R_16F, f32, &one),
                 CUBLAS_STATUS_INVALID_VALUE);
    cr_assert_eq(try_product(h, 4, 4, CUDA_R_16F, CUDA_R_16F, f32, NULL),
                 CUBLAS_STATUS_INVALID_VALUE);
    cr_assert_eq(try_product(h, 4, 4, CUDA_R_16F, CUDA_R_16BF, f32, &one),
                 CUBLAS_STATUS_NOT_SUPPORTED);
    cr_assert_eq(try_product(h, 4, 4, CUDA_R_16F, CUDA_R_16F, i32, &one),
                 CUBLAS_STATUS_NOT_SUPPORTED);
    OK(try_product(h, 0, 4, CUDA_R_16F, CUDA_R_16F, f32, &one));
}

/* test mixed costs */
#ifdef DLS_BACKEND_virtual
static double seconds(cublasHandle_t h, const kind *t, int n, void *x)
{
    static const double zeros[1];
    double before = dls_gpu_host_time();
    OK(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, zeros, x, t->in, n, x, t->in, n,
                    zeros, x, t->out, n, t->compute, CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    return dls_gpu_host_time() - before - 6.7e-6;
}

Test(vgpu, mixed_products_cost_the_peak_of_their_type)
{
    cublasHandle_t h;
    void *x;
    const int n = 2048;
    double flops = 2.0 * n * n * n / 0.8;
    OK(cublasCreate(&h));
    OK(cudaMalloc(&x, (size_t)n * n * 8));
    cr_assert_float_eq(seconds(h, &kinds[0], n, x), flops / 989.4e12, 1e-12);
    cr_assert_float_eq(seconds(h, &kinds[2], n, x), flops / 989.4e12, 1e-12);
    cr_assert_float_eq(seconds(h, &kinds[4], n, x), flops / 494.7e12, 1e-12);
    cr_assert_float_eq(seconds(h, &kinds[6], n, x), flops / 1978.9e12, 1e-12);
}
#endif

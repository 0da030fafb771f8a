/* tests/vgpu/test_cublas.c: from chapters/A-virtual-gpu-blas-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* cuBLAS calls against the definition, in both precisions. */
#include <criterion/criterion.h>
#include <cublas_v2.h>
#include <math.h>
#include <stdlib.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* fill matrices with gaps */
/* A rows × columns matrix of a batch, column-major with ld, NaN where no element is. */
static double *matrix(int rows, int columns, int ld, int batch, unsigned seed)
{
    size_t n = (size_t)ld * (size_t)columns;
    double *p = malloc(n * (size_t)batch * sizeof *p);
    for (size_t i = 0; i < n * (size_t)batch; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (int)(i % (size_t)ld) < rows ? (int)(seed >> 24) % 17 - 8 : NAN;
    }
    return p;
}

static void *to_device(const double *p, size_t n, int is_double)
{
    void *device;
    size_t size = is_double ? sizeof(double) : sizeof(float);
    float *narrow = malloc(n * sizeof *narrow);
    for (size_t i = 0; i < n; i++)
        narrow[i] = (float)p[i];
    OK(cudaMalloc(&device, n * size));
    OK(cudaMemcpy(device, is_double ? (const void *)p : narrow, n * size,
                  cudaMemcpyHostToDevice));
    free(narrow);
    return device;
}

/* multiply by the definition */
typedef struct shape { int ta, tb, m, n, k, lda, ldb, ldc, batch; } shape;

static double element(const double *p, int transposed, int ld, int i, int j)
{
    return transposed ? p[j + (size_t)i * (size_t)ld] : p[i + (size_t)j * (size_t)ld];
}

static void reference(const shape *s, double alpha, const double *A, const double *B,
                      double beta, double *C)
{
    for (int i = 0; i < s->m; i++)
        for (int j = 0; j < s->n; j++) {
            double sum = 0, *c = &C[i + (size_t)j * (size_t)s->ldc];
            for (int k = 0; k < s->k; k++)
                sum += element(A, s->ta, s->lda, i, k) * element(B, s->tb, s->ldb, k, j);
            *c = alpha * sum + (beta == 0 ? 0 : beta * *c);
        }
}

static void call(cublasHandle_t h, const shape *s, int is_double, double alpha,
                 const void *A, const void *B, double beta, void *C,
                 const long long st[3])
{
    cublasOperation_t ta = s->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t tb = s->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    float a = (float)alpha, b = (float)beta;
    if (is_double && s->batch == 1)
        OK(cublasDgemm(h, ta, tb, s->m, s->n, s->k, &alpha, A, s->lda, B, s->ldb, &beta,
                       C, s->ldc));
    else if (is_double)
        OK(cublasDgemmStridedBatched(h, ta, tb, s->m, s->n, s->k, &alpha, A, s->lda,
                                     st[0], B, s->ldb, st[1], &beta, C, s->ldc, st[2],
                                     s->batch));
    else if (s->batch == 1)
        OK(cublasSgemm(h, ta, tb, s->m, s->n, s->k, &a, A, s->lda, B, s->ldb, &b, C,
                       s->ldc));
    else
        OK(cublasSgemmStridedBatched(h, ta, tb, s->m, s->n, s->k, &a, A, s->lda, st[0], B,
                                     s->ldb, st[1], &b, C, s->ldc, st[2], s->batch));
}

/* Multiplies on the device and by the definition; the whole of C must agree, gaps too. */
static void check_product(cublasHandle_t h, const shape *s, int is_double, double alpha,
                          double beta)
{
    int ca = s->ta ? s->m : s->k, cb = s->tb ? s->k : s->n;
    long long st[3] = {(long long)s->lda * ca, (long long)s->ldb * cb,
                       (long long)s->ldc * s->n};
    double *A = matrix(s->ta ? s->k : s->m, ca, s->lda, s->batch, 1);
    double *B = matrix(s->tb ? s->n : s->k, cb, s->ldb, s->batch, 2);
    double *C = matrix(beta == 0 ? 0 : s->m, s->n, s->ldc, s->batch, 3);
    size_t n = (size_t)(st[2] * s->batch), size = is_double ? 8 : 4;
    void *a = to_device(A, (size_t)(st[0] * s->batch), is_double);
    void *b = to_device(B, (size_t)(st[1] * s->batch), is_double);
    void *c = to_device(C, n, is_double), *got = malloc(n * size);
    call(h, s, is_double, alpha, a, b, beta, c, st);
    OK(cudaMemcpy(got, c, n * size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < s->batch; i++)
        reference(s, alpha, A + i * st[0], B + i * st[1], beta, C + i * st[2]);
    for (size_t i = 0; i < n; i++) {
        double value = is_double ? ((double *)got)[i] : (double)((float *)got)[i];
        cr_assert(isnan(C[i]) ? isnan(value) : value == C[i],
                  "%s%s %d×%d×%d f%d element %zu: %g, not %g", s->ta ? "T" : "N",
                  s->tb ? "T" : "N", s->m, s->n, s->k, (int)size * 8, i, value, C[i]);
    }
    void *all[] = {A, B, C, got};
    for (int i = 0; i < 4; i++)
        free(all[i]);
    OK(cudaFree(a));
    OK(cudaFree(b));
    OK(cudaFree(c));
}

/* test all products */
Test(vgpu, products_follow_the_definition)
{
    static const int sizes[][3] = {{1, 1, 1}, {5, 3, 7}, {70, 66, 130}, {64, 4, 128},
                                   {1, 17, 40}, {33, 1, 2}, {4, 4, 0}};
    cublasHandle_t h;
    OK(cublasCreate(&h));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int bits = 0; bits < 32; bits++) {
            shape s = {bits & 1, bits >> 1 & 1, sizes[i][0], sizes[i][1], sizes[i][2],
                       .batch = bits & 16 ? 3 : 1};
            s.lda = (s.ta ? s.k : s.m) + 2;
            s.ldb = (s.tb ? s.n : s.k) + 1;
            s.ldc = s.m + 3;
            check_product(h, &s, bits >> 2 & 1, bits & 8 ? 2 : -1, bits & 8 ? 0 : 3);
        }
    OK(cublasDestroy(h));
}

/* test batches and modes */
Test(vgpu, device_scalars_are_read_when_the_product_runs)
{
    cublasHandle_t h;
    float *scalars, *x, host[2] = {3, 0}, four = 4, got;
    OK(cublasCreate(&h));
    OK(cublasSetPointerMode(h, CUBLAS_POINTER_MODE_DEVICE));
    OK(cudaMalloc((void **)&scalars, sizeof host));
    OK(cudaMalloc((void **)&x, 2 * sizeof(float)));
    OK(cudaMemcpy(x, &four, sizeof four, cudaMemcpyHostToDevice));
    OK(cudaMemcpyAsync(scalars, host, sizeof host, cudaMemcpyHostToDevice, NULL));
    OK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, scalars, x, 1, x, 1, scalars + 1,
                   x + 1, 1));
    OK(cudaMemcpy(&got, x + 1, sizeof got, cudaMemcpyDeviceToHost));
    cr_assert_eq(got, 48);
}

#ifdef DLS_VIRTUAL_GPU
Test(vgpu, a_product_costs_its_roofline)
{
    cublasHandle_t h;
    float *p, one = 1, zero = 0;
    const int n = 1024;
    OK(cublasCreate(&h));
    OK(cudaMalloc((void **)&p, 3ul * n * n * sizeof *p));
    OK(cudaMemset(p, 0, 3ul * n * n * sizeof *p));
    OK(cudaDeviceSynchronize());
    double before = dls_gpu_host_time();
    OK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, p, n, p + n * n, n, &zero,
                   p + 2 * n * n, n));
    OK(cudaDeviceSynchronize());
    cr_assert_float_eq(dls_gpu_host_time() - before,
                       6.7e-6 + 2.0 * n * n * n / 53.6e12, 1e-12);
}
#endif

/* test bad products */
Test(vgpu, bad_products_are_refused)
{
    cublasHandle_t h;
    float one = 1, x[4];
    OK(cublasCreate(&h));
    cr_assert_eq(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, x, 1, x, 2, &one,
                             x, 2), CUBLAS_STATUS_INVALID_VALUE, "lda < m");
    cr_assert_eq(cublasSgemm(h, CUBLAS_OP_T, CUBLAS_OP_N, 2, 2, 3, &one, x, 2, x, 3, &one,
                             x, 2), CUBLAS_STATUS_INVALID_VALUE, "lda < k, transposed");
    cr_assert_eq(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, -1, 2, 2, &one, x, 2, x, 2,
                             &one, x, 2), CUBLAS_STATUS_INVALID_VALUE);
    cr_assert_eq(cublasSgemm(NULL, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1,
                             &one, x, 1), CUBLAS_STATUS_NOT_INITIALIZED);
}

/* code/vgpu/gpu_virtual_cublas.c: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* cuBLAS on the virtual backend: f32 by oneDNN, f64 by a blocked loop of our own.
 *
 * A product is an operation of its stream like any kernel; its cost is known from its
 * sizes. f64 exists for proofs, not for speed, and reaches a few GFLOP/s. */
#include <cublas_v2.h>

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/observer.h"

/* keep a cublas handle */
struct cublasContext {
    cudaStream_t stream;
    cublasPointerMode_t pointer_mode;
    cublasMath_t math_mode;
};

cublasStatus_t cublasCreate(cublasHandle_t *handle)
{
    if (handle == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *handle = calloc(1, sizeof **handle);
    return *handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream)
{
    if (handle == NULL || stream == NULL)
        return handle ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_NOT_INITIALIZED;
    *stream = handle->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->pointer_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->math_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion(cublasHandle_t handle, int *version)
{
    (void)handle;
    *version = 130000;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the handle is null";
    case CUBLAS_STATUS_ALLOC_FAILED: return "out of memory";
    case CUBLAS_STATUS_INVALID_VALUE: return "a size, a pointer or a leading dimension";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "the product could not be executed";
    default: return "unknown cuBLAS status";
    }
}

cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t *mode)
{
    if (handle == NULL || mode == NULL)
        return handle ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_NOT_INITIALIZED;
    *mode = handle->pointer_mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode)
{
    if (handle == NULL || mode == NULL)
        return handle ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_NOT_INITIALIZED;
    *mode = handle->math_mode;
    return CUBLAS_STATUS_SUCCESS;
}

/* describe a product */
typedef struct product {
    int is_double, ta, tb, m, n, k, lda, ldb, ldc, batch;
    long long stride_a, stride_b, stride_c; // in elements
    const void *A, *B;
    void *C;
    double alpha, beta;
    const void *device_alpha, *device_beta; // NULL: the values above
} product;

static double scalar(const void *pointer, int is_double)
{
    return is_double ? *(const double *)pointer : (double)*(const float *)pointer;
}

/* multiply in f32 */
static int multiply_f32(const product *p, const float *A, const float *B, float *C)
{
    dnnl_status_t status =
        dnnl_sgemm(p->tb ? 'T' : 'N', p->ta ? 'T' : 'N', p->n, p->m, p->k,
                   (float)p->alpha, B, p->ldb, A, p->lda, (float)p->beta, C, p->ldc);
    return status == dnnl_success ? 0 : -DLS_ERR_DEVICE;
}

/* C *= beta, all that is left of a product without an inner dimension. */
static void scale_only(const product *p, void *C)
{
    for (int j = 0; j < p->n; j++)
        for (int i = 0; i < p->m; i++) {
            size_t at = (size_t)i + (size_t)j * (size_t)p->ldc;
            double *d = (double *)C + at;
            float *f = (float *)C + at;
            if (p->is_double)
                *d = p->beta == 0 ? 0 : *d * p->beta;
            else
                *f = p->beta == 0 ? 0 : (float)(*f * p->beta);
        }
}

/* multiply in f64 */
enum { PANEL_M = 64, PANEL_K = 128 };

static void pack_panel(const product *p, const double *A, int i0, int mb, int k0, int kb,
                       double *panel) // (kb, PANEL_M)
{
    for (int k = 0; k < kb; k++)
        for (int i = 0; i < mb; i++)
            panel[k * PANEL_M + i] =
                p->ta ? A[(size_t)(k0 + k) + (size_t)(i0 + i) * (size_t)p->lda]
                      : A[(size_t)(i0 + i) + (size_t)(k0 + k) * (size_t)p->lda];
}

static double factor_b(const product *p, const double *B, int k, int j)
{
    return p->tb ? B[(size_t)j + (size_t)k * (size_t)p->ldb]
                 : B[(size_t)k + (size_t)j * (size_t)p->ldb];
}

/* C[i0.., j..j+columns) += alpha * panel * op(B)[k0.., j..] */
static void update_columns(const product *p, const double *panel, const double *B,
                           double *C, int i0, int mb, int k0, int kb, int j, int columns)
{
    double sum[4][PANEL_M] = {{0}};
    for (int k = 0; k < kb; k++) {
        const double *a = panel + k * PANEL_M;
        double b[4] = {0};
        for (int c = 0; c < columns; c++)
            b[c] = factor_b(p, B, k0 + k, j + c);
        for (int i = 0; i < mb; i++) {
            sum[0][i] += a[i] * b[0];
            sum[1][i] += a[i] * b[1];
            sum[2][i] += a[i] * b[2];
            sum[3][i] += a[i] * b[3];
        }
    }
    for (int c = 0; c < columns; c++)
        for (int i = 0; i < mb; i++)
            C[(size_t)(i0 + i) + (size_t)(j + c) * (size_t)p->ldc] +=
                p->alpha * sum[c][i];
}

static int multiply_f64(const product *p, const double *A, const double *B, double *C)
{
    double panel[PANEL_K * PANEL_M];
    scale_only(p, C);
    for (int i0 = 0; i0 < p->m; i0 += PANEL_M)
        for (int k0 = 0; k0 < p->k; k0 += PANEL_K) {
            int mb = p->m - i0 < PANEL_M ? p->m - i0 : PANEL_M;
            int kb = p->k - k0 < PANEL_K ? p->k - k0 : PANEL_K;
            pack_panel(p, A, i0, mb, k0, kb, panel);
            for (int j = 0; j < p->n; j += 4)
                update_columns(p, panel, B, C, i0, mb, k0, kb, j,
                               p->n - j < 4 ? p->n - j : 4);
        }
    return 0;
}

/* tell what a product touches */
static void tell_matrix(int write, const void *matrix, size_t size, int rows, int columns,
                        int ld)
{
    dls_vgpu_touched(write, matrix, size * (size_t)rows, size * (size_t)ld,
                     (size_t)columns);
}

static void tell_product(const product *p, const void *A, const void *B, const void *C)
{
    size_t size = p->is_double ? sizeof(double) : sizeof(float);
    if (p->k > 0 && p->alpha != 0) {
        tell_matrix(0, A, size, p->ta ? p->k : p->m, p->ta ? p->m : p->k, p->lda);
        tell_matrix(0, B, size, p->tb ? p->n : p->k, p->tb ? p->k : p->n, p->ldb);
    }
    if (p->beta != 0)
        tell_matrix(0, C, size, p->m, p->n, p->ldc);
    tell_matrix(1, C, size, p->m, p->n, p->ldc);
}
/* run a product */
static int product_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    product *p = arg;
    int code = 0;
    size_t size = p->is_double ? sizeof(double) : sizeof(float);
    if (p->device_alpha)
        p->alpha = scalar(p->device_alpha, p->is_double);
    if (p->device_beta)
        p->beta = scalar(p->device_beta, p->is_double);
    for (long long i = 0; i < p->batch && code == 0; i++) {
        const char *A = (const char *)p->A + i * p->stride_a * (long long)size;
        const char *B = (const char *)p->B + i * p->stride_b * (long long)size;
        char *C = (char *)p->C + i * p->stride_c * (long long)size;
        tell_product(p, A, B, C);
        if (p->k == 0 || p->alpha == 0)
            scale_only(p, C);
        else if (p->is_double)
            code = multiply_f64(p, (const double *)A, (const double *)B, (double *)C);
        else
            code = multiply_f32(p, (const float *)A, (const float *)B, (float *)C);
    }
    return code < 0 ? -(int)DLS_FAIL(DLS_ERR_DEVICE, "oneDNN refused the product") : 0;
}

/* check and enqueue a product */
static int valid_product(const product *p)
{
    int rows_a = p->ta ? p->k : p->m, rows_b = p->tb ? p->n : p->k;
    return p->m >= 0 && p->n >= 0 && p->k >= 0 && p->batch >= 0 &&
           p->lda >= (rows_a > 1 ? rows_a : 1) && p->ldb >= (rows_b > 1 ? rows_b : 1) &&
           p->ldc >= (p->m > 1 ? p->m : 1);
}

static dls_gpu_op product_op(const product *p)
{
    double m = p->m, n = p->n, k = p->k;
    double elements = m * k + k * n + m * n * (p->beta == 0 ? 1 : 2);
    return (dls_gpu_op){
        .name = p->is_double ? "dgemm" : "sgemm", .kind = DLS_GPU_COMPUTE,
        .flops = 2 * m * n * k * p->batch,
        .bytes = elements * p->batch * (p->is_double ? 8 : 4),
        .run = product_run, .destroy = free,
    };
}

static cublasStatus_t enqueue_product(cublasHandle_t handle, product p, const void *alpha,
                                      const void *beta)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!valid_product(&p) || alpha == NULL || beta == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.m == 0 || p.n == 0 || p.batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    if (handle->pointer_mode == CUBLAS_POINTER_MODE_HOST) {
        p.alpha = scalar(alpha, p.is_double);
        p.beta = scalar(beta, p.is_double);
    } else {
        p.alpha = p.beta = 1; // for the cost
        p.device_alpha = alpha;
        p.device_beta = beta;
    }
    product *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *copy = p;
    dls_gpu_op op = product_op(&p);
    int tf32 = handle->math_mode == CUBLAS_TF32_TENSOR_OP_MATH;
    op.work = p.is_double ? DLS_WORK_GEMM_F64
              : tf32 ? DLS_WORK_GEMM_TF32 : DLS_WORK_GEMM_F32;
    cudaError_t error = dls_vgpu_launch(handle->stream, &op, copy, -1);
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

/* multiply by the cublas names */
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const float *alpha, const float *A,
    int lda, long long stride_a, const float *B, int ldb, long long stride_b,
    const float *beta, float *C, int ldc, long long stride_c, int batch)
{
    product p = {0, ta != CUBLAS_OP_N, tb != CUBLAS_OP_N, m, n, k, lda, ldb, ldc, batch,
                 stride_a, stride_b, stride_c, A, B, C, 0, 0, NULL, NULL};
    return enqueue_product(handle, p, alpha, beta);
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const double *alpha, const double *A,
    int lda, long long stride_a, const double *B, int ldb, long long stride_b,
    const double *beta, double *C, int ldc, long long stride_c, int batch)
{
    product p = {1, ta != CUBLAS_OP_N, tb != CUBLAS_OP_N, m, n, k, lda, ldb, ldc, batch,
                 stride_a, stride_b, stride_c, A, B, C, 0, 0, NULL, NULL};
    return enqueue_product(handle, p, alpha, beta);
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const float *alpha, const float *A,
    int lda, const float *B, int ldb, const float *beta, float *C, int ldc)
{
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0,
                                     beta, C, ldc, 0, 1);
}

cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const double *alpha, const double *A,
    int lda, const double *B, int ldb, const double *beta, double *C, int ldc)
{
    return cublasDgemmStridedBatched(handle, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0,
                                     beta, C, ldc, 0, 1);
}

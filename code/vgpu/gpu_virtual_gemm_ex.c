/* code/vgpu/gpu_virtual_gemm_ex.c: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* cublasGemmEx and its batched forms on the virtual backend.
 *
 *   A, B in their types --unpack--> work type --multiply--> sums --finish--> C
 *
 * The work type is f32, f64 or int32. Products of short numbers are exact in f32, sums
 * are f32, and C is rounded once. Everything about a product is known when it is enqueued
 * but the matrices, the pointer arrays, and alpha and beta on the device. */
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

#include "vgpu/observer.h"

/* describe a mixed product */
typedef enum work { WORK_NONE, WORK_F32, WORK_F64, WORK_I32 } work;
typedef union scalar { float f; double d; int32_t i; } scalar;
typedef union vector { void *any; float *f; double *d; int32_t *i; } vector;

typedef struct operand {
    cudaDataType type;
    int ld;
    long long stride;         // elements from one matrix of the batch to the next
    const void *base;
    const void *const *array; // one pointer per product; NULL: base and stride
} operand;

typedef struct mixed {
    work work;
    int ta, tb, m, n, k, batch;
    operand a, b, c;
    scalar alpha, beta;
    const void *device_alpha, *device_beta; // NULL: the values above
} mixed;

static scalar read_scalar(work w, const void *p)
{
    scalar s = {0};
    memcpy(&s, p, w == WORK_F64 ? 8 : 4);
    return s;
}

static int scalar_is_zero(work w, scalar s)
{
    return w == WORK_F64 ? s.d == 0 : w == WORK_F32 ? s.f == 0 : s.i == 0;
}

/* read elements of any type */
static size_t size_of(cudaDataType type)
{
    switch (type) {
    case CUDA_R_8I: return 1;
    case CUDA_R_16F: case CUDA_R_16BF: return 2;
    case CUDA_R_64F: return 8;
    default: return 4;
    }
}

static double load(cudaDataType type, const void *data, size_t at)
{
    switch (type) {
    case CUDA_R_16BF: return dls_decode(((const unsigned short *)data)[at], DLS_BF16);
    case CUDA_R_16F: return dls_decode(((const unsigned short *)data)[at], DLS_FP16);
    case CUDA_R_8I: return ((const signed char *)data)[at];
    case CUDA_R_32I: return ((const int32_t *)data)[at];
    case CUDA_R_64F: return ((const double *)data)[at];
    default: return ((const float *)data)[at];
    }
}

/* unpack a factor */
/* op(X), rows × columns, to dense column-major numbers of the work type. */
static void unpack(work w, const operand *x, const void *data, int transposed, int rows,
                   int columns, vector out)
{
    size_t to = 0, ld = (size_t)x->ld;
    for (size_t j = 0; j < (size_t)columns; j++)
        for (size_t i = 0; i < (size_t)rows; i++, to++) {
            double v = load(x->type, data, transposed ? j + i * ld : i + j * ld);
            if (w == WORK_F32)
                out.f[to] = (float)v;
            else if (w == WORK_F64)
                out.d[to] = v;
            else
                out.i[to] = (int32_t)v;
        }
}

/* multiply dense matrices */
/* sum (m, n) = a (m, k) · b (k, n), all dense and column-major. */
static int multiply(const mixed *p, vector a, vector b, vector sum)
{
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    if (p->work == WORK_F32)
        return dnnl_sgemm('N', 'N', p->n, p->m, p->k, 1, b.f, p->k, a.f, p->m, 0, sum.f,
                          p->m) == dnnl_success ? 0 : -1;
    for (size_t j = 0; j < n; j++)
        for (size_t l = 0; l < k; l++) {
            if (p->work == WORK_F64) {
                double factor = b.d[l + j * k];
                for (size_t i = 0; i < m; i++)
                    sum.d[i + j * m] += a.d[i + l * m] * factor;
            } else {
                uint32_t factor = (uint32_t)b.i[l + j * k];
                for (size_t i = 0; i < m; i++)
                    sum.i[i + j * m] = (int32_t)((uint32_t)sum.i[i + j * m] +
                                                 (uint32_t)a.i[i + l * m] * factor);
            }
        }
    return 0;
}

/* finish a mixed product */
static void store_float(cudaDataType type, void *data, size_t at, float v)
{
    unsigned short *bits = (unsigned short *)data + at;
    if (type == CUDA_R_16BF)
        *bits = (unsigned short)dls_encode(v, DLS_BF16, DLS_ROUND_NEAREST);
    else if (type == CUDA_R_16F)
        *bits = (unsigned short)dls_encode(v, DLS_FP16, DLS_ROUND_NEAREST);
    else
        ((float *)data)[at] = v;
}

static void finish(const mixed *p, vector sum, void *C)
{
    int fresh = scalar_is_zero(p->work, p->beta);
    vector c = {C};
    for (size_t j = 0, from = 0; j < (size_t)p->n; j++)
        for (size_t i = 0; i < (size_t)p->m; i++, from++) {
            size_t at = i + j * (size_t)p->c.ld;
            double old = fresh ? 0 : load(p->c.type, C, at);
            if (p->work == WORK_F64) {
                double v = p->alpha.d * sum.d[from];
                c.d[at] = fresh ? v : v + p->beta.d * old;
            } else if (p->work == WORK_F32) {
                float v = p->alpha.f * sum.f[from];
                store_float(p->c.type, C, at, fresh ? v : v + p->beta.f * (float)old);
            } else {
                uint32_t v = (uint32_t)p->alpha.i * (uint32_t)sum.i[from];
                c.i[at] = (int32_t)(v + (uint32_t)p->beta.i * (uint32_t)(int32_t)old);
            }
        }
}

/* run a mixed product */
static void *matrix_of(const operand *x, int i)
{
    if (x->array)
        return (void *)(uintptr_t)x->array[i];
    return (char *)(uintptr_t)x->base + i * x->stride * (long long)size_of(x->type);
}

static void tell_operand(int write, const operand *x, int i, int rows, int columns)
{
    size_t size = size_of(x->type);
    dls_vgpu_touched(write, matrix_of(x, i), size * (size_t)rows, size * (size_t)x->ld,
                     (size_t)columns);
}

static void tell_mixed(const mixed *p, int i)
{
    if (p->k > 0 && !scalar_is_zero(p->work, p->alpha)) {
        tell_operand(0, &p->a, i, p->ta ? p->k : p->m, p->ta ? p->m : p->k);
        tell_operand(0, &p->b, i, p->tb ? p->n : p->k, p->tb ? p->k : p->n);
    }
    if (!scalar_is_zero(p->work, p->beta))
        tell_operand(0, &p->c, i, p->m, p->n);
    tell_operand(1, &p->c, i, p->m, p->n);
}

static int run_one(const mixed *p, int i, vector a, vector b, vector sum)
{
    size_t size = p->work == WORK_F64 ? 8 : 4;
    tell_mixed(p, i);
    memset(sum.any, 0, (size_t)p->m * (size_t)p->n * size);
    if (p->k > 0 && !scalar_is_zero(p->work, p->alpha)) {
        unpack(p->work, &p->a, matrix_of(&p->a, i), p->ta, p->m, p->k, a);
        unpack(p->work, &p->b, matrix_of(&p->b, i), p->tb, p->k, p->n, b);
        if (multiply(p, a, b, sum) != 0)
            return -(int)DLS_FAIL(DLS_ERR_DEVICE, "oneDNN refused the product");
    }
    finish(p, sum, matrix_of(&p->c, i));
    return 0;
}

static int mixed_run(void *arg, double start, double *finish_time)
{
    (void)start;
    (void)finish_time;
    mixed *p = arg;
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    if (p->device_alpha)
        p->alpha = read_scalar(p->work, p->device_alpha);
    if (p->device_beta)
        p->beta = read_scalar(p->work, p->device_beta);
    vector a = {malloc(8 * (m * k + 1))}, b = {malloc(8 * (k * n + 1))};
    vector sum = {malloc(8 * m * n)};
    int code = 0;
    if (a.any == NULL || b.any == NULL || sum.any == NULL)
        code = -(int)DLS_FAIL(DLS_ERR_MEMORY, "no memory to unpack a %d×%d×%d product",
                              p->m, p->n, p->k);
    for (int i = 0; i < p->batch && code == 0; i++)
        code = run_one(p, i, a, b, sum);
    free(a.any);
    free(b.any);
    free(sum.any);
    return code;
}

/* check a mixed product */
/* The work type of a combination; WORK_NONE: not supported. */
static work work_of(cudaDataType a, cudaDataType b, cudaDataType c,
                    cublasComputeType_t compute)
{
    int is_short = a == CUDA_R_16BF || a == CUDA_R_16F;
    if (a != b)
        return WORK_NONE;
    switch (compute) {
    case CUBLAS_COMPUTE_32F: case CUBLAS_COMPUTE_32F_PEDANTIC:
        if ((is_short && (c == a || c == CUDA_R_32F)) ||
            (a == CUDA_R_8I && c == CUDA_R_32F))
            return WORK_F32;
        return a == CUDA_R_32F && c == a ? WORK_F32 : WORK_NONE;
    case CUBLAS_COMPUTE_32F_FAST_16F: case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        return a == CUDA_R_32F && c == a ? WORK_F32 : WORK_NONE;
    case CUBLAS_COMPUTE_64F: case CUBLAS_COMPUTE_64F_PEDANTIC:
        return a == CUDA_R_64F && c == a ? WORK_F64 : WORK_NONE;
    case CUBLAS_COMPUTE_32I: case CUBLAS_COMPUTE_32I_PEDANTIC:
        return a == CUDA_R_8I && c == CUDA_R_32I ? WORK_I32 : WORK_NONE;
    default:
        return WORK_NONE;
    }
}

static int least_ld(int rows)
{
    return rows > 1 ? rows : 1;
}

static int mixed_is_valid(const mixed *p)
{
    return p->m >= 0 && p->n >= 0 && p->k >= 0 && p->batch >= 0 &&
           p->a.ld >= least_ld(p->ta ? p->k : p->m) &&
           p->b.ld >= least_ld(p->tb ? p->n : p->k) && p->c.ld >= least_ld(p->m);
}

/* The kind of work that the clock charges for this product. */
static dls_work kind_of(const mixed *p, cublasComputeType_t compute, cublasMath_t math)
{
    if (p->work == WORK_F64)
        return DLS_WORK_GEMM_F64;
    if (p->work == WORK_I32)
        return DLS_WORK_GEMM_INT8;
    if (size_of(p->a.type) == 2 || compute == CUBLAS_COMPUTE_32F_FAST_16F ||
        compute == CUBLAS_COMPUTE_32F_FAST_16BF)
        return DLS_WORK_GEMM_BF16;
    int tf32 = math == CUBLAS_TF32_TENSOR_OP_MATH && compute == CUBLAS_COMPUTE_32F;
    return tf32 || compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? DLS_WORK_GEMM_TF32
                                                           : DLS_WORK_GEMM_F32;
}

/* enqueue a mixed product */
static dls_gpu_op mixed_op(const mixed *p)
{
    double m = p->m, n = p->n, k = p->k;
    int again = !scalar_is_zero(p->work, p->beta);
    double bytes = m * k * (double)size_of(p->a.type) +
                   k * n * (double)size_of(p->b.type) +
                   m * n * (1 + again) * (double)size_of(p->c.type);
    const char *name = p->a.type == CUDA_R_16BF  ? "gemm_bf16"
                       : p->a.type == CUDA_R_16F ? "gemm_fp16"
                       : p->a.type == CUDA_R_8I  ? "gemm_int8"
                       : p->work == WORK_F64     ? "dgemm" : "sgemm";
    return (dls_gpu_op){
        .name = name, .kind = DLS_GPU_COMPUTE, .flops = 2 * m * n * k * p->batch,
        .bytes = bytes * p->batch, .run = mixed_run, .destroy = free,
    };
}

static cublasStatus_t enqueue_mixed(cublasHandle_t handle, mixed p, const void *alpha,
                                    const void *beta, cublasOperation_t ta,
                                    cublasOperation_t tb, cublasComputeType_t compute)
{
    cublasPointerMode_t pointers;
    cublasMath_t math;
    cudaStream_t stream;
    if (cublasGetPointerMode(handle, &pointers) || cublasGetMathMode(handle, &math) ||
        cublasGetStream(handle, &stream))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    p.ta = ta != CUBLAS_OP_N;
    p.tb = tb != CUBLAS_OP_N;
    p.work = work_of(p.a.type, p.b.type, p.c.type, compute);
    if ((int)ta < 0 || ta > CUBLAS_OP_C || (int)tb < 0 || tb > CUBLAS_OP_C ||
        !mixed_is_valid(&p) || alpha == NULL || beta == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.work == WORK_NONE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.m == 0 || p.n == 0 || p.batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    /* take the scalars */
    if (pointers == CUBLAS_POINTER_MODE_HOST) {
        p.alpha = read_scalar(p.work, alpha);
        p.beta = read_scalar(p.work, beta);
    } else {
        memset(&p.beta, 0xff, sizeof p.beta); // not zero, in any type
        p.device_alpha = alpha;
        p.device_beta = beta;
    }
    mixed *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *copy = p;
    dls_gpu_op op = mixed_op(&p);
    op.work = kind_of(&p, compute, math);
    cudaError_t error = dls_vgpu_launch(stream, &op, copy, -1);
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

/* name the mixed products */
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *A,
    cudaDataType a_type, int lda, long long stride_a, const void *B, cudaDataType b_type,
    int ldb, long long stride_b, const void *beta, void *C, cudaDataType c_type, int ldc,
    long long stride_c, int batch, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm)
{
    (void)algorithm; // a hint for speed
    mixed p = {.m = m, .n = n, .k = k, .batch = batch,
               .a = {a_type, lda, stride_a, A, NULL},
               .b = {b_type, ldb, stride_b, B, NULL},
               .c = {c_type, ldc, stride_c, C, NULL}};
    return enqueue_mixed(handle, p, alpha, beta, ta, tb, compute);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *A,
    cudaDataType a_type, int lda, const void *B, cudaDataType b_type, int ldb,
    const void *beta, void *C, cudaDataType c_type, int ldc, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, A, a_type, lda, 0,
                                      B, b_type, ldb, 0, beta, C, c_type, ldc, 0, 1,
                                      compute, algorithm);
}

#define POINTER_BATCH(name, T, TYPE, COMPUTE)                                     \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t ta,              \
        cublasOperation_t tb, int m, int n, int k, const T *alpha,                \
        const T *const A[], int lda, const T *const B[], int ldb, const T *beta,  \
        T *const C[], int ldc, int batch)                                         \
    {                                                                             \
        mixed p = {.m = m, .n = n, .k = k, .batch = batch,                        \
                   .a = {TYPE, lda, 0, NULL, (const void *const *)A},             \
                   .b = {TYPE, ldb, 0, NULL, (const void *const *)B},             \
                   .c = {TYPE, ldc, 0, NULL, (const void *const *)C}};            \
        return enqueue_mixed(handle, p, alpha, beta, ta, tb, COMPUTE);            \
    }

POINTER_BATCH(cublasSgemmBatched, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
POINTER_BATCH(cublasDgemmBatched, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)

/* code/vgpu/gpu_virtual_gemm.c: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* cublas?gemm, cublasGemmEx and their batched forms: checks, and names. */
#include "vgpu/blas.h"

/* find the work type */
static dls_blas_work work_of_f32(cudaDataType ab, cudaDataType c)
{
    int is_short = ab == CUDA_R_16BF || ab == CUDA_R_16F;
    int fits = (is_short && (c == ab || c == CUDA_R_32F)) ||
               (ab == CUDA_R_8I && c == CUDA_R_32F) || (ab == CUDA_R_32F && c == ab);
    return fits ? DLS_BLAS_F32 : DLS_BLAS_NONE;
}

dls_blas_work dls_blas_work_of(cudaDataType ab, cudaDataType c,
                               cublasComputeType_t compute)
{
    switch (compute) {
    case CUBLAS_COMPUTE_16F: case CUBLAS_COMPUTE_16F_PEDANTIC:
        return ab == CUDA_R_16F && c == ab ? DLS_BLAS_F16 : DLS_BLAS_NONE;
    case CUBLAS_COMPUTE_32F: case CUBLAS_COMPUTE_32F_PEDANTIC:
        return work_of_f32(ab, c);
    case CUBLAS_COMPUTE_32F_FAST_16F: case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        return ab == CUDA_R_32F && c == ab ? DLS_BLAS_F32 : DLS_BLAS_NONE;
    case CUBLAS_COMPUTE_64F: case CUBLAS_COMPUTE_64F_PEDANTIC:
        return ab == CUDA_R_64F && c == ab ? DLS_BLAS_F64 : DLS_BLAS_NONE;
    case CUBLAS_COMPUTE_32I: case CUBLAS_COMPUTE_32I_PEDANTIC:
        return ab == CUDA_R_8I && c == CUDA_R_32I ? DLS_BLAS_I32 : DLS_BLAS_NONE;
    default:
        return DLS_BLAS_NONE;
    }
}

void dls_blas_set_compute(dls_blas_product *p, cublasComputeType_t compute,
                          cublasMath_t math)
{
    size_t size = dls_blas_size(p->a.type);
    int mode = compute == CUBLAS_COMPUTE_32F && p->a.type == CUDA_R_32F ? math & 15 : 0;
    p->narrow = p->a.type;
    p->tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
              mode == CUBLAS_TF32_TENSOR_OP_MATH;
    if (compute == CUBLAS_COMPUTE_32F_FAST_16BF)
        p->narrow = CUDA_R_16BF;
    if (compute == CUBLAS_COMPUTE_32F_FAST_16F || mode == CUBLAS_TENSOR_OP_MATH)
        p->narrow = CUDA_R_16F;
    int is_short = size == 2 || p->narrow != p->a.type;
    p->kind = p->work == DLS_BLAS_F64   ? DLS_WORK_GEMM_F64
              : p->a.type == CUDA_R_8I  ? DLS_WORK_GEMM_INT8
              : size == 1               ? DLS_WORK_GEMM_FP8
              : is_short                ? DLS_WORK_GEMM_BF16
              : p->tf32                 ? DLS_WORK_GEMM_TF32 : DLS_WORK_GEMM_F32;
}

/* describe the operands */
static int least_ld(int rows) { return rows > 1 ? rows : 1; }

dls_blas_matrix dls_blas_columns(cudaDataType type, int transposed, int rows, int columns,
                                 const void *base, long long ld)
{
    return (dls_blas_matrix){.type = type, .rows = rows, .columns = columns,
                             .down = transposed ? ld : 1, .right = transposed ? 1 : ld,
                             .base = base};
}

void *dls_blas_matrix_at(const dls_blas_matrix *x, int i)
{
    const void *p = x->array ? x->array[i]
        : (const char *)x->base + i * x->stride * (long long)dls_blas_size(x->type);
    return (void *)(uintptr_t)p;
}

/* What a call says of one matrix. */
typedef struct argument {
    cudaDataType type;
    int ld;
    long long stride;
    const void *base;
    const void *const *array;
} argument;

static dls_blas_matrix operand(const argument *x, int transposed, int rows, int columns)
{
    dls_blas_matrix out = dls_blas_columns(x->type, transposed, rows, columns, x->base,
                                           x->ld);
    out.stride = x->stride;
    out.array = x->array;
    return out;
}

/* check and enqueue a product */
typedef struct shape {
    cublasOperation_t ta, tb;
    int m, n, k, batch;
} shape;

static int is_operation(cublasOperation_t op) { return (unsigned)op <= CUBLAS_OP_C; }

static int valid(const shape *s, const argument *a, const argument *b, const argument *c)
{
    return is_operation(s->ta) && is_operation(s->tb) && s->m >= 0 && s->n >= 0 &&
           s->k >= 0 && s->batch >= 0 &&
           a->ld >= least_ld(s->ta == CUBLAS_OP_N ? s->m : s->k) &&
           b->ld >= least_ld(s->tb == CUBLAS_OP_N ? s->k : s->n) &&
           c->ld >= least_ld(s->m);
}


static cublasStatus_t multiply(cublasHandle_t h, shape s, const void *alpha, argument a,
                               argument b, const void *beta, argument c,
                               cublasComputeType_t compute)
{
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!valid(&s, &a, &b, &c) || alpha == NULL || beta == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    dls_blas_work work = a.type == b.type ? dls_blas_work_of(a.type, c.type, compute)
                                          : DLS_BLAS_NONE;
    if (work == DLS_BLAS_NONE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (s.m == 0 || s.n == 0 || s.batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    if (c.base == NULL && c.array == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    dls_blas_product p = {
        .work = work, .batch = s.batch,
        .a = operand(&a, s.ta != CUBLAS_OP_N, s.m, s.k),
        .b = operand(&b, s.tb != CUBLAS_OP_N, s.k, s.n),
        .c = operand(&c, 0, s.m, s.n), .d = operand(&c, 0, s.m, s.n)};
    dls_blas_set_compute(&p, compute, h->math_mode);
    if (h->pointer_mode == CUBLAS_POINTER_MODE_HOST) {
        p.alpha = dls_blas_scalar_at(work, alpha);
        p.beta = dls_blas_scalar_at(work, beta);
    } else {
        p.device_alpha = alpha;
        p.device_beta = beta;
    }
    return dls_blas_enqueue(h->device, h->stream, &p);
}

/* multiply by the cublas names */
cublasStatus_t cublasGemmStridedBatchedEx(DLS_GEMM_ENDS, const void *alpha,
    const void *A, cudaDataType a_type, int lda, long long stride_a, const void *B,
    cudaDataType b_type, int ldb, long long stride_b, const void *beta, void *C,
    cudaDataType c_type, int ldc, long long stride_c, int batch,
    cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    (void)algorithm; // a hint for speed
    return multiply(handle, (shape){ta, tb, m, n, k, batch}, alpha,
                    (argument){a_type, lda, stride_a, A, NULL},
                    (argument){b_type, ldb, stride_b, B, NULL}, beta,
                    (argument){c_type, ldc, stride_c, C, NULL}, compute);
}

cublasStatus_t cublasGemmEx(DLS_GEMM_ENDS, const void *alpha, const void *A,
    cudaDataType a_type, int lda, const void *B, cudaDataType b_type, int ldb,
    const void *beta, void *C, cudaDataType c_type, int ldc, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, A, a_type, lda, 0,
                                      B, b_type, ldb, 0, beta, C, c_type, ldc, 0, 1,
                                      compute, algorithm);
}

cublasStatus_t cublasGemmBatchedEx(DLS_GEMM_ENDS, const void *alpha,
    const void *const A[], cudaDataType a_type, int lda, const void *const B[],
    cudaDataType b_type, int ldb, const void *beta, void *const C[], cudaDataType c_type,
    int ldc, int batch, cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    (void)algorithm;
    return multiply(handle, (shape){ta, tb, m, n, k, batch}, alpha,
                    (argument){a_type, lda, 0, NULL, A},
                    (argument){b_type, ldb, 0, NULL, B}, beta,
                    (argument){c_type, ldc, 0, NULL, (const void *const *)C}, compute);
}

#define FAMILY(letter, T, TYPE, COMPUTE)                                                \
    cublasStatus_t cublas##letter##gemm(DLS_GEMM_ENDS, const T *alpha, const T *A,      \
        int lda, const T *B, int ldb, const T *beta, T *C, int ldc)                     \
    {                                                                                   \
        return cublasGemmEx(handle, ta, tb, m, n, k, alpha, A, TYPE, lda, B, TYPE, ldb, \
                            beta, C, TYPE, ldc, COMPUTE, CUBLAS_GEMM_DEFAULT);          \
    }                                                                                   \
    cublasStatus_t cublas##letter##gemmStridedBatched(DLS_GEMM_ENDS, const T *alpha,    \
        const T *A, int lda, long long stride_a, const T *B, int ldb,                   \
        long long stride_b, const T *beta, T *C, int ldc, long long stride_c,           \
        int batch)                                                                      \
    {                                                                                   \
        return cublasGemmStridedBatchedEx(                                              \
            handle, ta, tb, m, n, k, alpha, A, TYPE, lda, stride_a, B, TYPE, ldb,       \
            stride_b, beta, C, TYPE, ldc, stride_c, batch, COMPUTE,                     \
            CUBLAS_GEMM_DEFAULT);                                                       \
    }                                                                                   \
    cublasStatus_t cublas##letter##gemmBatched(DLS_GEMM_ENDS, const T *alpha,           \
        const T *const A[], int lda, const T *const B[], int ldb, const T *beta,        \
        T *const C[], int ldc, int batch)                                               \
    {                                                                                   \
        return cublasGemmBatchedEx(                                                     \
            handle, ta, tb, m, n, k, alpha, (const void *const *)A, TYPE, lda,          \
            (const void *const *)B, TYPE, ldb, beta, (void *const *)C, TYPE, ldc,       \
            batch, COMPUTE, CUBLAS_GEMM_DEFAULT);                                       \
    }

FAMILY(S, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
FAMILY(D, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)
FAMILY(H, __half, CUDA_R_16F, CUBLAS_COMPUTE_16F)

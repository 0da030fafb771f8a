/* code/vgpu/shadow/cublas_v2.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* The part of cuBLAS that the virtual backend implements. Matrices are column-major: the
 * element (i, j) of an m×n matrix with leading dimension ld ≥ m is a[i + j*ld]. */
#ifndef DLS_SHADOW_CUBLAS_V2_H
#define DLS_SHADOW_CUBLAS_V2_H

#include "cuda_runtime.h"
#include "library_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare cublas handles and modes */
typedef struct cublasContext *cublasHandle_t;
typedef enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3, CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13, CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
} cublasStatus_t;
typedef enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 } cublasOperation_t;
typedef enum {
    CUBLAS_POINTER_MODE_HOST = 0, CUBLAS_POINTER_MODE_DEVICE = 1
} cublasPointerMode_t;
typedef enum {
    CUBLAS_DEFAULT_MATH = 0, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3
} cublasMath_t;

cublasStatus_t cublasCreate(cublasHandle_t *handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
cublasStatus_t cublasGetVersion(cublasHandle_t handle, int *version);
const char *cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t *mode);
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode);

typedef enum {
    CUBLAS_COMPUTE_16F = 64, CUBLAS_COMPUTE_16F_PEDANTIC = 65, CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_PEDANTIC = 69, CUBLAS_COMPUTE_64F = 70,
    CUBLAS_COMPUTE_64F_PEDANTIC = 71, CUBLAS_COMPUTE_32I = 72,
    CUBLAS_COMPUTE_32I_PEDANTIC = 73, CUBLAS_COMPUTE_32F_FAST_16F = 74,
    CUBLAS_COMPUTE_32F_FAST_16BF = 75, CUBLAS_COMPUTE_32F_FAST_TF32 = 77
} cublasComputeType_t;
typedef enum {
    CUBLAS_GEMM_DEFAULT = -1, CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99
} cublasGemmAlgo_t;

/* declare cublas products */
cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const float *alpha, const float *A,
    int lda, const float *B, int ldb, const float *beta, float *C, int ldc);
cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const double *alpha, const double *A,
    int lda, const double *B, int ldb, const double *beta, double *C, int ldc);
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const float *alpha, const float *A,
    int lda, long long stride_a, const float *B, int ldb, long long stride_b,
    const float *beta, float *C, int ldc, long long stride_c, int batch);
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const double *alpha, const double *A,
    int lda, long long stride_a, const double *B, int ldb, long long stride_b,
    const double *beta, double *C, int ldc, long long stride_c, int batch);
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *A,
    cudaDataType a_type, int lda, const void *B, cudaDataType b_type, int ldb,
    const void *beta, void *C, cudaDataType c_type, int ldc, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm);
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *A,
    cudaDataType a_type, int lda, long long stride_a, const void *B, cudaDataType b_type,
    int ldb, long long stride_b, const void *beta, void *C, cudaDataType c_type, int ldc,
    long long stride_c, int batch, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm);
cublasStatus_t cublasSgemmBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const float *alpha,
    const float *const A[], int lda, const float *const B[], int ldb, const float *beta,
    float *const C[], int ldc, int batch);
cublasStatus_t cublasDgemmBatched(cublasHandle_t handle, cublasOperation_t ta,
    cublasOperation_t tb, int m, int n, int k, const double *alpha,
    const double *const A[], int lda, const double *const B[], int ldb,
    const double *beta, double *const C[], int ldc, int batch);

#ifdef __cplusplus
}
#endif
#endif

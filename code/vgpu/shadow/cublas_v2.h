/* code/vgpu/shadow/cublas_v2.h: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* The part of cuBLAS that the virtual backend implements. Matrices are column-major: the
 * element (i, j) of an m×n matrix with leading dimension ld ≥ m is a[i + j*ld]. The real
 * header maps cublasSgemm to cublasSgemm_v2 by a macro; here is no first generation. */
#ifndef DLS_SHADOW_CUBLAS_V2_H
#define DLS_SHADOW_CUBLAS_V2_H

#include <stdint.h>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"
#include "library_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare cublas handles and modes */
typedef struct cublasContext *cublasHandle_t;
typedef enum {
    CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3, CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_ARCH_MISMATCH = 8, CUBLAS_STATUS_MAPPING_ERROR = 11,
    CUBLAS_STATUS_EXECUTION_FAILED = 13, CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15, CUBLAS_STATUS_LICENSE_ERROR = 16
} cublasStatus_t;
typedef enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 } cublasOperation_t;
typedef enum { CUBLAS_SIDE_LEFT = 0, CUBLAS_SIDE_RIGHT = 1 } cublasSideMode_t;
typedef enum {
    CUBLAS_FILL_MODE_LOWER = 0, CUBLAS_FILL_MODE_UPPER = 1, CUBLAS_FILL_MODE_FULL = 2
} cublasFillMode_t;
typedef enum { CUBLAS_DIAG_NON_UNIT = 0, CUBLAS_DIAG_UNIT = 1 } cublasDiagType_t;
typedef enum {
    CUBLAS_POINTER_MODE_HOST = 0, CUBLAS_POINTER_MODE_DEVICE = 1
} cublasPointerMode_t;
typedef enum {
    CUBLAS_ATOMICS_NOT_ALLOWED = 0, CUBLAS_ATOMICS_ALLOWED = 1
} cublasAtomicsMode_t;
typedef enum {
    CUBLAS_DEFAULT_MATH = 0, CUBLAS_TENSOR_OP_MATH = 1, CUBLAS_PEDANTIC_MATH = 2,
    CUBLAS_TF32_TENSOR_OP_MATH = 3, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16
} cublasMath_t;
typedef enum {
    CUBLAS_COMPUTE_16F = 64, CUBLAS_COMPUTE_16F_PEDANTIC = 65, CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_PEDANTIC = 69, CUBLAS_COMPUTE_64F = 70,
    CUBLAS_COMPUTE_64F_PEDANTIC = 71, CUBLAS_COMPUTE_32I = 72,
    CUBLAS_COMPUTE_32I_PEDANTIC = 73, CUBLAS_COMPUTE_32F_FAST_16F = 74,
    CUBLAS_COMPUTE_32F_FAST_16BF = 75, CUBLAS_COMPUTE_32F_FAST_TF32 = 77
} cublasComputeType_t;
typedef enum {
    CUBLAS_GEMM_DFALT = -1, CUBLAS_GEMM_DEFAULT = -1, CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99
} cublasGemmAlgo_t;

cublasStatus_t cublasCreate(cublasHandle_t *handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t *mode);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
cublasStatus_t cublasSetMatrix(int rows, int columns, int element, const void *from,
                               int from_ld, void *to, int to_ld);
cublasStatus_t cublasGetMatrix(int rows, int columns, int element, const void *from,
                               int from_ld, void *to, int to_ld);
cublasStatus_t cublasSetVector(int n, int element, const void *from, int from_step,
                               void *to, int to_step);
cublasStatus_t cublasGetVector(int n, int element, const void *from, int from_step,
                               void *to, int to_step);
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode);
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t mode);
cublasStatus_t cublasGetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t *mode);
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes);
cublasStatus_t cublasGetVersion(cublasHandle_t handle, int *version);
const char *cublasGetStatusName(cublasStatus_t status);
const char *cublasGetStatusString(cublasStatus_t status);

/* declare cublas products */
#define DLS_GEMM_ENDS cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, \
                      int m, int n, int k
#define DLS_DECLARE_GEMM(letter, T)                                                     \
    cublasStatus_t cublas##letter##gemm(DLS_GEMM_ENDS, const T *alpha, const T *A,      \
        int lda, const T *B, int ldb, const T *beta, T *C, int ldc);                    \
    cublasStatus_t cublas##letter##gemmStridedBatched(DLS_GEMM_ENDS, const T *alpha,    \
        const T *A, int lda, long long stride_a, const T *B, int ldb,                   \
        long long stride_b, const T *beta, T *C, int ldc, long long stride_c,           \
        int batch);                                                                     \
    cublasStatus_t cublas##letter##gemmBatched(DLS_GEMM_ENDS, const T *alpha,           \
        const T *const A[], int lda, const T *const B[], int ldb, const T *beta,        \
        T *const C[], int ldc, int batch);
DLS_DECLARE_GEMM(S, float)
DLS_DECLARE_GEMM(D, double)
DLS_DECLARE_GEMM(H, __half)
#undef DLS_DECLARE_GEMM

cublasStatus_t cublasGemmEx(DLS_GEMM_ENDS, const void *alpha, const void *A,
    cudaDataType a_type, int lda, const void *B, cudaDataType b_type, int ldb,
    const void *beta, void *C, cudaDataType c_type, int ldc, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm);
cublasStatus_t cublasGemmStridedBatchedEx(DLS_GEMM_ENDS, const void *alpha,
    const void *A, cudaDataType a_type, int lda, long long stride_a, const void *B,
    cudaDataType b_type, int ldb, long long stride_b, const void *beta, void *C,
    cudaDataType c_type, int ldc, long long stride_c, int batch,
    cublasComputeType_t compute, cublasGemmAlgo_t algorithm);
cublasStatus_t cublasGemmBatchedEx(DLS_GEMM_ENDS, const void *alpha,
    const void *const A[], cudaDataType a_type, int lda, const void *const B[],
    cudaDataType b_type, int ldb, const void *beta, void *const C[], cudaDataType c_type,
    int ldc, int batch, cublasComputeType_t compute, cublasGemmAlgo_t algorithm);

/* declare cublas vectors */
#define DLS_DECLARE_VECTORS(letter, T)                                                  \
    cublasStatus_t cublas##letter##axpy(cublasHandle_t handle, int n, const T *alpha,   \
        const T *x, int incx, T *y, int incy);                                          \
    cublasStatus_t cublas##letter##scal(cublasHandle_t handle, int n, const T *alpha,   \
        T *x, int incx);                                                                \
    cublasStatus_t cublas##letter##copy(cublasHandle_t handle, int n, const T *x,       \
        int incx, T *y, int incy);                                                      \
    cublasStatus_t cublas##letter##dot(cublasHandle_t handle, int n, const T *x,        \
        int incx, const T *y, int incy, T *result);                                     \
    cublasStatus_t cublas##letter##nrm2(cublasHandle_t handle, int n, const T *x,       \
        int incx, T *result);                                                           \
    cublasStatus_t cublas##letter##asum(cublasHandle_t handle, int n, const T *x,       \
        int incx, T *result);                                                           \
    cublasStatus_t cublas##letter##gemv(cublasHandle_t handle, cublasOperation_t trans, \
        int m, int n, const T *alpha, const T *A, int lda, const T *x, int incx,        \
        const T *beta, T *y, int incy);                                                 \
    cublasStatus_t cublas##letter##ger(cublasHandle_t handle, int m, int n,             \
        const T *alpha, const T *x, int incx, const T *y, int incy, T *A, int lda);     \
    cublasStatus_t cublas##letter##trsm(cublasHandle_t handle, cublasSideMode_t side,   \
        cublasFillMode_t uplo, cublasOperation_t trans, cublasDiagType_t diag, int m,   \
        int n, const T *alpha, const T *A, int lda, T *B, int ldb);                     \
    cublasStatus_t cublas##letter##geam(cublasHandle_t handle, cublasOperation_t ta,    \
        cublasOperation_t tb, int m, int n, const T *alpha, const T *A, int lda,        \
        const T *beta, const T *B, int ldb, T *C, int ldc);                             \
    cublasStatus_t cublas##letter##dgmm(cublasHandle_t handle, cublasSideMode_t side,   \
        int m, int n, const T *A, int lda, const T *x, int incx, T *C, int ldc);
DLS_DECLARE_VECTORS(S, float)
DLS_DECLARE_VECTORS(D, double)
#undef DLS_DECLARE_VECTORS

cublasStatus_t cublasIsamax(cublasHandle_t handle, int n, const float *x, int incx,
                            int *result);
cublasStatus_t cublasIdamax(cublasHandle_t handle, int n, const double *x, int incx,
                            int *result);
cublasStatus_t cublasIsamin(cublasHandle_t handle, int n, const float *x, int incx,
                            int *result);
cublasStatus_t cublasIdamin(cublasHandle_t handle, int n, const double *x, int incx,
                            int *result);

#ifdef __cplusplus
}
#endif
#endif

/* code/tensor/gemm.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* The general matrix product, row-major and packed:  C = alpha op(A) op(B) + beta C.
 *
 * DLS_GEMM=cublas|naive|tiled chooses who computes it: cuBLAS (default) or one of the two
 * kernels of chapter 2.
 */
#ifndef DLS_TENSOR_GEMM_H
#define DLS_TENSOR_GEMM_H

#include "tensor/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare gemm */
typedef enum dls_gemm_kind {
    DLS_GEMM_CUBLAS, DLS_GEMM_NAIVE, DLS_GEMM_TILED, DLS_GEMM_KINDS
} dls_gemm_kind;

/* op(A) is (M, K): A is (M, K), or (K, M) when trans_a. op(B) is (K, N): B is (K, N), or
 * (N, K) when trans_b. C is (M, N) and overlaps neither. All in ctx->dtype, on ctx's
 * device; enqueued on its stream. C is not read when beta is 0; A and B are not read when
 * alpha is 0. K may be 0: the empty sum.
 * Errors: DLS_ERR_STATE for a negative size; DLS_ERR_INPUT for a bad DLS_GEMM. */
dls_status dls_gemm(dls_ctx *ctx, int trans_a, int trans_b, int M, int N, int K,
                    double alpha, const void *A, const void *B, double beta, void *C);

/* The same with C in c_dtype: ctx->dtype or its accumulator's type. The sum is formed in
 * the latter, and rounded once. Errors: DLS_ERR_INPUT for another c_dtype. */
dls_status dls_gemm_into(dls_ctx *ctx, int trans_a, int trans_b, int M, int N, int K,
                         double alpha, const void *A, const void *B, double beta, void *C,
                         dls_dtype c_dtype);

/* The same by a given implementation, whatever DLS_GEMM says. */
dls_status dls_gemm_with(dls_ctx *ctx, dls_gemm_kind kind, int trans_a, int trans_b,
                         int M, int N, int K, double alpha, const void *A, const void *B,
                         double beta, void *C, dls_dtype c_dtype);

#ifdef __cplusplus
}
#endif
#endif

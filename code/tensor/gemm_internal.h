/* code/tensor/gemm_internal.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to gemm.c and gemm.cu: one product, and the kernels of the chapter. */
#ifndef DLS_TENSOR_GEMM_INTERNAL_H
#define DLS_TENSOR_GEMM_INTERNAL_H

#include "tensor/gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a gemm call */
struct dls_gemm_call {
    int trans_a, trans_b, M, N, K;
    double alpha, beta;
    const void *A, *B;
    void *C;
    dls_dtype c_dtype;
};

dls_status dls_gemm_naive(dls_ctx *ctx, const struct dls_gemm_call *call);
dls_status dls_gemm_tiled(dls_ctx *ctx, const struct dls_gemm_call *call);

#ifdef __cplusplus
}
#endif
#endif

/* code/tensor/gemm.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_gemm: checks, the choice of the implementation, and cuBLAS. The kernels of the
 * chapter are in gemm.cu.
 *
 * Row-major memory is the column-major memory of the transpose, so cuBLAS is asked for
 * C^T = op(B)^T op(A)^T: operands exchanged, flags unchanged.
 */
#include "tensor/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "tensor/gemm_internal.h"

static int at_least_1(int n)
{
    return n > 1 ? n : 1;
}

/* multiply through cublas */
static dls_status multiply_by_cublas(dls_ctx *ctx, const struct dls_gemm_call *g)
{
    cublasOperation_t op_a = g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int lda = at_least_1(g->trans_a ? g->M : g->K);
    int ldb = at_least_1(g->trans_b ? g->K : g->N);
    float alpha = (float)g->alpha, beta = (float)g->beta;
    /* annotate the cost of gemm */
    double size = (double)dls_dtype_size(ctx->dtype), M = g->M, N = g->N, K = g->K;
    double result = (double)dls_dtype_size(g->c_dtype);
    dls_gpu_cost("gemm", 2 * M * N * K,
                 size * (M * K + K * N) + result * (g->beta ? 2 : 1) * M * N);
    if (ctx->dtype == DLS_F32)
        DLS_CUBLAS(cublasSgemm(ctx->blas, op_b, op_a, g->N, g->M, g->K, &alpha, g->B, ldb,
                               g->A, lda, &beta, g->C, g->N));
    else if (ctx->dtype == DLS_F64)
        DLS_CUBLAS(cublasDgemm(ctx->blas, op_b, op_a, g->N, g->M, g->K, &g->alpha,
                               g->B, ldb, g->A, lda, &g->beta, g->C, g->N));
    else
        DLS_CUBLAS(cublasGemmEx(ctx->blas, op_b, op_a, g->N, g->M, g->K, &alpha, g->B,
                                CUDA_R_16BF, ldb, g->A, CUDA_R_16BF, lda, &beta, g->C,
                                g->c_dtype == DLS_BF16 ? CUDA_R_16BF : CUDA_R_32F, g->N,
                                CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    return DLS_OK;
}

/* choose the gemm */
static const char *const kinds[DLS_GEMM_KINDS] = {
    [DLS_GEMM_CUBLAS] = "cublas", [DLS_GEMM_NAIVE] = "naive", [DLS_GEMM_TILED] = "tiled"};

static dls_status wanted_kind(dls_gemm_kind *kind)
{
    const char *word = getenv("DLS_GEMM");
    *kind = DLS_GEMM_CUBLAS;
    if (!word || !*word)
        return DLS_OK;
    for (int i = 0; i < DLS_GEMM_KINDS; i++)
        if (strcmp(word, kinds[i]) == 0) {
            *kind = (dls_gemm_kind)i;
            return DLS_OK;
        }
    const char *near = dls_suggest(word, kinds, DLS_GEMM_KINDS);
    return DLS_FAIL(DLS_ERR_INPUT, "DLS_GEMM: expected cublas, naive or tiled, got "
                    "\"%.40s\"%s%s%s", word, near ? "; did you mean " : "",
                    near ? near : "", near ? "?" : "");
}

/* check and multiply */
dls_status dls_gemm_with(dls_ctx *ctx, dls_gemm_kind kind, int trans_a, int trans_b,
                         int M, int N, int K, double alpha, const void *A, const void *B,
                         double beta, void *C, dls_dtype c_dtype)
{
    struct dls_gemm_call call = {trans_a, trans_b, M, N, K, alpha, beta, A, B, C,
                                 c_dtype};
    if (M < 0 || N < 0 || K < 0)
        return DLS_FAIL(DLS_ERR_STATE, "gemm: negative size: M %d, N %d, K %d", M, N, K);
    if (c_dtype != ctx->dtype && c_dtype != dls_dtype_accumulator(ctx->dtype))
        return DLS_FAIL(DLS_ERR_INPUT, "gemm: a product of %s matrices can not be %s",
                        dls_dtype_name(ctx->dtype), dls_dtype_name(c_dtype));
    if (M == 0 || N == 0)
        return DLS_OK;
    switch (kind) {
    case DLS_GEMM_CUBLAS: return multiply_by_cublas(ctx, &call);
    case DLS_GEMM_NAIVE: return dls_gemm_naive(ctx, &call);
    case DLS_GEMM_TILED: return dls_gemm_tiled(ctx, &call);
    default: return DLS_FAIL(DLS_ERR_STATE, "gemm: unknown implementation %d", (int)kind);
    }
}

dls_status dls_gemm_into(dls_ctx *ctx, int trans_a, int trans_b, int M, int N, int K,
                         double alpha, const void *A, const void *B, double beta, void *C,
                         dls_dtype c_dtype)
{
    dls_gemm_kind kind;
    DLS_TRY(wanted_kind(&kind));
    return dls_gemm_with(ctx, kind, trans_a, trans_b, M, N, K, alpha, A, B, beta, C,
                         c_dtype);
}

dls_status dls_gemm(dls_ctx *ctx, int trans_a, int trans_b, int M, int N, int K,
                    double alpha, const void *A, const void *B, double beta, void *C)
{
    return dls_gemm_into(ctx, trans_a, trans_b, M, N, K, alpha, A, B, beta, C,
                         ctx->dtype);
}

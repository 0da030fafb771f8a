/* code/kernels/linear.c: from chapters/09-transformer-kernels-linear.md. Edit the chapter, or edit here and run "make untangle". */
/* Linear layers. What can be one product with an epilogue goes to cublasLt; what can not
 * is made of the operations of the sections before, which compute the same.
 *
 * Row-major (N, OC) is column-major (OC, N): as in gemm.c, cublasLt is asked for the
 * transpose, with the weight as its first factor. Then the bias runs along its columns,
 * which is where cublasLt wants it.
 */
#include "kernels/linear.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "kernels/bias.h"
#include "kernels/gelu.h"

/* choose fused or separate */
static const char *const ways[] = {"fused", "separate"};

/* *fused = 1 when nothing speaks against one product with an epilogue over `columns`. */
static dls_status wanted_way(const dls_ctx *ctx, int columns, int *fused)
{
    const char *word = getenv("DLS_LINEAR");
    *fused = ctx->dtype != DLS_F64 && columns % 8 == 0;
    if (!word || !*word || strcmp(word, ways[0]) == 0)
        return DLS_OK;
    *fused = 0;
    if (strcmp(word, ways[1]) == 0)
        return DLS_OK;
    const char *near = dls_suggest(word, ways, 2);
    return DLS_FAIL(DLS_ERR_INPUT, "DLS_LINEAR: expected fused or separate, got \"%.40s\""
                    "%s%s%s", word, near ? "; did you mean " : "", near ? near : "",
                    near ? "?" : "");
}

/* describe a product with an epilogue */
/* D (m, n) = op(A) (m, k) B (k, n), column-major, op(A) = A^T when turned, and then what
 * the epilogue says with bias (m) and aux (m, n). */
struct product {
    const char *name;
    int m, n, k, turned;
    const void *A, *B;
    void *D;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    void *aux;
};

static dls_status describe(cublasLtMatmulDesc_t desc, const struct product *p)
{
    cublasOperation_t turned = p->turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    int64_t ld = p->m;
    DLS_CUBLAS(cublasLtMatmulDescInit(desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    DLS_CUBLAS(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                              sizeof turned));
    DLS_CUBLAS(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                              &p->epilogue, sizeof p->epilogue));
    DLS_CUBLAS(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                              &p->bias, sizeof p->bias));
    if (!p->aux)
        return DLS_OK;
    DLS_CUBLAS(cublasLtMatmulDescSetAttribute(
        desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p->aux, sizeof p->aux));
    DLS_CUBLAS(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
                                              &ld, sizeof ld));
    return DLS_OK;
}

/* multiply with an epilogue */
static dls_status multiply(dls_ctx *ctx, const struct product *p, int *done)
{
    cudaDataType type = ctx->dtype == DLS_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, d;
    const float one = 1, zero = 0;
    double m = p->m, n = p->n, k = p->k, s = (double)dls_dtype_size(ctx->dtype);
    DLS_TRY(describe(&desc, p));
    int rows = p->turned ? p->k : p->m, columns = p->turned ? p->m : p->k;
    DLS_CUBLAS(cublasLtMatrixLayoutInit(&a, type, rows, columns, rows));
    DLS_CUBLAS(cublasLtMatrixLayoutInit(&b, type, p->k, p->n, p->k));
    DLS_CUBLAS(cublasLtMatrixLayoutInit(&d, type, p->m, p->n, p->m));
    dls_gpu_cost(p->name, 2 * m * n * k,
                 s * (m * k + k * n + m * n * (p->aux ? 2 : 1) + (p->bias ? m : 0)));
    cublasStatus_t status = cublasLtMatmul((cublasLtHandle_t)ctx->blas, &desc, &one, p->A,
                                           &a, p->B, &b, &zero, p->D, &d, p->D, &d, NULL,
                                           NULL, 0, ctx->stream);
    *done = status != CUBLAS_STATUS_NOT_SUPPORTED;
    if (*done)
        DLS_CUBLAS(status);
    return DLS_OK;
}

/* run linear layers */
dls_status dls_linear_forward(dls_ctx *ctx, void *out, const void *x, const void *weight,
                              const void *bias, int N, int C, int OC)
{
    struct product p = {"linear forward", OC, N, C, 1, weight, x, out,
                        CUBLASLT_EPILOGUE_BIAS, bias, NULL};
    int fused, done = 0;
    DLS_TRY(wanted_way(ctx, OC, &fused));
    if (N == 0 || OC == 0)
        return DLS_OK;
    if (fused && bias && C > 0)
        DLS_TRY(multiply(ctx, &p, &done));
    if (done)
        return DLS_OK;
    DLS_TRY(dls_gemm(ctx, 0, 1, N, OC, C, 1, x, weight, 0, out));
    return bias ? dls_bias_add(ctx, out, bias, N, OC) : DLS_OK;
}

dls_status dls_linear_gelu_forward(dls_ctx *ctx, void *out, void *pre, const void *x,
                                   const void *weight, const void *bias, int N, int C,
                                   int OC)
{
    cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                       : CUBLASLT_EPILOGUE_GELU_AUX;
    struct product p = {"linear gelu forward", OC, N, C, 1, weight, x, out, epilogue,
                        bias, pre};
    int fused, done = 0;
    DLS_TRY(wanted_way(ctx, OC, &fused));
    if (N == 0 || OC == 0)
        return DLS_OK;
    if (fused && C > 0)
        DLS_TRY(multiply(ctx, &p, &done));
    if (done)
        return DLS_OK;
    DLS_TRY(dls_linear_forward(ctx, pre, x, weight, bias, N, C, OC));
    return dls_gelu_forward(ctx, out, pre, (size_t)N * OC);
}

dls_status dls_linear_backward_input(dls_ctx *ctx, void *dx, const void *dout,
                                     const void *weight, int N, int C, int OC)
{
    return dls_gemm(ctx, 0, 0, N, C, OC, 1, dout, weight, 0, dx);
}

dls_status dls_linear_gelu_backward_input(dls_ctx *ctx, void *dpre, const void *dout,
                                          const void *weight, const void *pre, int N,
                                          int C, int OC)
{
    struct product p = {"linear gelu backward input", C, N, OC, 0, weight, dout, dpre,
                        CUBLASLT_EPILOGUE_DGELU, NULL, (void *)pre};
    int fused, done = 0;
    DLS_TRY(wanted_way(ctx, C, &fused));
    if (N == 0 || C == 0)
        return DLS_OK;
    if (fused && OC > 0)
        DLS_TRY(multiply(ctx, &p, &done));
    if (done)
        return DLS_OK;
    DLS_TRY(dls_linear_backward_input(ctx, dpre, dout, weight, N, C, OC));
    return dls_gelu_backward(ctx, dpre, dpre, pre, (size_t)N * C);
}

dls_status dls_linear_backward_weight(dls_ctx *ctx, double keep, void *dweight,
                                      void *dbias, const void *dout, const void *x, int N,
                                      int C, int OC)
{
    DLS_TRY(dls_gemm_into(ctx, 1, 0, OC, C, N, 1, dout, x, keep, dweight,
                          dls_dtype_accumulator(ctx->dtype)));
    return dbias ? dls_bias_backward(ctx, dbias, dout, N, OC) : DLS_OK;
}

/* code/tensor/context.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* The context: created in order, released in the reverse order. */
#include "tensor/context.h"

/* create a context */
static dls_status open_context(dls_ctx *ctx)
{
    DLS_CUDA(cudaSetDevice(ctx->device));
    DLS_CUDA(cudaStreamCreateWithFlags(&ctx->stream, cudaStreamNonBlocking));
    DLS_CUBLAS(cublasCreate(&ctx->blas));
    DLS_CUBLAS(cublasSetStream(ctx->blas, ctx->stream));
    DLS_CUBLAS(cublasSetMathMode(ctx->blas,
                                 CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION));
    return DLS_OK;
}

dls_status dls_ctx_create(dls_ctx *ctx, int device, dls_dtype dtype)
{
    *ctx = (dls_ctx){.device = device, .dtype = dtype};
    dls_status status = open_context(ctx);
    if (status != DLS_OK)
        dls_ctx_destroy(ctx);
    return status;
}

/* synchronise and destroy a context */
dls_status dls_ctx_sync(dls_ctx *ctx)
{
    DLS_CUDA(cudaStreamSynchronize(ctx->stream));
    return DLS_OK;
}

void dls_ctx_destroy(dls_ctx *ctx)
{
    if (ctx->stream)
        cudaStreamSynchronize(ctx->stream);
    if (ctx->blas)
        cublasDestroy(ctx->blas);
    if (ctx->stream)
        cudaStreamDestroy(ctx->stream);
    *ctx = (dls_ctx){.device = ctx->device};
}

/* code/tensor/context.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Where and in what type operations run. One context is used by one thread at a time. */
#ifndef DLS_TENSOR_CONTEXT_H
#define DLS_TENSOR_CONTEXT_H

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include "base/status.h"
#include "tensor/dtype.h"
#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the context */
typedef struct dls_ctx {
    int device;
    cudaStream_t stream;  // every operation of this context is enqueued here, in order
    cublasHandle_t blas;  // bound to the stream
    dls_dtype dtype;      // of all tensors that operations of this context are given
} dls_ctx;

/* declare the context */
/* Makes `device` the calling thread's current one; creates a stream and a handle on it.
 * Errors: DLS_ERR_DEVICE; *ctx is then safe to destroy. */
dls_status dls_ctx_create(dls_ctx *ctx, int device, dls_dtype dtype);

/* The same context for tensors of the accumulator type: to add losses or gradients up,
 * say. It shares stream and handle, and must not be destroyed. */
static inline dls_ctx dls_ctx_accumulator(const dls_ctx *ctx)
{
    dls_ctx wide = *ctx;
    wide.dtype = dls_dtype_accumulator(ctx->dtype);
    return wide;
}

/* Waits until everything enqueued is done. Errors of those operations arrive here. */
dls_status dls_ctx_sync(dls_ctx *ctx);

/* Waits, and releases stream and handle. A zeroed or destroyed context is allowed. */
void dls_ctx_destroy(dls_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif

/* code/train/batch.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/* Batches: two page-locked host buffers in turn, one device buffer in stream order. */
#include "train/batch.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/memory.h"

/* load a batch */
dls_status dls_batch_load(dls_batch *b, const unsigned char *bytes,
                          const uint64_t *offsets, int rows)
{
    int *tokens = b->host[b->turn], *targets = tokens + (size_t)rows * b->T;
    DLS_CUDA(cudaEventSynchronize(b->copied[b->turn]));
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < b->T; t++) {
            uint64_t at = offsets[r] + (uint64_t)(b->where ? b->where[t] : t);
            tokens[(size_t)r * b->T + t] = bytes[at];
            targets[(size_t)r * b->T + t] = bytes[at + 1];
        }
    DLS_CUDA(cudaMemcpyAsync(b->device, tokens, 2 * (size_t)rows * b->T * sizeof(int),
                             cudaMemcpyHostToDevice, b->ctx->stream));
    DLS_CUDA(cudaEventRecord(b->copied[b->turn], b->ctx->stream));
    b->turn ^= 1;
    b->rows = rows;
    return DLS_OK;
}

const int *dls_batch_tokens(const dls_batch *b, int row)
{
    return b->device + (size_t)row * b->T;
}

const int *dls_batch_targets(const dls_batch *b, int row)
{
    return b->device + ((size_t)b->rows + row) * b->T;
}

const int *dls_batch_host_tokens(const dls_batch *b, int row)
{
    return b->host[b->turn ^ 1] + (size_t)row * b->T;
}

/* create a batch */
dls_status dls_batch_create(dls_batch *b, dls_ctx *ctx, int max_rows, int T)
{
    size_t bytes = dls_batch_predict_memory(max_rows, T);
    *b = (dls_batch){.ctx = ctx, .max_rows = max_rows, .T = T};
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_ACTIVATIONS);
    cudaError_t e = cudaMalloc((void **)&b->device, bytes);
    dls_gpu_memory_purpose(before);
    DLS_CUDA(e);
    for (int i = 0; i < 2; i++) {
        DLS_CUDA(cudaMallocHost((void **)&b->host[i], bytes));
        DLS_CUDA(cudaEventCreateWithFlags(&b->copied[i], cudaEventDisableTiming));
    }
    return DLS_OK;
}

size_t dls_batch_predict_positions(int pass_rows, int T)
{
    return (size_t)pass_rows * T * sizeof(int);
}

dls_status dls_batch_place(dls_batch *b, const int *where, int pass_rows)
{
    size_t row = (size_t)b->T * sizeof(int);
    b->where = malloc(row);
    if (!b->where)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d positions", b->T);
    memcpy(b->where, where, row);
    DLS_TRY(dls_device_alloc((void **)&b->positions, (size_t)pass_rows * b->T, DLS_F32,
                             DLS_MEM_ACTIVATIONS));
    for (int r = 0; r < pass_rows; r++)
        DLS_CUDA(cudaMemcpy((char *)b->positions + (size_t)r * row, where, row,
                            cudaMemcpyHostToDevice));
    return DLS_OK;
}

size_t dls_batch_predict_memory(int max_rows, int T)
{
    return 2 * (size_t)max_rows * T * sizeof(int);
}

void dls_batch_destroy(dls_batch *b)
{
    cudaFree(b->device);
    dls_device_free(b->positions);
    free(b->where);
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(b->host[i]);
        if (b->copied[i])
            cudaEventDestroy(b->copied[i]);
    }
    *b = (dls_batch){0};
}

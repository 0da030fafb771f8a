/* code/parallel/tensor/mlp_1d.c: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Two products and an all-reduce; four products and an all-reduce. */
#include "parallel/tensor/mlp_1d.h"

#include "kernels/bias.h"
#include "kernels/gelu.h"
#include "layers/param.h"
#include "parallel/tensor/grid.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* open an mlp in one dimension */
static dls_status take_memory(dls_mlp_1d *m)
{
    dls_dtype dtype = m->ctx->dtype, wide = dls_dtype_accumulator(dtype);
    size_t h = (size_t)m->h, f = (size_t)m->f, n = 2 * h * f + f + h;
    void **inner[] = {&m->u, &m->a, &m->da};
    m->at[1] = h * f;
    m->at[2] = m->at[1] + f;
    m->at[3] = m->at[2] + h * f;
    DLS_TRY(dls_flat_buffer((void **)&m->values, n * dls_dtype_size(dtype),
                            DLS_MEM_PARAMETERS));
    DLS_TRY(dls_flat_buffer((void **)&m->grads, n * dls_dtype_size(wide),
                            DLS_MEM_GRADIENTS));
    DLS_CUDA(cudaMemset(m->grads, 0, n * dls_dtype_size(wide)));
    for (int i = 0; i < 3; i++)
        DLS_TRY(dls_flat_buffer(inner[i], (size_t)m->M * f * dls_dtype_size(dtype) + 1,
                                DLS_MEM_ACTIVATIONS));
    return DLS_OK;
}

dls_status dls_mlp_1d_open(dls_mlp_1d *m, dls_ctx *ctx, dls_comm *comm, int rows,
                           int channels, int hidden)
{
    int p = comm ? dls_comm_size(comm) : 1, rank = comm ? dls_comm_rank(comm) : 0;
    *m = (dls_mlp_1d){.ctx = ctx, .comm = p > 1 ? comm : NULL, .M = rows, .h = channels,
                      .f = dls_cut_size(hidden, p, rank)};
    DLS_CUDA(cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking));
    DLS_CUDA(cudaEventCreateWithFlags(&m->made, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&m->summed, cudaEventDisableTiming));
    return take_memory(m);
}

void dls_mlp_1d_close(dls_mlp_1d *m)
{
    void *memory[] = {m->values, m->grads, m->u, m->a, m->da};
    for (int i = 0; i < 5; i++)
        dls_device_free(memory[i]);
    if (m->made)
        cudaEventDestroy(m->made);
    if (m->summed)
        cudaEventDestroy(m->summed);
    if (m->stream)
        cudaStreamDestroy(m->stream);
    *m = (dls_mlp_1d){0};
}

/* sum over the ranks */
/* Enqueues the sum of rows (M, h) behind what the compute stream has so far... */
static dls_status begin_sum(const dls_mlp_1d *m, void *rows)
{
    DLS_CUDA(cudaEventRecord(m->made, m->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(m->stream, m->made, 0));
    if (m->comm)
        DLS_TRY(dls_comm_all_reduce(m->comm, rows, (size_t)m->M * (size_t)m->h,
                                    m->ctx->dtype, DLS_SUM, m->stream));
    DLS_CUDA(cudaEventRecord(m->summed, m->stream));
    return DLS_OK;
}

/* ... and lets the compute stream wait for it. */
static dls_status end_sum(const dls_mlp_1d *m)
{
    DLS_CUDA(cudaStreamWaitEvent(m->ctx->stream, m->summed, 0));
    return DLS_OK;
}

/* run an mlp in one dimension */
static void *value(const dls_mlp_1d *m, int i)
{
    return m->values + m->at[i] * dls_dtype_size(m->ctx->dtype);
}

static void *grad(const dls_mlp_1d *m, int i)
{
    return m->grads + m->at[i] * dls_dtype_size(dls_dtype_accumulator(m->ctx->dtype));
}

dls_status dls_mlp_1d_forward(dls_mlp_1d *m, void *y, const void *x)
{
    dls_ctx *c = m->ctx;
    DLS_TRY(dls_gemm(c, 0, 0, m->M, m->f, m->h, 1, x, value(m, 0), 0, m->u));
    DLS_TRY(dls_bias_add(c, m->u, value(m, 1), m->M, m->f));
    DLS_TRY(dls_gelu_forward(c, m->a, m->u, (size_t)m->M * (size_t)m->f));
    DLS_TRY(dls_gemm(c, 0, 0, m->M, m->h, m->f, 1, m->a, value(m, 2), 0, y));
    DLS_TRY(begin_sum(m, y));
    DLS_TRY(end_sum(m));
    return dls_bias_add(c, y, value(m, 3), m->M, m->h);
}

dls_status dls_mlp_1d_backward(dls_mlp_1d *m, void *dx, const void *dy, const void *x)
{
    dls_ctx *c = m->ctx;
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    int M = m->M, h = m->h, f = m->f;
    DLS_TRY(dls_gemm(c, 0, 1, M, f, h, 1, dy, value(m, 2), 0, m->da));
    DLS_TRY(dls_gemm_into(c, 1, 0, f, h, M, 1, m->a, dy, 1, grad(m, 2), wide));
    DLS_TRY(dls_bias_backward(c, grad(m, 3), dy, M, h));
    DLS_TRY(dls_gelu_backward(c, m->da, m->da, m->u, (size_t)M * (size_t)f));
    DLS_TRY(dls_gemm(c, 0, 1, M, h, f, 1, m->da, value(m, 0), 0, dx));
    DLS_TRY(begin_sum(m, dx));
    DLS_TRY(dls_gemm_into(c, 1, 0, h, f, M, 1, x, m->da, 1, grad(m, 0), wide));
    DLS_TRY(dls_bias_backward(c, grad(m, 1), m->da, M, f));
    return end_sum(m);
}

/* code/train/meter.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The meter: sums of losses, norms and events for a window of steps.
 *
 *   losses | step 0 | step 1 | ... | step w-1 | evaluation | scratch |   device
 */
#include "train/meter.h"

#include <stdlib.h>

#include "comm/scratch.h"
#include "kernels/kernels.h"
#include "vgpu/gpu.h"

/* add to the meter */
static void *loss_slot(const dls_meter *m, int slot)
{
    return (char *)m->losses + (size_t)slot * dls_dtype_size(m->ctx.dtype);
}

static dls_status clear_slot(dls_meter *m, int slot)
{
    DLS_CUDA(cudaMemsetAsync(loss_slot(m, slot), 0, dls_dtype_size(m->ctx.dtype),
                             m->ctx.stream));
    return DLS_OK;
}

static dls_status add_losses(dls_meter *m, int slot, const void *losses, size_t N)
{
    void *scratch = loss_slot(m, m->window + 1), *to = loss_slot(m, slot);
    DLS_TRY(dls_sum(&m->ctx, scratch, losses, N));
    return dls_add(&m->ctx, to, to, scratch, 1);
}

dls_status dls_meter_begin(dls_meter *m)
{
    if (m->n == m->window)
        return DLS_FAIL(DLS_ERR_STATE, "the meter has room for %d steps", m->window);
    DLS_CUDA(cudaEventRecord(m->begin[m->n], m->ctx.stream));
    return clear_slot(m, m->n);
}

dls_status dls_meter_add(dls_meter *m, const void *losses, size_t N)
{
    return add_losses(m, m->n, losses, N);
}

static dls_status put_norm(dls_meter *m, int i, const double *norm)
{
    DLS_CUDA(cudaMemcpyAsync(m->norms + i, norm, sizeof *norm, cudaMemcpyDeviceToDevice,
                             m->ctx.stream));
    return DLS_OK;
}

dls_status dls_meter_correct(dls_meter *m, const double *norm)
{
    return m->n > 0 ? put_norm(m, m->n - 1, norm) : DLS_OK;
}

dls_status dls_meter_end(dls_meter *m, const double *norm)
{
    DLS_TRY(put_norm(m, m->n, norm));
    DLS_CUDA(cudaEventRecord(m->end[m->n], m->ctx.stream));
    m->n++;
    return DLS_OK;
}

/* read the meter */
static double number_at(const void *numbers, dls_dtype dtype, int i)
{
    return dtype == DLS_F64 ? ((const double *)numbers)[i] : ((const float *)numbers)[i];
}

/* Reduces and copies losses [from, from + n) to the start of m->host, and waits. */
static dls_status fetch_losses(dls_meter *m, dls_comm *comm, int from, int n)
{
    size_t size = dls_dtype_size(m->ctx.dtype);
    DLS_TRY(dls_comm_all_reduce(comm, loss_slot(m, from), (size_t)n, m->ctx.dtype,
                                DLS_SUM, m->ctx.stream));
    DLS_CUDA(cudaMemcpyAsync(m->host, loss_slot(m, from), (size_t)n * size,
                             cudaMemcpyDeviceToHost, m->ctx.stream));
    return dls_ctx_sync(&m->ctx);
}

dls_status dls_meter_read(dls_meter *m, dls_comm *comm, dls_step_record *out)
{
    double *norms = (double *)((char *)m->host + (size_t)(m->window + 2) * 8);
    if (m->n == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemcpyAsync(norms, m->norms, (size_t)m->n * sizeof *norms,
                             cudaMemcpyDeviceToHost, m->ctx.stream));
    DLS_TRY(fetch_losses(m, comm, 0, m->n));
    for (int i = 0; i < m->n; i++) {
        float milliseconds;
        DLS_CUDA(cudaEventElapsedTime(&milliseconds, m->begin[i], m->end[i]));
        out[i] = (dls_step_record){number_at(m->host, m->ctx.dtype, i), norms[i],
                                   milliseconds / 1e3};
    }
    m->n = 0;
    return DLS_OK;
}

/* measure an evaluation */
dls_status dls_meter_begin_evaluation(dls_meter *m)
{
    return clear_slot(m, m->window);
}

dls_status dls_meter_add_evaluation(dls_meter *m, const void *losses, size_t N)
{
    return add_losses(m, m->window, losses, N);
}

dls_status dls_meter_read_evaluation(dls_meter *m, dls_comm *comm, double *sum)
{
    DLS_TRY(fetch_losses(m, comm, m->window, 1));
    *sum = number_at(m->host, m->ctx.dtype, 0);
    return DLS_OK;
}

/* create the meter */
static dls_status make_events(dls_meter *m)
{
    m->begin = calloc((size_t)m->window, sizeof *m->begin);
    m->end = calloc((size_t)m->window, sizeof *m->end);
    m->host = calloc(2 * (size_t)m->window + 2, sizeof(double));
    if (!m->begin || !m->end || !m->host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the meter");
    for (int i = 0; i < m->window; i++) {
        DLS_CUDA(cudaEventCreate(&m->begin[i]));
        DLS_CUDA(cudaEventCreate(&m->end[i]));
    }
    return DLS_OK;
}

size_t dls_meter_predict_memory(int window, dls_dtype dtype)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(dtype));
    return (window + 2) * size + window * sizeof(double);
}

dls_status dls_meter_scratch(dls_comm *comm, int window, dls_dtype dtype, size_t *bytes)
{
    return dls_comm_scratch_within(comm, "all_reduce", (size_t)window,
                                   (int)dls_dtype_accumulator(dtype), bytes);
}

/* allocate the meter */
dls_status dls_meter_create(dls_meter *m, dls_ctx *ctx, int window)
{
    *m = (dls_meter){.ctx = dls_ctx_accumulator(ctx), .window = window};
    size_t size = dls_dtype_size(m->ctx.dtype);
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_ACTIVATIONS);
    cudaError_t a = dls_gpu_alloc_shared(&m->losses, (window + 2) * size);
    cudaError_t b = cudaMalloc((void **)&m->norms, window * sizeof *m->norms);
    dls_gpu_memory_purpose(before);
    DLS_CUDA(a);
    DLS_CUDA(b);
    return make_events(m);
}

/* release the meter */
void dls_meter_destroy(dls_meter *m)
{
    for (int i = 0; m->begin && m->end && i < m->window; i++) {
        if (m->begin[i])
            cudaEventDestroy(m->begin[i]);
        if (m->end[i])
            cudaEventDestroy(m->end[i]);
    }
    cudaFree(m->losses);
    cudaFree(m->norms);
    free(m->begin);
    free(m->end);
    free(m->host);
    *m = (dls_meter){0};
}

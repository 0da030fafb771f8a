/* code/parallel/data/rows.c: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* Summing a matrix in two parts; see rows.h. */
#include "parallel/data/rows.h"

#include <stdlib.h>
#include <string.h>

#include "comm/scratch.h"
#include "kernels/rows.h"
#include "layers/param.h"
#include "vgpu/gpu.h"

/* define shared rows */
struct dls_rows {
    dls_comm *comm;
    dls_ctx *compute, *wire;
    char *grads, *copy;          // (V, C) device
    int V, C, count;             // |U|
    int *numbers;                // (V) device: the rows of U, ascending
    unsigned char *touched;      // (V) device: 1 in U
    int *host_numbers;           // the same two on the host, page-locked
    unsigned char *host_touched;
    unsigned char *all;          // (world, V) host
    cudaEvent_t uploaded, copied, begin, end;
    int early;                   // 1: the last step had an early part
};

/* create shared rows */
void dls_rows_free(dls_rows *r)
{
    if (!r)
        return;
    void *device[] = {r->copy, r->numbers, r->touched};
    for (int i = 0; i < 3; i++)
        dls_device_free(device[i]);
    if (r->host_numbers)
        cudaFreeHost(r->host_numbers);
    if (r->host_touched)
        cudaFreeHost(r->host_touched);
    cudaEvent_t events[] = {r->uploaded, r->copied, r->begin, r->end};
    for (int i = 0; i < 4; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
    free(r->all);
    free(r);
}

static dls_status make_rows(dls_rows *r)
{
    size_t V = (size_t)r->V, bytes = V * (size_t)r->C * dls_dtype_size(r->wire->dtype);
    r->all = malloc((size_t)dls_comm_size(r->comm) * V);
    if (!r->all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d rows", r->V);
    DLS_TRY(dls_flat_buffer((void **)&r->copy, bytes, DLS_MEM_COMMUNICATION));
    DLS_TRY(dls_flat_buffer((void **)&r->numbers, V * sizeof(int),
                            DLS_MEM_COMMUNICATION));
    DLS_TRY(dls_flat_buffer((void **)&r->touched, V, DLS_MEM_COMMUNICATION));
    DLS_CUDA(cudaMallocHost((void **)&r->host_numbers, V * sizeof(int)));
    DLS_CUDA(cudaMallocHost((void **)&r->host_touched, V));
    DLS_CUDA(cudaEventCreateWithFlags(&r->copied, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&r->uploaded, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreate(&r->begin));
    DLS_CUDA(cudaEventCreate(&r->end));
    return DLS_OK;
}

dls_status dls_rows_create(dls_rows **out, dls_comm *comm, dls_ctx *compute,
                           dls_ctx *wire, void *grads, int V, int C)
{
    dls_rows *r = calloc(1, sizeof *r);
    if (!r)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for shared rows");
    *r = (dls_rows){.comm = comm, .compute = compute, .wire = wire, .grads = grads,
                    .V = V, .C = C};
    dls_status s = make_rows(r);
    if (s != DLS_OK)
        dls_rows_free(r);
    else
        *out = r;
    return s;
}

/* predict shared rows */
dls_status dls_rows_predict(dls_comm *comm, dls_dtype dtype, size_t V, size_t C,
                            size_t *buffers, size_t *scratch)
{
    *buffers = V * C * dls_dtype_size(dtype) + V * (sizeof(int) + 1);
    return dls_comm_scratch_within(comm, "all_reduce", V * C, (int)dtype, scratch);
}

/* agree on the rows */
static dls_status mark(dls_rows *r, const int *rows, size_t n, unsigned char *mine)
{
    memset(mine, 0, (size_t)r->V);
    for (size_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= r->V)
            return DLS_FAIL(DLS_ERR_INPUT, "row %d: there are %d", rows[i], r->V);
        mine[rows[i]] = 1;
    }
    return DLS_OK;
}

dls_status dls_rows_touch(dls_rows *r, const int *rows, size_t n)
{
    size_t V = (size_t)r->V;
    DLS_CUDA(cudaEventSynchronize(r->uploaded)); // the last step's copies are over
    DLS_TRY(mark(r, rows, n, r->host_touched));
    DLS_TRY(dls_comm_all_gather_host(r->comm, r->host_touched, V, r->all));
    for (int k = 0; k < dls_comm_size(r->comm); k++)
        for (size_t i = 0; i < V; i++)
            r->host_touched[i] |= r->all[(size_t)k * V + i];
    r->count = 0;
    for (size_t i = 0; i < V; i++)
        if (r->host_touched[i])
            r->host_numbers[r->count++] = (int)i;
    DLS_CUDA(cudaMemcpyAsync(r->touched, r->host_touched, V, cudaMemcpyHostToDevice,
                             r->wire->stream));
    DLS_CUDA(cudaMemcpyAsync(r->numbers, r->host_numbers, (size_t)r->count * sizeof(int),
                             cudaMemcpyHostToDevice, r->wire->stream));
    DLS_CUDA(cudaEventRecord(r->uploaded, r->wire->stream));
    return DLS_OK;
}

int dls_rows_count(const dls_rows *r)
{
    return r->count;
}

/* sum in two parts */
dls_status dls_rows_partial(dls_rows *r)
{
    size_t count = (size_t)r->V * (size_t)r->C, size = dls_dtype_size(r->wire->dtype);
    DLS_CUDA(cudaMemcpyAsync(r->copy, r->grads, count * size, cudaMemcpyDeviceToDevice,
                             r->compute->stream));
    DLS_CUDA(cudaEventRecord(r->copied, r->compute->stream));
    DLS_CUDA(cudaStreamWaitEvent(r->wire->stream, r->copied, 0));
    DLS_CUDA(cudaEventRecord(r->begin, r->wire->stream));
    DLS_TRY(dls_comm_all_reduce(r->comm, r->copy, count, r->wire->dtype, DLS_SUM,
                                r->wire->stream));
    DLS_TRY(dls_rows_put_outside(r->wire, r->grads, r->copy, r->touched, r->V, r->C));
    DLS_CUDA(cudaEventRecord(r->end, r->wire->stream));
    r->early = 1;
    return DLS_OK;
}

dls_status dls_rows_early(const dls_rows *r, double *seconds)
{
    float ms = 0;
    if (r->early)
        DLS_CUDA(cudaEventElapsedTime(&ms, r->begin, r->end));
    *seconds = 1e-3 * ms;
    return DLS_OK;
}

dls_status dls_rows_sum(dls_rows *r)
{
    DLS_TRY(dls_rows_gather(r->wire, r->copy, r->grads, r->numbers, r->count, r->C));
    DLS_TRY(dls_comm_all_reduce(r->comm, r->copy, (size_t)r->count * (size_t)r->C,
                                r->wire->dtype, DLS_SUM, r->wire->stream));
    return dls_rows_scatter(r->wire, r->grads, r->copy, r->numbers, r->count, r->C);
}

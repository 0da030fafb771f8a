/* code/parallel/data/zero_state.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* The state of a rank, copied out and put back. */
#include <stdlib.h>
#include <string.h>

#include "parallel/data/zero_private.h"
#include "tensor/bf16.h"
#include "vgpu/gpu.h"

/* describe the slices */
int dls_zero_slices(const dls_zero *z)
{
    return z->nunits;
}

dls_zero_slice dls_zero_slice_at(const dls_zero *z, int i)
{
    dls_zero_slice s = {.at = z->units[i].at};
    dls_shard_slice(&z->units[i], zero_unit_rank(z, i), &s.first, &s.count);
    return s;
}

size_t dls_zero_elements(const dls_zero *z)
{
    return z->elements;
}

int dls_zero_copy(const dls_zero *z)
{
    return z->copy;
}

const void *dls_zero_gradient(const dls_zero *z, int i, dls_dtype *dtype)
{
    *dtype = z->kept;
    return zero_grad_slice(z, i);
}

/* fetch the state of a rank */
static dls_status fetch_array(dls_zero *z, void *host, const void *from)
{
    size_t bytes = z->elements * dls_dtype_size(z->wide);
    if (!host)
        return DLS_OK;
    if (z->off)
        memcpy(host, from, bytes);
    else
        DLS_CUDA(cudaMemcpy(host, from, bytes, cudaMemcpyDeviceToHost));
    return DLS_OK;
}

static dls_status fetch_values(dls_zero *z, void *host)
{
    size_t size = dls_dtype_size(z->wide);
    if (!host)
        return DLS_OK;
    if (z->off)
        return zero_offload_values(z, host);
    if (z->master)
        return fetch_array(z, host, z->master);
    for (int u = 0; u < z->nunits; u++)
        DLS_CUDA(cudaMemcpy((char *)host + z->units[u].at * size, zero_value_slice(z, u),
                            z->units[u].slice * size, cudaMemcpyDeviceToHost));
    return DLS_OK;
}

dls_status dls_zero_fetch(dls_zero *z, void *values, void *m, void *v)
{
    DLS_TRY(dls_zero_sync(z));
    DLS_TRY(fetch_values(z, values));
    DLS_TRY(fetch_array(z, m, z->m));
    return fetch_array(z, v, z->v);
}

/* put the state of a rank */
static void round_values(const dls_zero *z, void *to, const void *wide)
{
    size_t size = dls_dtype_size(z->wide);
    if (z->ctx->dtype != DLS_BF16) {
        memcpy(to, wide, z->elements * size);
        return;
    }
    for (size_t i = 0; i < z->elements; i++)
        ((dls_bfloat16 *)to)[i] = dls_narrow_bf16(((const float *)wide)[i]);
}

static dls_status put_array(dls_zero *z, void *to, const void *host)
{
    size_t bytes = z->elements * dls_dtype_size(z->wide);
    if (z->off && host)
        memcpy(to, host, bytes);
    else if (z->off)
        memset(to, 0, bytes);
    else if (host)
        DLS_CUDA(cudaMemcpy(to, host, bytes, cudaMemcpyHostToDevice));
    else
        DLS_CUDA(cudaMemset(to, 0, bytes));
    return DLS_OK;
}

static dls_status put_rounded(dls_zero *z, const char *rounded)
{
    size_t size = dls_dtype_size(z->ctx->dtype);
    for (int u = 0; u < z->nunits; u++) {
        DLS_CUDA(cudaMemcpy(zero_value_slice(z, u), rounded + z->units[u].at * size,
                            z->units[u].slice * size, cudaMemcpyHostToDevice));
        DLS_TRY(zero_release(z, u));
        DLS_TRY(zero_send_values(z, u));
    }
    return zero_let(z, z->stream, z->ctx->stream);
}

dls_status dls_zero_put(dls_zero *z, const void *values, const void *m, const void *v)
{
    char *rounded = malloc(z->elements * dls_dtype_size(z->ctx->dtype) + 1);
    if (!rounded)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu values", z->elements);
    round_values(z, rounded, values);
    dls_status s = dls_zero_sync(z);
    if (s == DLS_OK)
        s = put_rounded(z, rounded);
    if (s == DLS_OK && z->off)
        zero_offload_put(z, rounded);
    free(rounded);
    DLS_TRY(s);
    if (z->master)
        DLS_TRY(put_array(z, z->master, values));
    DLS_TRY(put_array(z, z->m, m));
    DLS_TRY(put_array(z, z->v, v));
    return dls_zero_sync(z);
}

/* start from the whole */
dls_status dls_zero_start(dls_zero *z, const void *values)
{
    size_t size = dls_dtype_size(z->wide);
    char *mine = calloc(z->elements + 1, size);
    if (!mine)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu values", z->elements);
    for (int u = 0; u < z->nunits; u++) {
        dls_zero_slice s = dls_zero_slice_at(z, u);
        memcpy(mine + s.at * size, (const char *)values + s.first * size, s.count * size);
    }
    dls_status s = dls_zero_put(z, mine, NULL, NULL);
    free(mine);
    return s;
}

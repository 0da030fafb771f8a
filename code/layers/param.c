/* code/layers/param.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The parameter set: registration, the two flat buffers, initial values.
 * Registration is host work on a growing array; nothing touches the device
 * until dls_params_allocate, so that a plan can be printed before it is paid.
 */
#include "layers/param.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "tensor/bf16.h"
#include "vgpu/gpu.h"

/* register a parameter */
const dls_param *dls_params_find(const dls_params *set, const char *name)
{
    for (int i = 0; i < set->n; i++)
        if (strcmp(set->items[i].name, name) == 0)
            return &set->items[i];
    return NULL;
}

size_t dls_param_extent(const dls_param *p, int dimension)
{
    size_t sum = 0;
    if (p->pieces == 0 || dimension != p->cut)
        return p->shape[dimension];
    for (int i = 0; i < p->pieces; i++)
        sum += p->piece[i].count;
    return sum;
}

static size_t local_elements(const dls_param *p)
{
    size_t count = 1;
    for (int i = 0; i < p->ndim; i++)
        count *= dls_param_extent(p, i);
    return count;
}

dls_status dls_params_add(dls_params *set, const dls_param *story, int *index)
{
    /* refuse a name twice */
    if (dls_params_find(set, story->name))
        return DLS_FAIL(DLS_ERR_INPUT, "parameter %s is registered twice", story->name);
    if (set->values)
        return DLS_FAIL(DLS_ERR_STATE, "parameter %s comes after the memory was taken",
                        story->name);
    /* count and place the parameter */
    dls_param p = *story;
    p.count = p.ndim > 0 && p.ndim <= 4 ? local_elements(&p) : 0;
    if (p.count == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "parameter %s has an empty shape", p.name);
    p.offset = set->elements;
    p.uses = 1;
    p.value = p.grad = NULL;
    /* grow the parameter set */
    if (set->n == set->capacity) {
        int capacity = set->capacity ? 2 * set->capacity : 64;
        dls_param *items = realloc(set->items, (size_t)capacity * sizeof *items);
        if (!items)
            return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d parameters", capacity);
        set->items = items;
        set->capacity = capacity;
    }
    set->items[set->n] = p;
    set->elements += p.count;
    *index = set->n++;
    return DLS_OK;
}

/* find the place in the whole */
size_t dls_param_whole(const dls_param *p)
{
    size_t count = 1;
    for (int i = 0; i < p->ndim; i++)
        count *= p->shape[i];
    return count;
}
/* The whole tensor is (outer, shape[cut], inner), this rank's part (outer, width, inner)
 * with the pieces side by side. */
size_t dls_param_global(const dls_param *p, size_t local, size_t *run, int *piece)
{
    size_t inner = 1, width = 0;
    int k = 0;
    if (p->pieces == 0) {
        if (run)
            *run = p->count - local;
        if (piece)
            *piece = -1;
        return local;
    }
    for (int i = p->cut + 1; i < p->ndim; i++)
        inner *= p->shape[i];
    for (int i = 0; i < p->pieces; i++)
        width += p->piece[i].count;
    size_t outer = local / (width * inner), along = local / inner % width;
    while (along >= p->piece[k].count)
        along -= p->piece[k++].count;
    if (run)
        *run = (p->piece[k].count - along) * inner - local % inner;
    if (piece)
        *piece = k;
    return (outer * p->shape[p->cut] + p->piece[k].begin + along) * inner + local % inner;
}

/* allocate a flat buffer */
dls_status dls_flat_buffer(void **p, size_t bytes, dls_memory_purpose purpose)
{
    dls_memory_purpose before = dls_gpu_memory_purpose(purpose);
    cudaError_t e = dls_gpu_alloc_shared(p, bytes);
    dls_gpu_memory_purpose(before);
    if (e == cudaErrorMemoryAllocation)
        return DLS_FAIL(DLS_ERR_MEMORY, "%zu bytes of %s do not fit on the device",
                        bytes, dls_memory_purpose_name(purpose));
    DLS_CUDA(e);
    return DLS_OK;
}

/* allocate the parameters */
dls_status dls_params_allocate(dls_params *set, dls_ctx *ctx)
{
    size_t size = dls_dtype_size(ctx->dtype), n = set->elements;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(ctx->dtype));
    set->dtype = ctx->dtype;
    if (set->unplaced)
        return DLS_OK;
    DLS_TRY(dls_flat_buffer(&set->values, n * size, DLS_MEM_PARAMETERS));
    if (!set->frozen)
        DLS_TRY(dls_flat_buffer(&set->grads, n * wide, DLS_MEM_GRADIENTS));
    for (int i = 0; i < set->n; i++) {
        dls_param *p = &set->items[i];
        p->value = (char *)set->values + p->offset * size;
        p->grad = set->frozen ? NULL : (char *)set->grads + p->offset * wide;
    }
    return dls_params_zero_grads(set, ctx);
}

/* clear and free the parameters */
dls_status dls_params_zero_grads(dls_params *set, dls_ctx *ctx)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(set->dtype));
    if (set->frozen || set->unplaced)
        return DLS_OK;
    for (int i = 0; i < set->n; i++)
        set->items[i].unwritten = 0;
    DLS_CUDA(cudaMemsetAsync(set->grads, 0, set->elements * size, ctx->stream));
    return DLS_OK;
}

/* renew the gradients */
enum { LARGE = 1 << 19 };       // elements whose clearing costs more than a launch

/* Clears the gradients of parameters from .. to - 1, which lie side by side. */
static dls_status clear_grads(const dls_params *set, dls_ctx *ctx, int from, int to)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(set->dtype)), count = 0;
    for (int i = from; i < to; i++)
        count += set->items[i].count;
    if (count > 0)
        DLS_CUDA(cudaMemsetAsync(set->items[from].grad, 0, count * size, ctx->stream));
    return DLS_OK;
}

dls_status dls_params_renew_grads(dls_params *set, dls_ctx *ctx)
{
    int from = 0;
    if (set->frozen || set->unplaced)
        return DLS_OK;
    for (int i = 0; i < set->n; i++) {
        dls_param *p = &set->items[i];
        p->unwritten = p->overwritten && p->count >= LARGE;
        if (!p->unwritten)
            continue;
        DLS_TRY(clear_grads(set, ctx, from, i));
        from = i + 1;
    }
    return clear_grads(set, ctx, from, set->n);
}

dls_status dls_params_settle_grads(dls_params *set, dls_ctx *ctx)
{
    for (int i = 0; i < set->n; i++)
        if (set->items[i].unwritten) {
            set->items[i].unwritten = 0;
            DLS_TRY(clear_grads(set, ctx, i, i + 1));
        }
    return DLS_OK;
}

void dls_params_free(dls_params *set)
{
    dls_device_free(set->values);
    dls_device_free(set->grads);
    free(set->items);
    *set = (dls_params){0};
}

/* compute an initial value */
static double initial_value(const dls_param *p, uint64_t seed, uint64_t stream,
                            size_t i)
{
    switch (p->init) {
    case DLS_INIT_ONE: return 1;
    case DLS_INIT_NORMAL: return p->init_scale * dls_rng_normal(seed, stream, i);
    default: return 0;
    }
}

/* initialise the parameters */
static void fill_parameter(const dls_param *p, dls_dtype dtype, uint64_t seed, void *to)
{
    uint64_t stream = dls_hash64(p->name, strlen(p->name));
    for (size_t at = 0, run; at < p->count; at += run) {
        size_t global = dls_param_global(p, at, &run, NULL);
        for (size_t i = 0; i < run; i++) {
            double x = initial_value(p, seed, stream, global + i);
            if (dtype == DLS_F64)
                ((double *)to)[at + i] = x;
            else
                ((float *)to)[at + i] = (float)x;
        }
    }
}

void dls_params_fill(const dls_params *set, uint64_t seed, void *host)
{
    dls_dtype wide = dls_dtype_accumulator(set->dtype);
    for (int i = 0; i < set->n; i++)
        fill_parameter(&set->items[i], wide, seed,
                       (char *)host + set->items[i].offset * dls_dtype_size(wide));
}

dls_status dls_params_put(dls_params *set, const void *host)
{
    size_t bytes = set->elements * dls_dtype_size(set->dtype);
    dls_bfloat16 *narrow = NULL;
    if (set->dtype == DLS_BF16) {
        narrow = malloc(bytes);
        if (!narrow)
            return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu values",
                            set->elements);
        for (size_t i = 0; i < set->elements; i++)
            narrow[i] = dls_narrow_bf16(((const float *)host)[i]);
        host = narrow;
    }
    cudaError_t e = cudaMemcpy(set->values, host, bytes, cudaMemcpyHostToDevice);
    free(narrow);
    DLS_CUDA(e);
    return DLS_OK;
}

dls_status dls_params_initialise(dls_params *set, uint64_t seed)
{
    void *host = malloc(set->elements *
                        dls_dtype_size(dls_dtype_accumulator(set->dtype)));
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu initial values",
                        set->elements);
    dls_params_fill(set, seed, host);
    dls_status s = dls_params_put(set, host);
    free(host);
    return s;
}

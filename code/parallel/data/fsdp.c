/* code/parallel/data/fsdp.c: from chapters/04-data-parallelism-fsdp.md. Edit the chapter, or edit here and run "make untangle". */
/* Units on the move: values gathered before they are used, gradients scattered when they
 * are complete. Every function enqueues; none waits. */
#include <string.h>

#include "kernels/convert.h"
#include "kernels/elementwise.h"
#include "parallel/data/zero_private.h"
#include "parallel/tensor/gradients.h"
#include "vgpu/gpu.h"

/* point a unit */
void zero_point_values(dls_zero *z, int u, char *at)
{
    const dls_shard_unit *unit = &z->units[u];
    size_t size = dls_dtype_size(z->ctx->dtype);
    for (int i = 0; i < unit->params; i++) {
        dls_param *p = &z->params->items[unit->param + i];
        p->value = at + (p->offset - unit->first) * size;
    }
}

void zero_point_grads(dls_zero *z, int u, char *at)
{
    const dls_shard_unit *unit = &z->units[u];
    size_t size = dls_dtype_size(z->wide);
    for (int i = 0; i < unit->params; i++) {
        dls_param *p = &z->params->items[unit->param + i];
        p->grad = at + (p->offset - unit->first) * size;
    }
}

/* order two streams */
dls_status zero_let(dls_zero *z, cudaStream_t waiter, cudaStream_t other)
{
    DLS_CUDA(cudaEventRecord(z->ready, other));
    DLS_CUDA(cudaStreamWaitEvent(waiter, z->ready, 0));
    return DLS_OK;
}

/* measure a wait */
dls_status zero_wait(dls_zero *z, cudaEvent_t event)
{
    DLS_TRY(dls_spans_begin(&z->waits, z->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(z->ctx->stream, event, 0));
    return dls_spans_end(&z->waits, z->ctx->stream);
}

/* choose a buffer */
static int own_buffer(const zero_pool *p, int u)
{
    for (int i = 0; i < p->n; i++)
        if (p->items[i].owner == u)
            return i;
    return -1;
}

/* 1: any unit may have it that is of experts, or is not. */
static int is_for(const zero_buffer *b, int expert)
{
    return b->owner < 0 && b->expert == expert;
}

static int free_buffer(const zero_pool *p, int u, int expert)
{
    int own = own_buffer(p, u);
    for (int i = 0; own < 0 && i < p->n; i++)
        if (is_for(&p->items[i], expert) && p->items[i].unit < 0)
            return i;
    return own;
}

static int next_buffer(zero_pool *p, int u, int expert)
{
    int own = own_buffer(p, u), *next = &p->next[expert];
    while (own < 0) {
        int i = *next;
        *next = (i + 1) % p->n;
        if (is_for(&p->items[i], expert))
            return i;
    }
    return own;
}

/* gather a unit */
static dls_status gather(dls_zero *z, int u)
{
    const dls_shard_unit *unit = &z->units[u];
    zero_unit_state *s = &z->states[u];
    int b = free_buffer(&z->value_pool, u, unit->expert);
    if (b < 0)
        return DLS_FAIL(DLS_ERR_STATE, "unit %d is used while no buffer is free: the "
                        "units before it were not left", u);
    zero_buffer *buffer = &z->value_pool.items[b];
    DLS_CUDA(cudaStreamWaitEvent(z->stream, buffer->free, 0));
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    DLS_TRY(dls_comm_all_gather(zero_unit_group(z, u), zero_value_slice(z, u),
                                buffer->memory, unit->slice, z->ctx->dtype, z->stream));
    DLS_TRY(dls_spans_end(&z->sent, z->stream));
    DLS_CUDA(cudaEventRecord(s->arrived, z->stream));
    zero_point_values(z, u, buffer->memory);
    buffer->unit = u;
    s->values = b;
    s->waited = 0;
    return DLS_OK;
}

static int is_away(const dls_zero *z, int u)
{
    return z->o.stage == 3 && z->units[u].params > 0 && z->states[u].values < 0;
}

static dls_status prefetch(dls_zero *z, int u, int direction)
{
    for (int k = 1; k <= z->o.prefetch; k++) {
        int next = u + k * direction;
        if (next < 0 || next >= z->nunits)
            return DLS_OK;
        if (!is_away(z, next))
            continue;
        if (free_buffer(&z->value_pool, next, z->units[next].expert) < 0)
            return DLS_OK;
        DLS_TRY(gather(z, next));
    }
    return DLS_OK;
}

static dls_status bring(dls_zero *z, int u, int direction)
{
    zero_unit_state *s = &z->states[u];
    if (is_away(z, u))
        DLS_TRY(gather(z, u));
    if (!s->waited)
        DLS_TRY(zero_wait(z, s->arrived));
    s->waited = 1;
    return prefetch(z, u, direction);
}

/* release a unit */
dls_status zero_release(dls_zero *z, int u)
{
    zero_unit_state *s = &z->states[u];
    if (s->values < 0)
        return DLS_OK;
    zero_buffer *buffer = &z->value_pool.items[s->values];
    if (!s->waited)
        DLS_TRY(zero_wait(z, s->arrived));
    DLS_CUDA(cudaEventRecord(buffer->free, z->ctx->stream));
    buffer->unit = -1;
    s->values = -1;
    s->waited = 1;
    return DLS_OK;
}

/* open a gradient */
static dls_status open_one(dls_zero *z, int u)
{
    const dls_shard_unit *unit = &z->units[u];
    zero_unit_state *s = &z->states[u];
    if (unit->params == 0 || s->grads >= 0)
        return DLS_OK;
    s->grads = next_buffer(&z->grad_pool, u, unit->expert);
    zero_buffer *buffer = &z->grad_pool.items[s->grads];
    size_t bytes = zero_unit_whole(z, u) * dls_dtype_size(z->wide);
    DLS_TRY(zero_wait(z, buffer->free));
    DLS_CUDA(cudaMemsetAsync(buffer->memory, 0, bytes, z->ctx->stream));
    zero_point_grads(z, u, buffer->memory);
    return DLS_OK;
}

static dls_status open_gradients(dls_zero *z, int u)
{
    if (z->direct)
        return DLS_OK;
    for (int h = 0; !z->open && h < z->nunits; h++)
        if (z->units[h].held)
            DLS_TRY(open_one(z, h));
    z->open = 1;
    return open_one(z, u);
}

/* scatter a gradient */
static dls_ctx on_stream(const dls_zero *z, dls_dtype dtype)
{
    dls_ctx c = *z->ctx;
    c.stream = z->stream;
    c.dtype = dtype;
    return c;
}

/* This copy's sum of `whole` (ways * slice); the slice of it is in its place there. */
static dls_status reduce_in_copy(dls_zero *z, int u, char *whole, dls_dtype dtype)
{
    size_t slice = z->units[u].slice, mine = (size_t)zero_unit_rank(z, u) * slice;
    if (z->units[u].ways == 1)
        return DLS_OK;
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    DLS_TRY(dls_comm_reduce_scatter(
        zero_unit_group(z, u), whole, whole + mine * dls_dtype_size(dtype), slice, dtype,
        DLS_SUM, z->stream));
    return dls_spans_end(&z->sent, z->stream);
}

/* The unit's gradient, made in a buffer, narrowed to *to, which is added to or set. */
static dls_status narrow_gradient(dls_zero *z, int u, char *to, int add)
{
    dls_ctx c = on_stream(z, z->kept);
    const zero_buffer *buffer = &z->grad_pool.items[z->states[u].grads];
    return dls_to_narrow(&c, to, buffer->memory, zero_unit_whole(z, u), add);
}

static dls_status add_slice(dls_zero *z, int u)
{
    zero_buffer *buffer = &z->grad_pool.items[z->states[u].grads];
    size_t slice = z->units[u].slice, mine = (size_t)zero_unit_rank(z, u) * slice;
    char *whole = z->wire ? z->wire : buffer->memory, *shard = zero_grad_slice(z, u);
    dls_ctx c = on_stream(z, z->kept);
    if (z->wire)
        DLS_TRY(narrow_gradient(z, u, z->wire, 0));
    DLS_TRY(reduce_in_copy(z, u, whole, z->kept));
    return dls_add(&c, shard, shard, whole + mine * dls_dtype_size(z->kept), slice);
}

static dls_status keep_whole(dls_zero *z, int u)
{
    char *whole = zero_grad_slice(z, u)
        - (size_t)zero_unit_rank(z, u) * z->units[u].slice * dls_dtype_size(z->kept);
    if (!z->direct)
        DLS_TRY(narrow_gradient(z, u, whole, 1));
    return z->last ? reduce_in_copy(z, u, whole, z->kept) : DLS_OK;
}

static dls_status sum_copies(dls_zero *z, int u)
{
    if (z->ncopies == 1)
        return DLS_OK;
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    DLS_TRY(dls_comm_all_reduce(z->copies, zero_grad_slice(z, u), z->units[u].slice,
                                z->kept, DLS_SUM, z->stream));
    return dls_spans_end(&z->sent, z->stream);
}

static dls_status complete(dls_zero *z, int u)
{
    zero_unit_state *s = &z->states[u];
    const dls_shard_unit *unit = &z->units[u];
    DLS_TRY(zero_let(z, z->stream, z->ctx->stream));
    if (!z->direct || z->last)
        DLS_TRY(dls_tensor_finish(z->o.axes, z->params->items + unit->param,
                                  unit->params, z->wide, z->stream));
    DLS_TRY(z->o.stage >= 2 ? add_slice(z, u) : keep_whole(z, u));
    if (s->grads >= 0)
        DLS_CUDA(cudaEventRecord(z->grad_pool.items[s->grads].free, z->stream));
    s->grads = -1;
    if (!z->last)
        return DLS_OK;
    DLS_TRY(sum_copies(z, u));
    return z->off ? zero_offload_gradient(z, u) : DLS_OK;
}

/* answer the hooks */
static dls_status before_part(dls_zero *z, int u, int backward)
{
    if (backward)
        DLS_TRY(open_gradients(z, u));
    return bring(z, u, backward ? -1 : 1);
}

/* Values are forgotten after each use, unless the unit will be used again. */
static dls_status after_part(dls_zero *z, int u, int backward)
{
    if (z->units[u].held)
        return DLS_OK;
    return backward || !z->o.keep_forward ? zero_release(z, u) : DLS_OK;
}

/* What a unit of the model is here: units from ... to - 1. A unit without parameters of
 * its own, at the end, is none. */
static void parts_of(const dls_zero *z, int unit, int *from, int *to)
{
    *from = *to = 0;
    if (unit < 0 || unit >= z->model_units)
        return;
    *from = z->parts ? z->parts[unit] : unit;
    *to = z->parts ? z->parts[unit + 1] : unit + 1;
}

static dls_status before(void *self, int unit, int backward)
{
    dls_zero *z = self;
    int from, to;
    parts_of(z, unit, &from, &to);
    for (int i = 0; i < to - from; i++)
        DLS_TRY(before_part(z, backward ? to - 1 - i : from + i, backward));
    return DLS_OK;
}

static dls_status after(void *self, int unit, int backward)
{
    dls_zero *z = self;
    int from, to;
    parts_of(z, unit, &from, &to);
    for (int u = from; u < to; u++)
        DLS_TRY(after_part(z, u, backward));
    return DLS_OK;
}

static dls_status report(void *self, int param)
{
    dls_zero *z = self;
    int u = param < 0 || param >= z->params->n ? -1 : z->params->items[param].unit;
    if (u < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "gradient %d is ready: there are %d parameters",
                        param, z->params->n);
    if (z->states[u].missing == 0)
        return DLS_FAIL(DLS_ERR_STATE, "the gradient of %s came twice in one pass",
                        z->params->items[param].name);
    return --z->states[u].missing == 0 ? complete(z, u) : DLS_OK;
}

void zero_make_hooks(dls_zero *z)
{
    z->unit_hook = (dls_unit_hook){z, before, after};
    z->grad_hook = (dls_grad_hook){z, report};
}

const dls_unit_hook *dls_zero_units(const dls_zero *z)
{
    return &z->unit_hook;
}

const dls_grad_hook *dls_zero_hook(const dls_zero *z)
{
    return &z->grad_hook;
}

dls_status dls_zero_begin_pass(dls_zero *z, int last)
{
    z->last = last;
    z->open = 0;
    for (int u = 0; u < z->nunits; u++)
        z->states[u].missing = z->units[u].params;
    return DLS_OK;
}

/* run a pass without rows */
dls_status dls_zero_idle_forward(dls_zero *z)
{
    for (int u = 0; u < z->nunits; u++) {
        DLS_TRY(before_part(z, u, 0));
        DLS_TRY(after_part(z, u, 0));
    }
    return DLS_OK;
}

dls_status dls_zero_idle_pass(dls_zero *z)
{
    DLS_TRY(dls_zero_idle_forward(z));
    for (int u = z->nunits - 1; u >= 0; u--) {
        DLS_TRY(before_part(z, u, 1));
        for (int i = 0; i < z->units[u].params; i++)
            DLS_TRY(report(z, z->units[u].param + i));
        DLS_TRY(after_part(z, u, 1));
    }
    return DLS_OK;
}

/* report what was hidden */
dls_status dls_zero_timing(const dls_zero *z, dls_ddp_times *out)
{
    *out = (dls_ddp_times){.hidden = 1};
    if (dls_comm_size(z->world) == 1 && !z->experts)
        return DLS_OK;
    DLS_TRY(dls_spans_seconds(&z->sent, &out->busy));
    DLS_TRY(dls_spans_seconds(&z->waits, &out->exposed));
    if (out->busy > 0)
        out->hidden = out->exposed < out->busy ? 1 - out->exposed / out->busy : 0;
    return DLS_OK;
}

/* code/parallel/data/zero_step.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* The end of a step: the norm, the update of the slices, the new values on their way. */
#include "kernels/adamw.h"
#include "kernels/convert.h"
#include "kernels/reduce.h"
#include "parallel/data/zero_private.h"
#include "parallel/expert/copies.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* clear the gradients */
dls_status dls_zero_begin(dls_zero *z)
{
    size_t n = z->o.stage >= 2 ? z->elements : dls_shard_whole(z->units, z->nunits);
    DLS_CUDA(cudaMemsetAsync(z->grads, 0, n * dls_dtype_size(z->kept), z->ctx->stream));
    dls_spans_clear(&z->waits);
    dls_spans_clear(&z->sent);
    return zero_let(z, z->stream, z->ctx->stream);
}

/* compute the norm */
/* Of a cut model only what this rank counts; else the slice, with padding (zeros). */
static dls_status square_slice(dls_zero *z, int u, dls_ctx *c, double *square_sum)
{
    dls_zero_slice at = dls_zero_slice_at(z, u);
    char *grads = zero_grad_slice(z, u);
    dls_counter who = dls_copies_counter(z->o.axes, 1);
    if (!z->o.axes || (!z->o.axes->tensor && !z->o.axes->apart))
        return dls_square_sum(c, square_sum, grads, z->units[u].slice);
    for (dls_stretch s = {0}; dls_counted_next(z->params->items, z->params->n, &who, NULL,
                                               1, &s);) {
        size_t from = s.first > at.first ? s.first : at.first;
        size_t to = s.first + s.count, end = at.first + at.count;
        to = to < end ? to : end;
        if (from < to)
            DLS_TRY(dls_square_sum(c, square_sum, grads + (from - at.first)
                                   * dls_dtype_size(c->dtype), to - from));
    }
    return DLS_OK;
}

static dls_status compute_norm(dls_zero *z)
{
    dls_ctx c = *z->ctx;
    double *square_sum = z->scalars, *norm = z->scalars + 1, *coefficient = norm + 1;
    dls_comm *over = dls_copies_counted_over(z->o.axes);
    c.dtype = z->kept;
    DLS_CUDA(cudaMemsetAsync(square_sum, 0, sizeof *square_sum, c.stream));
    for (int u = 0; u < z->nunits; u++)
        DLS_TRY(square_slice(z, u, &c, square_sum));
    if (z->ways > 1 && !z->experts)
        DLS_TRY(dls_comm_all_reduce(z->shard, square_sum, 1, DLS_F64, DLS_SUM, c.stream));
    if (over)
        DLS_TRY(dls_comm_all_reduce(over, square_sum, 1, DLS_F64, DLS_SUM, c.stream));
    return dls_clip_coefficient(&c, coefficient, norm, square_sum, z->o.adamw.clip);
}

const double *dls_zero_norm(const dls_zero *z)
{
    return z->scalars + 1;
}

/* walk over stretches */
int zero_next_stretch(const dls_zero *z, int u, zero_stretch *s)
{
    const dls_shard_unit *unit = &z->units[u];
    size_t first, count, from = s->at + s->count;
    dls_shard_slice(unit, zero_unit_rank(z, u), &first, &count);
    if (from >= count)
        return 0;
    size_t end = from;
    for (int i = 0; i < unit->params; i++) {
        const dls_param *p = &z->params->items[unit->param + i];
        size_t stop = p->offset + p->count - first;
        if (p->offset + p->count <= first + end)
            continue;
        if (end > from && p->decay != s->decay)
            break;
        s->decay = p->decay;
        end = stop < count ? stop : count;
        if (end == count)
            break;
    }
    *s = (zero_stretch){from, end - from, s->decay};
    return 1;
}

/* update a slice */
static dls_status wide_gradient(dls_zero *z, int u, char **out)
{
    *out = zero_grad_slice(z, u);
    if (z->kept == z->wide)
        return DLS_OK;
    int b = 0, own = 0;
    for (int i = 0; i < z->grad_pool.n && !own; i++) {
        const zero_buffer *is = &z->grad_pool.items[i];
        own = is->owner == u;
        if (own || (is->owner < 0 && is->expert == z->units[u].expert))
            b = i;
    }
    const char *narrow = *out;
    *out = z->grad_pool.items[b].memory;
    return dls_to_wide(z->ctx, *out, narrow, z->units[u].slice);
}

static dls_status update_slice(dls_zero *z, int u, double lr, int64_t step)
{
    const dls_adamw_options *w = &z->o.adamw;
    size_t size = dls_dtype_size(z->wide), narrow = dls_dtype_size(z->ctx->dtype);
    char *values = zero_value_slice(z, u), *grads;
    DLS_TRY(wide_gradient(z, u, &grads));
    for (zero_stretch s = {0}; zero_next_stretch(z, u, &s);) {
        size_t at = (z->units[u].at + s.at) * size;
        DLS_TRY(dls_adamw(z->ctx, values + s.at * narrow,
                          z->master ? (char *)z->master + at : NULL, grads + s.at * size,
                          (char *)z->m + at, (char *)z->v + at, s.count, lr, w->beta1,
                          w->beta2, w->epsilon, s.decay ? w->weight_decay : 0, step,
                          z->scalars + 2));
    }
    return DLS_OK;
}

/* send the values */
dls_status zero_send_values(dls_zero *z, int u)
{
    zero_unit_state *s = &z->states[u];
    if (z->o.stage == 0 || z->o.stage == 3 || z->units[u].params == 0)
        return DLS_OK;
    DLS_TRY(dls_spans_begin(&z->sent, z->stream));
    DLS_TRY(dls_comm_all_gather(zero_unit_group(z, u), zero_value_slice(z, u),
                                zero_whole_values(z, u), z->units[u].slice,
                                z->ctx->dtype, z->stream));
    DLS_TRY(dls_spans_end(&z->sent, z->stream));
    DLS_CUDA(cudaEventRecord(s->arrived, z->stream));
    s->waited = 0;
    return DLS_OK;
}

/* finish a sharded step */
dls_status dls_zero_finish(dls_zero *z)
{
    for (int u = 0; u < z->nunits; u++)
        if (z->states[u].missing > 0)
            return DLS_FAIL(DLS_ERR_STATE, "%d of %d gradients of the unit of %s were "
                            "not reported in this pass", z->states[u].missing,
                            z->units[u].params, z->params->items[z->units[u].param].name);
    for (int u = 0; u < z->nunits; u++)
        DLS_TRY(zero_release(z, u));
    DLS_CUDA(cudaEventRecord(z->ready, z->stream));
    return zero_wait(z, z->ready);
}

static dls_status update(dls_zero *z, double lr, int64_t step)
{
    if (z->off)
        return zero_offload_step(z, lr, step);
    for (int u = 0; u < z->nunits; u++) {
        DLS_TRY(update_slice(z, u, lr, step));
        DLS_TRY(zero_let(z, z->stream, z->ctx->stream));
        DLS_TRY(zero_send_values(z, u));
    }
    return DLS_OK;
}

dls_status dls_zero_step(dls_zero *z, double lr, int64_t step)
{
    DLS_TRY(dls_zero_finish(z));
    dls_trace_range_push("optimizer");
    dls_status s = compute_norm(z);
    if (s == DLS_OK)
        s = update(z, lr, step);
    dls_trace_range_pop();
    return s;
}


dls_status dls_zero_apply(dls_zero *z, double lr, int64_t step, const double *coefficient)
{
    DLS_CUDA(cudaMemcpyAsync(z->scalars + 2, coefficient, sizeof *coefficient,
                             cudaMemcpyDeviceToDevice, z->ctx->stream));
    return update(z, lr, step);
}

dls_status dls_zero_sync(dls_zero *z)
{
    DLS_TRY(zero_let(z, z->ctx->stream, z->stream));
    return dls_ctx_sync(z->ctx);
}

/* code/layers/dispatch_one_sided.c: from chapters/08-dispatch-nodes-one-sided.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows written to where they belong, with no word between the hosts. */
#include "layers/dispatch_internal.h"

#include <string.h>

#include "comm/window.h"
#include "layers/router.h"
#include "vgpu/gpu.h"

/* plan a one sided dispatch */
void dls_one_sided_plan(dls_dispatch *d, dls_plan *plan, int block)
{
    int shares = dls_at_least_one(d->sharding.expert_tensor);
    d->block = block;
    d->room = shares * d->moe.experts * block;
    d->numbers = dls_plan_stash(plan, 2 * (size_t)d->moe.experts, DLS_F32);
}

/* open the window of a dispatch */
static size_t slot_bytes(const dls_dispatch *d, dls_dtype dtype)
{
    return (size_t)d->block * d->columns * dls_dtype_size(dtype);
}

size_t dls_one_sided_bytes(const dls_sharding *s, const dls_moe *m, int rows, int T,
                           int columns, dls_dtype dtype)
{
    dls_plan plan = {.max_B = 1, .max_T = T, .dtype = dtype};
    dls_dispatch d;
    dls_dispatch_plan(&d, &plan, s, m, rows, T, columns);
    return d.block ? dls_window_bytes(s->expert, m->experts, slot_bytes(&d, dtype)) : 0;
}

static dls_status open_window(const dls_pass *p, const dls_dispatch *d)
{
    dls_axes_window *w = p->axes->window;
    size_t bytes = slot_bytes(d, p->ctx->dtype);
    if (w->window && w->slots == d->moe.experts && w->bytes >= bytes)
        return DLS_OK;
    DLS_CUDA(cudaStreamSynchronize(p->axes->stream));
    dls_window_close(w->window);
    w->window = NULL;
    w->slots = d->moe.experts;
    w->bytes = bytes;
    return dls_window_open(&w->window, p->axes->counts, w->slots, bytes);
}

/* route to fixed places */
dls_status dls_one_sided_count(const dls_pass *p, const dls_dispatch *d, dls_routes *r,
                               const int *counts, const int *known)
{
    int E = d->moe.experts, rows = r->ranks * d->block, shares = r->sources / r->ranks;
    int *numbers = dls_pass_stash(p, d->numbers);
    DLS_TRY(open_window(p, d));
    r->going = numbers;
    r->coming = numbers + E;
    r->block = d->block;
    if (known)
        r->going = memcpy(r->counts, known, sizeof(int) * E);
    else
        DLS_CUDA(cudaMemcpyAsync(numbers, counts, sizeof(int) * E,
                                 cudaMemcpyDeviceToDevice, p->ctx->stream));
    r->sent = d->sent_room;
    r->arrived = d->room;
    r->own = r->experts * rows;
    r->own_first = shares > 1 ? d->sharding.expert_tensor_rank * r->own : 0;
    for (int i = 0; i < shares * r->experts; i++)
        r->segment[r->segments++] = (dls_segment){i % r->experts, i * rows, rows};
    return DLS_OK;
}

/* move rows one sided */
// The counts as the router left them: negative ones tell of a score that is no number.
static dls_status check_going(const int *count, int n)
{
    return dls_routing_fault(count, 1, n);
}

dls_status dls_dispatch_one_sided(const dls_axes *a, const dls_routes *r, void *to,
                                  const void *from, size_t bytes, int back)
{
    dls_window_rows there = {DLS_BY_RANK, r->going, r->block, bytes, check_going};
    dls_window_rows here = {DLS_BY_BLOCK, r->coming, r->block, bytes, NULL};
    dls_window *w = a->window->window;
    DLS_TRY(dls_window_put(w, back ? &here : &there, from, a->stream));
    return dls_window_take(w, back ? &there : &here, to, back ? NULL : r->coming,
                           a->stream);
}

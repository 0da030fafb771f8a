/* code/layers/layer.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The machinery of layers: the plan's three regions, a pass's pointers, the
 * hook's count-down, and the builder's list. No mathematics here.
 */
#include "layers/layer.h"

#include <stdio.h>
#include <stdlib.h>

#include "layers/internal.h"

/* reserve in the plan */
static size_t rounded(size_t count, dls_dtype dtype)
{
    return (count * dls_dtype_size(dtype) + 127) / 128 * 128;
}

static size_t take(size_t *now, size_t *most, size_t bytes)
{
    size_t at = *now;
    *now += bytes;
    if (*most < *now)
        *most = *now;
    return at;
}

static const size_t in_scratch = ~(SIZE_MAX >> 1), in_early = SIZE_MAX / 4 + 1;

size_t dls_plan_scratch(dls_plan *plan, size_t count, dls_dtype dtype)
{
    return in_scratch | take(&plan->scratch_now, &plan->scratch, rounded(count, dtype));
}

size_t dls_plan_stash(dls_plan *plan, size_t count, dls_dtype dtype)
{
    size_t at = plan->stash;
    if (plan->recomputed)
        return dls_plan_scratch(plan, count, dtype);
    plan->stash += rounded(count, dtype);
    return at;
}

size_t dls_plan_early(dls_plan *plan, size_t count, dls_dtype dtype)
{
    size_t at = plan->early;
    if (plan->recomputed)
        return dls_plan_scratch(plan, count, dtype);
    plan->early += rounded(count, dtype);
    return in_early | at;
}

size_t dls_plan_gradient(dls_plan *plan, size_t count)
{
    if (plan->frozen)
        return 0;
    return take(&plan->gradients_now, &plan->gradients, rounded(count, plan->dtype));
}

size_t dls_plan_passing(dls_plan *plan, size_t count)
{
    return plan->deferred && !plan->frozen ? dls_plan_scratch(plan, count, plan->dtype)
                                           : dls_plan_gradient(plan, count);
}

dls_plan_mark dls_plan_begin(const dls_plan *plan)
{
    return (dls_plan_mark){plan->gradients_now, plan->scratch_now};
}

void dls_plan_release(dls_plan *plan, dls_plan_mark mark)
{
    if (!plan->deferred)
        plan->gradients_now = mark.gradients;
    if (!plan->recomputed)
        plan->scratch_now = mark.scratch;
}

int dls_plan_rows(const dls_layer *l, const dls_plan *plan)
{
    return plan->max_B * plan->max_T / (l->slices > 1 ? l->slices : 1);
}

void dls_plan_temporary(dls_plan *plan, size_t bytes)
{
    bytes = (bytes + 127) / 128 * 128;
    if (bytes > plan->temporary)
        plan->temporary = bytes;
}

size_t dls_plan_bytes(const dls_plan *plan)
{
    return plan->stash + plan->early + plan->gradients + plan->scratch + plan->temporary;
}

/* find things of a pass */
void dls_pass_regions(dls_pass *p, const dls_plan *plan, void *buffer)
{
    p->stash = buffer;
    p->early = (char *)p->stash + plan->stash;
    p->gradients = (char *)p->early + plan->early;
    p->scratch = (char *)p->gradients + plan->gradients;
    p->temporary = (char *)p->scratch + plan->scratch;
}

void *dls_pass_stash(const dls_pass *p, size_t slot)
{
    return slot & in_scratch ? (char *)p->scratch + (slot & ~in_scratch)
         : slot & in_early ? (char *)p->early + (slot & ~in_early)
                           : (char *)p->stash + slot;
}

void *dls_pass_gradient(const dls_pass *p, size_t slot)
{
    return slot & in_scratch ? dls_pass_stash(p, slot) : (char *)p->gradients + slot;
}

int dls_pass_rows(const dls_layer *l, const dls_pass *p)
{
    return p->B * p->T / (l->slices > 1 ? l->slices : 1);
}

int dls_pass_first_row(const dls_layer *l, const dls_pass *p)
{
    return l->slice * dls_pass_rows(l, p);
}

void *dls_pass_value(const dls_pass *p, int index)
{
    return p->params->items[index].value;
}

void *dls_pass_grad(const dls_pass *p, int index)
{
    return p->params->items[index].grad;
}

double dls_pass_keep(const dls_pass *p, int index)
{
    dls_param *of = &p->params->items[index];
    double keep = !of->unwritten;
    of->unwritten = 0;
    return keep;
}

/* report an addition */
dls_status dls_pass_added(dls_pass *p, int index)
{
    if (!p->hook)
        return DLS_OK;
    if (--p->pending[index] != 0)
        return p->partial ? p->partial->fn(p->partial->self, index) : DLS_OK;
    return p->hook->fn(p->hook->self, index);
}

/* run a layer */
void dls_layer_plan(dls_layer *l, dls_plan *plan)
{
    l->deferred = plan->deferred;
    if (l->kind->plan)
        l->kind->plan(l, plan);
}

dls_status dls_layer_backward(const dls_layer *l, dls_pass *p, void *dx,
                              const void *dy, const void *x, void *y)
{
    if (l->kind->backward)
        return l->kind->backward(l, p, dx, dy, x, y);
    DLS_TRY(l->kind->backward_input(l, p, dx, dy, x, y));
    return l->kind->backward_weight(l, p, dy, x);
}

/* make a bare layer */
dls_layer *dls_layer_make(dls_build *b, const dls_layer_kind *kind, int in, int out)
{
    if (b->status != DLS_OK)
        return NULL;
    dls_layer *l = calloc(1, sizeof *l);
    if (!l) {
        b->status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for a layer");
        return NULL;
    }
    *l = (dls_layer){.kind = kind, .in = in, .out = out, .weight = -1, .bias = -1,
                     .unit = b->unit, .sharding = &b->sharding, .next = b->all};
    if (b->sliced) {
        l->slices = b->sharding.tensor;
        l->slice = b->sharding.tensor_rank;
    }
    b->all = l;
    return l;
}

/* register for a layer */
int dls_layer_param(dls_build *b, const char *layer, const char *suffix,
                    dls_param story)
{
    int index = -1;
    int n = snprintf(story.name, sizeof story.name, "%s.%s", layer, suffix);
    story.unit = b->unit;
    story.partial = b->sliced && story.pieces == 0; // used on this rank's rows alone
    if (b->status != DLS_OK)
        return -1;
    if (n >= (int)sizeof story.name)
        b->status = DLS_FAIL(DLS_ERR_INPUT, "parameter name %s.%s is too long",
                             layer, suffix);
    else
        b->status = dls_params_add(b->params, &story, &index);
    return index;
}

/* free the layers */
void dls_build_free(dls_build *b)
{
    while (b->all) {
        dls_layer *l = b->all;
        b->all = l->next;
        free(l->inner);
        free(l->slots);
        free(l->experts);
        free(l);
    }
}

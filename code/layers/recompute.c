/* code/layers/recompute.c: from chapters/09-transformer-model-recompute.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Recomputation: a layer that forgets what the layer inside it stashed, and runs it
 * again before its backward pass.
 *
 *   stash     x of block 0 | x of block 1 | ... one input each
 *   scratch   the inside of whichever block is running
 */
#include "layers/internal.h"
#include "vgpu/trace.h"

/* recompute layer */
static void recompute_plan(dls_layer *l, dls_plan *plan)
{
    dls_plan_mark mark = dls_plan_begin(plan);
    plan->recomputed++;
    dls_layer_plan(l->inner[0], plan);
    plan->recomputed--;
    dls_plan_release(plan, mark);
}

static dls_status recompute_forward(const dls_layer *l, dls_pass *p, void *y,
                                    const void *x)
{
    return l->inner[0]->kind->forward(l->inner[0], p, y, x);
}

static dls_status run_again(const dls_layer *l, dls_pass *p, const void *x)
{
    dls_trace_range_push("recompute");
    p->again = 1;               // what is counted was counted
    dls_status s = l->inner[0]->kind->forward(l->inner[0], p, NULL, x);
    p->again = 0;
    dls_trace_range_pop();
    return s;
}

static dls_status recompute_backward(const dls_layer *l, dls_pass *p, void *dx,
                                     const void *dy, const void *x, void *y)
{
    DLS_TRY(run_again(l, p, x));
    return dls_layer_backward(l->inner[0], p, dx, dy, x, y);
}

static dls_status recompute_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                           const void *dy, const void *x, void *y)
{
    DLS_TRY(run_again(l, p, x));
    return l->inner[0]->kind->backward_input(l->inner[0], p, dx, dy, x, y);
}

static dls_status recompute_backward_weight(const dls_layer *l, dls_pass *p,
                                            const void *dy, const void *x)
{
    DLS_TRY(run_again(l, p, x));
    return l->inner[0]->kind->backward_weight(l->inner[0], p, dy, x);
}

/* make a recompute layer */
static const dls_layer_kind recompute_kind = {
    .name = "recompute",
    .plan = recompute_plan,
    .forward = recompute_forward,
    .backward_input = recompute_backward_input,
    .backward_weight = recompute_backward_weight,
    .backward = recompute_backward,
};

dls_layer *dls_recomputed(dls_build *b, dls_layer *f)
{
    dls_layer *l = b->status == DLS_OK ? dls_layer_make(b, &recompute_kind, f->in, f->out)
                                       : NULL;
    return l && dls_layer_keep(b, l, &f, 1) ? l : NULL;
}

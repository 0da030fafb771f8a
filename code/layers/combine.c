/* code/layers/combine.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Layers made of layers: the sequence and the residual. The buffers between
 * inner layers are planned here:
 *
 *   x -> [inner 0] -> place 0 -> [inner 1] -> place 1 -> [inner 2] -> y
 *                     value in the stash, gradient in one of two shared
 *                     buffers (or in its own, when W is deferred)
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "layers/internal.h"

/* plan a value */
/* Elements of a layer's output. */
static size_t elements(const dls_layer *l, const dls_plan *plan)
{
    return (size_t)dls_plan_rows(l, plan) * l->out;
}

int dls_layer_spares_x(const dls_layer *l)
{
    return !l->discarded && (l->spares_x
                             || l->kind->backward_weight == dls_layer_no_weights);
}

size_t dls_layer_value(const dls_layer *inner, const dls_layer *next, dls_plan *plan)
{
    size_t count = elements(inner, plan);
    int early = next && dls_layer_spares_x(next);
    return inner->discarded ? dls_plan_scratch(plan, count, plan->dtype)
         : early            ? dls_plan_early(plan, count, plan->dtype)
                            : dls_plan_stash(plan, count, plan->dtype);
}

/* plan a sequence */
/* Who reads the place of inner layer i, behind layers that work in place. */
static const dls_layer *reader_behind(const dls_layer *l, int i)
{
    while (++i + 1 < l->ninner && l->inner[i]->kind->in_place)
        ;
    return l->inner[i];
}

static void sequence_plan(dls_layer *l, dls_plan *plan)
{
    size_t *value = l->slots, *grad = l->slots + l->ninner, shared[2];
    dls_plan_mark mark = dls_plan_begin(plan);
    /* find the widest places */
    size_t most[2] = {0, 0};
    for (int i = 0, parity = 1; i + 1 < l->ninner; i++) {
        parity = i > 0 && l->inner[i]->kind->in_place ? parity : !parity;
        if (elements(l->inner[i], plan) > most[parity])
            most[parity] = elements(l->inner[i], plan);
    }
    for (int k = 0; k < 2; k++)
        shared[k] = plan->deferred ? 0 : dls_plan_gradient(plan, most[k]);
    for (int i = 0, parity = 1; i + 1 < l->ninner; i++) {
        /* share the place of a layer that works in place */
        if (i > 0 && l->inner[i]->kind->in_place) {
            value[i] = value[i - 1];
            grad[i] = grad[i - 1];
            continue;
        }
        parity = !parity;
        value[i] = dls_layer_value(l->inner[i], reader_behind(l, i), plan);
        grad[i] = !plan->deferred ? shared[parity]
            : (l->inner[i]->kind->backward_weight == dls_layer_no_weights
               ? dls_plan_passing : dls_plan_gradient)(plan, elements(l->inner[i], plan));
    }
    /* plan the inner layers */
    for (int i = 0; i < l->ninner; i++) {
        dls_plan_mark before = dls_plan_begin(plan);
        dls_layer_plan(l->inner[i], plan);
        dls_plan_release(plan, before);
    }
    dls_plan_release(plan, mark);
}

/* find a place */
static const void *value_before(const dls_layer *l, const dls_pass *p, int i,
                                const void *x)
{
    return i == 0 ? x : dls_pass_stash(p, l->slots[i - 1]);
}

static void *value_after(const dls_layer *l, const dls_pass *p, int i, void *y)
{
    return i + 1 == l->ninner ? y : dls_pass_stash(p, l->slots[i]);
}

/* The gradient of inner layer i's output, and so of layer i + 1's input. */
static void *gradient_after(const dls_layer *l, const dls_pass *p, int i)
{
    return dls_pass_gradient(p, l->slots[l->ninner + i]);
}

/* bring back an input */
static dls_status bring_back_input(const dls_layer *l, dls_pass *p, int i, const void *x)
{
    const dls_layer *before = i > 0 ? l->inner[i - 1] : NULL;
    if (!before || !before->discarded)
        return DLS_OK;
    return before->kind->forward(before, p, dls_pass_stash(p, l->slots[i - 1]),
                                 value_before(l, p, i - 1, x));
}

/* announce a unit */
/* 1: layer i of the sequence begins a unit in this direction, or ends it. */
static int at_border(const dls_layer *l, const dls_pass *p, int i, int next)
{
    int unit = l->inner[i]->unit;
    if (!p->units || unit == l->unit)
        return 0;
    return next < 0 || next >= l->ninner || l->inner[next]->unit != unit;
}

static dls_status begin_unit(const dls_layer *l, const dls_pass *p, int i, int backward)
{
    return !at_border(l, p, i, backward ? i + 1 : i - 1) ? DLS_OK
        : p->units->before(p->units->self, l->inner[i]->unit, backward);
}

static dls_status end_unit(const dls_layer *l, const dls_pass *p, int i, int backward)
{
    return !at_border(l, p, i, backward ? i - 1 : i + 1) ? DLS_OK
        : p->units->after(p->units->self, l->inner[i]->unit, backward);
}

/* run a sequence */
static dls_status sequence_forward(const dls_layer *l, dls_pass *p, void *y,
                                   const void *x)
{
    for (int i = 0; i < l->ninner; i++) {
        const dls_layer *inner = l->inner[i];
        DLS_TRY(begin_unit(l, p, i, 0));
        DLS_TRY(inner->kind->forward(inner, p, value_after(l, p, i, y),
                                     value_before(l, p, i, x)));
        DLS_TRY(end_unit(l, p, i, 0));
    }
    return DLS_OK;
}

static dls_status sequence_walk(const dls_layer *l, dls_pass *p, void *dx,
                                const void *dy, const void *x, void *y, int fused)
{
    for (int i = l->ninner - 1; i >= 0; i--) {
        const dls_layer *inner = l->inner[i];
        void *to = i == 0 ? dx : gradient_after(l, p, i - 1);
        const void *from = i + 1 == l->ninner ? dy : gradient_after(l, p, i);
        DLS_TRY(begin_unit(l, p, i, 1));
        if (fused || !inner->ignores_x)
            DLS_TRY(bring_back_input(l, p, i, x));
        DLS_TRY((fused ? dls_layer_backward : inner->kind->backward_input)(
            inner, p, to, from, value_before(l, p, i, x), value_after(l, p, i, y)));
        DLS_TRY(end_unit(l, p, i, 1));
    }
    return DLS_OK;
}

static dls_status sequence_backward_weight(const dls_layer *l, dls_pass *p,
                                           const void *dy, const void *x)
{
    if (!l->deferred)
        return DLS_FAIL(DLS_ERR_STATE, "weight gradients were not planned for later");
    for (int i = l->ninner - 1; i >= 0; i--) {
        const dls_layer *inner = l->inner[i];
        const void *from = i + 1 == l->ninner ? dy : gradient_after(l, p, i);
        DLS_TRY(bring_back_input(l, p, i, x));
        DLS_TRY(inner->kind->backward_weight(inner, p, from, value_before(l, p, i, x)));
    }
    return DLS_OK;
}

/* keep the inner layers */
int dls_layer_keep(dls_build *b, dls_layer *l, dls_layer *const *inner, int n)
{
    l->inner = calloc((size_t)n, sizeof(dls_layer *));
    l->slots = calloc(2 * (size_t)n, sizeof *l->slots);
    if (!l->inner || !l->slots) {
        b->status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d layers", n);
        return 0;
    }
    memcpy(l->inner, inner, (size_t)n * sizeof *inner);
    l->ninner = n;
    return 1;
}

/* make a sequence */
static dls_status sequence_backward(const dls_layer *l, dls_pass *p, void *dx,
                                    const void *dy, const void *x, void *y)
{
    return sequence_walk(l, p, dx, dy, x, y, 1);
}

static dls_status sequence_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                          const void *dy, const void *x, void *y)
{
    return sequence_walk(l, p, dx, dy, x, y, 0);
}

static const dls_layer_kind sequence_kind = {
    .name = "sequence",
    .plan = sequence_plan,
    .forward = sequence_forward,
    .backward_input = sequence_backward_input,
    .backward_weight = sequence_backward_weight,
    .backward = sequence_backward,
};

static void check_widths(dls_build *b, dls_layer *const *inner, int n)
{
    for (int i = 0; b->status == DLS_OK && i + 1 < n; i++)
        if (inner[i]->out != inner[i + 1]->in)
            b->status = DLS_FAIL(DLS_ERR_INPUT,
                                 "%s gives %d columns, %s behind it takes %d",
                                 inner[i]->kind->name, inner[i]->out,
                                 inner[i + 1]->kind->name, inner[i + 1]->in);
}

dls_layer *dls_sequence(dls_build *b, dls_layer *const *inner, int n)
{
    check_widths(b, inner, n);
    if (b->status != DLS_OK)
        return NULL;
    dls_layer *l = dls_layer_make(b, &sequence_kind, inner[0]->in, inner[n - 1]->out);
    if (!l || !dls_layer_keep(b, l, inner, n))
        return NULL;
    l->ignores_x = inner[0]->ignores_x;
    l->spares_x = dls_layer_spares_x(inner[0]);
    return l;
}

/* residual layer */
static void residual_plan(dls_layer *l, dls_plan *plan)
{
    dls_layer_plan(l->inner[0], plan);
}

static dls_status residual_forward(const dls_layer *l, dls_pass *p, void *y,
                                   const void *x)
{
    const dls_layer *f = l->inner[0];
    DLS_TRY(f->kind->forward(f, p, y, x));
    return !y ? DLS_OK : dls_add(p->ctx, y, y, x, (size_t)dls_pass_rows(l, p) * l->out);
}

static dls_status residual_backward(const dls_layer *l, dls_pass *p, void *dx,
                                    const void *dy, const void *x, void *y)
{
    (void)y;
    DLS_TRY(dls_layer_backward(l->inner[0], p, dx, dy, x, NULL));
    return dls_add(p->ctx, dx, dx, dy, (size_t)dls_pass_rows(l, p) * l->in);
}

static dls_status residual_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                          const void *dy, const void *x, void *y)
{
    const dls_layer *f = l->inner[0];
    (void)y;
    DLS_TRY(f->kind->backward_input(f, p, dx, dy, x, NULL));
    return dls_add(p->ctx, dx, dx, dy, (size_t)dls_pass_rows(l, p) * l->in);
}

static dls_status residual_backward_weight(const dls_layer *l, dls_pass *p,
                                           const void *dy, const void *x)
{
    return l->inner[0]->kind->backward_weight(l->inner[0], p, dy, x);
}

/* make a residual */
static const dls_layer_kind residual_kind = {
    .name = "residual",
    .plan = residual_plan,
    .forward = residual_forward,
    .backward_input = residual_backward_input,
    .backward_weight = residual_backward_weight,
    .backward = residual_backward,
};

dls_layer *dls_residual(dls_build *b, dls_layer *f)
{
    if (b->status != DLS_OK)
        return NULL;
    if (f->in != f->out) {
        b->status = DLS_FAIL(DLS_ERR_INPUT, "a residual around %s needs %d = %d columns",
                             f->kind->name, f->in, f->out);
        return NULL;
    }
    dls_layer *l = dls_layer_make(b, &residual_kind, f->in, f->out);
    if (!l || !dls_layer_keep(b, l, &f, 1))
        return NULL;
    l->ignores_x = f->ignores_x;
    return l;
}

/* tests/parallel/expert_mutant.c: from chapters/08-expert-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* Spoiling what concerns experts. */
#include "exact_ops.h"
#include "layers/expert_layer.h"
#include "mesh_mutant.h"
#include "parallel/expert/copies.h"

#include <string.h>

/* change numbers on the stream */
static void square_all(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, exact_get(o, 0, i) * exact_get(o, 0, i));
}

static void forget_all(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, 1);
}

static void scale_all(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, o->scale * exact_get(o, 0, i));
}

/* The first choices of the first and the last row change places. */
static void swap_places(const exact_op *o)
{
    int *place = o->a[0], *last = place + (size_t)(o->rows - 1) * o->in, kept = *place;
    if (o->rows < 2)
        return;
    *place = *last;
    *last = kept;
}

/* spoil a pass through experts */
typedef struct moment { const dls_layer *l; dls_pass *p; } moment;

static mesh_mutant fault;
static const dls_layer_kind *right;
static dls_layer_kind wrong;

static exact_op on_choices(const dls_layer *l, const dls_pass *p, const void *array,
                           void (*fn)(const exact_op *))
{
    int slices = l->slices > 1 ? 1 : l->sharding->tensor > 1 ? l->sharding->tensor : 1;
    return (exact_op){.fn = fn, .rows = dls_pass_rows(l, p) / slices,
                      .in = l->experts->moe.chosen, .a = {(void *)array}};
}

static dls_status at_point(void *self, dls_point point, int backward)
{
    const moment *m = self;
    dls_routed r = dls_routing_found(&m->l->experts->routing, m->p);
    if (fault == MUTANT_COMBINE && point == DLS_POINT_DISPATCH && !backward)
        return exact_enqueue(m->p->ctx, on_choices(m->l, m->p, r.place, swap_places),
                             "fault");
    if (fault == MUTANT_WEIGHTS_TWICE && point == DLS_POINT_COMBINE && !backward)
        return exact_enqueue(m->p->ctx, on_choices(m->l, m->p, r.weights, square_all),
                             "fault");
    return DLS_OK;
}

static dls_status wrong_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    moment m = {l, p};
    dls_point_hook hook = {&m, at_point};
    p->points = &hook;
    dls_status s = right->forward(l, p, y, x);
    p->points = NULL;
    return s;
}

static dls_status wrong_backward(const dls_layer *l, dls_pass *p, void *dx,
                                 const void *dy, const void *x, void *y)
{
    dls_routed r = dls_routing_found(&l->experts->routing, p);
    if (fault == MUTANT_WEIGHTS_FORWARD)
        DLS_TRY(exact_enqueue(p->ctx, on_choices(l, p, r.weights, forget_all), "fault"));
    return right->backward(l, p, dx, dy, x, y);
}

/* spoil an expert layer */
static void spoil_layer(mesh_mutant m, dls_layer *l)
{
    dls_routing *r = &l->experts->routing;
    right = l->kind == &wrong ? right : l->kind;
    wrong = *right;
    wrong.forward = wrong_forward;
    wrong.backward = wrong_backward;
    l->kind = &wrong;
    if (m == MUTANT_SEQUENCE_LOSS)
        r->moe.aux_sequence *= 2;
    if (m == MUTANT_DROPS_BY_RANK)
        r->sharding.tensor_rank = 0;
}

void mesh_mutant_spoil_experts(mesh_mutant m, dls_transformer *t)
{
    fault = m;
    for (dls_layer *l = t->build.all; m > MUTANT_TABLE_APART && l; l = l->next)
        if (l->experts)
            spoil_layer(m, l);
    for (int i = 0; m == MUTANT_ROUTER_APART && i < t->params.n; i++)
        if (strstr(t->params.items[i].name, ".router."))
            t->params.items[i].partial = 0;
}

/* spoil sums and norms */
void mesh_mutant_spoil_axes(mesh_mutant m, dls_axes *axes)
{
    if (m == MUTANT_EXPERTS_OVER_DATA)
        dls_axes_add_copies(axes, axes->data, axes->data);
}

const dls_axes *mesh_mutant_norm_axes(mesh_mutant m, const dls_axes *axes)
{
    static dls_axes own;
    if (m != MUTANT_NORM_OWN)
        return axes;
    own = *axes;
    own.apart = 0;
    return &own;
}

dls_status mesh_mutant_spoil_gradients(mesh_mutant m, dls_params *set, dls_ctx *ctx)
{
    const char *part = m == MUTANT_EXPERTS_TIMES_EP ? ".expert."
                     : m == MUTANT_SHARED_TIMES_TP ? ".shared." : NULL;
    for (int i = 0; part && i < set->n; i++)
        if (strstr(set->items[i].name, part))
            DLS_TRY(exact_enqueue(ctx, (exact_op){
                .fn = scale_all, .rows = 1, .in = (int)set->items[i].count, .scale = 2,
                .a = {set->items[i].grad}}, "fault"));
    return DLS_OK;
}

/* code/layers/mlp.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Product, GELU, product: the derivative of GELU in the epilogue of a product, and one
 * wide gradient where a sequence would need two.
 */
#include "kernels/kernels.h"
#include "layers/internal.h"
#include "layers/sliced.h"

/* mlp layer */
static void mlp_plan(dls_layer *l, dls_plan *plan)
{
    dls_plan_mark mark = dls_plan_begin(plan);
    l->slot[0] = dls_layer_value(l->inner[0], l->inner[1], plan);   // before GELU (N, F)
    l->slot[1] = dls_layer_value(l->inner[1], NULL, plan);          // behind it
    l->places[0] = dls_plan_gradient(plan, (size_t)dls_plan_rows(l->inner[0], plan)
                                     * l->inner[0]->out);
    for (int i = 0; i < 3; i++)
        dls_layer_plan(l->inner[i], plan);
    dls_plan_release(plan, mark);
}

static dls_status mlp_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    const dls_layer *up = l->inner[0], *gelu = l->inner[1], *down = l->inner[2];
    void *a = dls_pass_stash(p, l->slot[0]), *h = dls_pass_stash(p, l->slot[1]);
    DLS_TRY(up->kind->forward(up, p, a, x));
    DLS_TRY(gelu->kind->forward(gelu, p, h, a));
    return down->kind->forward(down, p, y, h);
}

static dls_status through_gelu(const dls_layer *l, dls_pass *p, const void *dy)
{
    const dls_layer *down = l->inner[2];
    void *a = dls_pass_stash(p, l->slot[0]), *da = dls_pass_gradient(p, l->places[0]);
    if (down->slices > 1)
        return dls_row_gathered(down, p, da, dy, a);
    return dls_linear_gelu_backward_input(p->ctx, da, dy,
                                          dls_pass_value(p, down->weight), a,
                                          dls_pass_rows(l->inner[0], p), down->in,
                                          down->out);
}

static dls_status mlp_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                     const void *dy, const void *x, void *y)
{
    const dls_layer *up = l->inner[0];
    (void)y;
    DLS_TRY(through_gelu(l, p, dy));
    return up->kind->backward_input(up, p, dx, dls_pass_gradient(p, l->places[0]), x,
                                    NULL);
}

static dls_status mlp_backward_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                      const void *x)
{
    const dls_layer *up = l->inner[0], *gelu = l->inner[1], *down = l->inner[2];
    void *a = dls_pass_stash(p, l->slot[0]), *h = dls_pass_stash(p, l->slot[1]);
    if (gelu->discarded)
        DLS_TRY(gelu->kind->forward(gelu, p, h, a));
    DLS_TRY(down->kind->backward_weight(down, p, dy, h));
    return up->kind->backward_weight(up, p, dls_pass_gradient(p, l->places[0]), x);
}

static dls_status mlp_backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                               const void *x, void *y)
{
    const dls_layer *up = l->inner[0], *gelu = l->inner[1], *down = l->inner[2];
    void *h = dls_pass_stash(p, l->slot[1]);
    if (!down->cut) {
        DLS_TRY(mlp_backward_input(l, p, dx, dy, x, y));
        return mlp_backward_weight(l, p, dy, x);
    }
    DLS_TRY(through_gelu(l, p, dy));
    if (gelu->discarded)
        DLS_TRY(gelu->kind->forward(gelu, p, h, dls_pass_stash(p, l->slot[0])));
    DLS_TRY(dls_row_weight(down, p, dy, down->slices > 1 ? p->temporary : dy, h));
    return dls_layer_backward(up, p, dx, dls_pass_gradient(p, l->places[0]), x, NULL);
}

static const dls_layer_kind mlp_kind = {
    .name = "mlp",
    .plan = mlp_plan,
    .forward = mlp_forward,
    .backward_input = mlp_backward_input,
    .backward_weight = mlp_backward_weight,
    .backward = mlp_backward,
};

dls_layer *dls_gelu_mlp(dls_build *b, dls_layer *const part[3])
{
    dls_layer *l = b->status == DLS_OK
        ? dls_layer_make(b, &mlp_kind, part[0]->in, part[2]->out) : NULL;
    if (!l || !dls_layer_keep(b, l, part, 3))
        return NULL;
    l->ignores_x = 1;
    return l;
}

/* tests/parallel/exact_block.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* The pre-norm block with its sums one by one; layers/block.c in whole numbers. */
#include "exact_layers.h"
#include "kernels/kernels.h"

/* plan an exact block */
enum { N1, H, N2, BRANCH, DN1, DN2, DH, DF1, DF2 };

static void *value(const dls_layer *l, const dls_pass *p, int slot)
{
    return slot < DN1 ? dls_pass_stash(p, l->places[slot])
                      : dls_pass_gradient(p, l->places[slot]);
}

static size_t count_of(const dls_layer *l, const dls_pass *p)
{
    return (size_t)dls_pass_rows(l, p) * l->in;
}

static void exact_block_plan(dls_layer *l, dls_plan *plan)
{
    size_t count = (size_t)dls_plan_rows(l, plan) * l->in;
    for (int i = N1; i <= BRANCH; i++)
        l->places[i] = dls_plan_stash(plan, count, plan->dtype);
    for (int i = DN1; i <= DF2; i++)
        l->places[i] = dls_plan_gradient(plan, count);
    for (int i = 0; i < 4; i++)
        dls_layer_plan(l->inner[i], plan);
}

/* run an exact block forward */
/* to = x + what the branch gave, under its mask. */
static dls_status add_branch(const dls_layer *l, int branch, dls_pass *p, void *to,
                             void *given, const void *x)
{
    const dls_layer *f = l->inner[branch];
    if (p->drops && f->dropout > 0)
        DLS_TRY(dls_layer_drop(f, p, given, given));
    return dls_add(p->ctx, to, given, x, count_of(l, p));
}

static dls_status exact_block_forward(const dls_layer *l, dls_pass *p, void *y,
                                      const void *x)
{
    dls_layer **in = l->inner;
    void *h = value(l, p, H), *given = value(l, p, BRANCH);
    DLS_TRY(in[0]->kind->forward(in[0], p, value(l, p, N1), x));
    DLS_TRY(in[1]->kind->forward(in[1], p, given, value(l, p, N1)));
    DLS_TRY(add_branch(l, 1, p, h, given, x));
    DLS_TRY(in[2]->kind->forward(in[2], p, value(l, p, N2), h));
    DLS_TRY(in[3]->kind->forward(in[3], p, y, value(l, p, N2)));
    return y ? add_branch(l, 3, p, y, y, h) : DLS_OK;
}

/* run an exact block backward */
/* What entered a branch on its way back. */
static void *entered(const dls_layer *l, const dls_pass *p, int half, const void *dy)
{
    const dls_layer *f = l->inner[2 * half + 1];
    int drops = p->drops && f->dropout > 0;
    return drops || exact_has_experts(f) ? value(l, p, half ? DF2 : DF1)
         : half ? (void *)dy : value(l, p, DH);
}

static dls_status enter(const dls_layer *f, dls_pass *p, void *df, const void *dy)
{
    exact_op o = {.fn = exact_limit, .rows = dls_pass_rows(f, p), .in = f->out,
                  .scale = 1, .a = {df, (void *)dy}};
    if (p->drops && f->dropout > 0) {
        DLS_TRY(dls_layer_drop(f, p, df, dy));
        o.a[1] = df;
    }
    return exact_has_experts(f) ? exact_enqueue(p->ctx, o, "limit") : DLS_OK;
}

static dls_status half_back(const dls_layer *l, dls_pass *p, int half, void *dx,
                            const void *dy, const void *x, int fused)
{
    const dls_layer *norm = l->inner[2 * half], *f = l->inner[2 * half + 1];
    void *dn = value(l, p, half ? DN2 : DN1), *n = value(l, p, half ? N2 : N1);
    void *df = entered(l, p, half, dy);
    if (df != dy)
        DLS_TRY(enter(f, p, df, dy));
    DLS_TRY((fused ? dls_layer_backward : f->kind->backward_input)(f, p, dn, df, n,
                                                                    NULL));
    DLS_TRY(norm->kind->backward_weight(norm, p, dn, x));
    DLS_TRY(norm->kind->backward_input(norm, p, dx, dn, x, NULL));
    return dls_add(p->ctx, dx, dx, dy, count_of(l, p));
}

static dls_status walk(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                       const void *x, int fused)
{
    void *dh = value(l, p, DH);
    DLS_TRY(half_back(l, p, 1, dh, dy, value(l, p, H), fused));
    return half_back(l, p, 0, dx, dh, x, fused);
}

static dls_status exact_block_backward(const dls_layer *l, dls_pass *p, void *dx,
                                       const void *dy, const void *x, void *y)
{
    (void)y;
    return walk(l, p, dx, dy, x, 1);
}

static dls_status exact_block_input(const dls_layer *l, dls_pass *p, void *dx,
                                    const void *dy, const void *x, void *y)
{
    (void)y;
    return walk(l, p, dx, dy, x, 0);
}

static dls_status exact_block_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                     const void *x)
{
    (void)x;
    for (int half = 1; half >= 0; half--) {
        const dls_layer *norm = l->inner[2 * half], *f = l->inner[2 * half + 1];
        DLS_TRY(f->kind->backward_weight(f, p, entered(l, p, half, dy),
                                         value(l, p, half ? N2 : N1)));
        DLS_TRY(dls_pass_added(p, norm->weight));
        if (norm->bias >= 0)
            DLS_TRY(dls_pass_added(p, norm->bias));
    }
    return DLS_OK;
}

const dls_layer_kind exact_block_kind = {
    .name = "exact block", .plan = exact_block_plan, .forward = exact_block_forward,
    .backward_input = exact_block_input, .backward_weight = exact_block_weight,
    .backward = exact_block_backward};

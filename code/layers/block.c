/* code/layers/block.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The pre-norm block: two branches around one stream, with the sums of the stream made
 * by the norms' kernels.
 *
 *   x ──┬─ norm1 ─ attention ─┐  ┌─ norm2 ─ MLP ─┐
 *       └─────────────────────+──┴───────────────+── y
 *                             h
 */
#include "kernels/kernels.h"
#include "layers/internal.h"

/* plan a block */
enum { N1, H, N2, BRANCH, DN1, DN2, DH, DF1, DF2, BLOCK_SLOTS };

static void plan_block_gradients(dls_layer *l, dls_plan *plan)
{
    size_t *at = l->places, count = (size_t)dls_plan_rows(l, plan) * l->in;
    int dropped = l->inner[1]->dropout > 0;
    at[DN1] = at[DN2] = dls_plan_passing(plan, count);
    at[DH] = dls_plan_gradient(plan, count);
    at[DF1] = dropped ? dls_plan_gradient(plan, count) : at[DH];
    at[DF2] = plan->deferred && dropped ? dls_plan_gradient(plan, count) : at[DF1];
}

static void block_plan(dls_layer *l, dls_plan *plan)
{
    dls_plan_mark mark = dls_plan_begin(plan);
    size_t *at = l->places, count = (size_t)dls_plan_rows(l, plan) * l->in;
    at[N1] = dls_layer_value(l->inner[0], NULL, plan);
    at[H] = (l->inner[2]->discarded ? dls_plan_stash : dls_plan_early)(plan, count,
                                                                       plan->dtype);
    at[N2] = dls_layer_value(l->inner[2], NULL, plan);
    at[BRANCH] = dls_plan_scratch(plan, count, plan->dtype);
    plan_block_gradients(l, plan);
    for (int i = 0; i < 4; i++) {
        dls_plan_mark before = dls_plan_begin(plan);
        dls_layer_plan(l->inner[i], plan);
        dls_plan_release(plan, before);
    }
    dls_plan_release(plan, mark);
}

/* describe the norm of a block */
static void *value(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_stash(p, l->places[slot]);
}

static void *gradient(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_gradient(p, l->places[slot]);
}

static dls_residual_norm norm_shape(const dls_layer *norm, const dls_pass *p,
                                    const dls_dropout *dropout)
{
    return (dls_residual_norm){.N = dls_pass_rows(norm, p), .C = norm->in,
                               .centred = norm->bias >= 0, .epsilon = norm->epsilon,
                               .dropout = dropout};
}

static void *mean_of(const dls_layer *norm, const dls_pass *p)
{
    return norm->bias < 0 ? NULL : dls_pass_stash(p, norm->slot[0]);
}

static void *rstd_of(const dls_layer *norm, const dls_pass *p)
{
    return dls_pass_stash(p, norm->slot[norm->bias >= 0]);
}

/* run a block forward */
static dls_status first_half(const dls_layer *l, dls_pass *p, const void *x)
{
    const dls_layer *norm = l->inner[0], *f = l->inner[1], *next = l->inner[2];
    dls_dropout d = dls_layer_mask(f, p);
    int drops = p->drops && d.p > 0, apart = drops && dls_layer_is_scattered(p);
    dls_residual_norm s = norm_shape(next, p, drops && !apart ? &d : NULL);
    DLS_TRY(norm->kind->forward(norm, p, value(l, p, N1), x));
    DLS_TRY(f->kind->forward(f, p, value(l, p, BRANCH), value(l, p, N1)));
    if (apart)
        DLS_TRY(dls_layer_drop(f, p, value(l, p, BRANCH), value(l, p, BRANCH)));
    return dls_residual_norm_forward(
        p->ctx, value(l, p, H), value(l, p, N2), mean_of(next, p), rstd_of(next, p), x,
        value(l, p, BRANCH), dls_pass_value(p, next->weight),
        next->bias < 0 ? NULL : dls_pass_value(p, next->bias), &s);
}

static dls_status block_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    const dls_layer *f = l->inner[3];
    DLS_TRY(first_half(l, p, x));
    DLS_TRY(f->kind->forward(f, p, y, value(l, p, N2)));
    if (!y)
        return DLS_OK;
    if (p->drops && f->dropout > 0)
        DLS_TRY(dls_layer_drop(f, p, y, y));
    return dls_add(p->ctx, y, y, value(l, p, H), (size_t)dls_pass_rows(l, p) * l->out);
}

/* run a half backward */
typedef struct half_block {
    const dls_layer *norm, *f;
    void *input, *n, *dn;       /* the norm's input and result, the gradient of it */
    const void *df;             /* the gradient that enters the branch */
} half_block;

static half_block half_of(const dls_layer *l, const dls_pass *p, int second,
                          const void *dy, const void *x)
{
    int drops = p->drops && l->inner[1]->dropout > 0;
    half_block h = {l->inner[2 * second], l->inner[2 * second + 1], (void *)x,
                    value(l, p, second ? N2 : N1), gradient(l, p, second ? DN2 : DN1),
                    gradient(l, p, second ? DF2 : drops ? DF1 : DH)};
    if (second) {
        h.input = value(l, p, H);
        h.df = drops ? h.df : dy;
    }
    return h;
}

static dls_status bring_back(const half_block *h, dls_pass *p)
{
    return h->norm->discarded ? h->norm->kind->forward(h->norm, p, h->n, h->input)
                              : DLS_OK;
}

static dls_status half_weight(const half_block *h, dls_pass *p)
{
    DLS_TRY(bring_back(h, p));
    DLS_TRY(h->f->kind->backward_weight(h->f, p, h->df, h->n));
    DLS_TRY(dls_pass_added(p, h->norm->weight));    // by I
    return h->norm->bias < 0 ? DLS_OK : dls_pass_added(p, h->norm->bias);
}

/* dx = dstream + what comes through norm and branch; df = dx under the mask. */
static dls_status half_backward(const half_block *h, dls_pass *p, void *dx, void *df,
                                const void *dstream, const dls_dropout *mask, int fused)
{
    dls_residual_norm s = norm_shape(h->norm, p, mask);
    if (fused || !h->f->ignores_x)
        DLS_TRY(bring_back(h, p));
    DLS_TRY((fused ? dls_layer_backward : h->f->kind->backward_input)(
        h->f, p, h->dn, h->df, h->n, NULL));
    DLS_TRY(h->norm->kind->backward_weight(h->norm, p, h->dn, h->input));
    return dls_residual_norm_backward(
        p->ctx, dx, df, dstream, h->dn, h->input, dls_pass_value(p, h->norm->weight),
        mean_of(h->norm, p), rstd_of(h->norm, p), &s);
}

/* run a block backward */
static dls_status block_walk(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                             const void *x, int fused)
{
    dls_dropout d = dls_layer_mask(l->inner[1], p);
    half_block first = half_of(l, p, 0, dy, x), second = half_of(l, p, 1, dy, x);
    void *dh = gradient(l, p, DH), *df = NULL;
    int drops = p->drops && d.p > 0, apart = drops && dls_layer_is_scattered(p);
    if (drops) {
        df = gradient(l, p, DF1);
        DLS_TRY(dls_layer_drop(l->inner[3], p, (void *)second.df, dy));
    }
    DLS_TRY(half_backward(&second, p, dh, apart ? NULL : df, dy,
                          drops && !apart ? &d : NULL, fused));
    if (apart)
        DLS_TRY(dls_layer_drop(l->inner[1], p, df, dh));
    return half_backward(&first, p, dx, NULL, dh, NULL, fused);
}

static dls_status block_backward(const dls_layer *l, dls_pass *p, void *dx,
                                 const void *dy, const void *x, void *y)
{
    (void)y;
    return block_walk(l, p, dx, dy, x, 1);
}

static dls_status block_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                       const void *dy, const void *x, void *y)
{
    (void)y;
    return block_walk(l, p, dx, dy, x, 0);
}

static dls_status block_backward_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                        const void *x)
{
    half_block first = half_of(l, p, 0, dy, x), second = half_of(l, p, 1, dy, x);
    if (!l->deferred)
        return DLS_FAIL(DLS_ERR_STATE, "weight gradients were not planned for later");
    DLS_TRY(half_weight(&second, p));
    return half_weight(&first, p);
}

/* make a block */
static const dls_layer_kind block_kind = {
    .name = "block",
    .plan = block_plan,
    .forward = block_forward,
    .backward_input = block_backward_input,
    .backward_weight = block_backward_weight,
    .backward = block_backward,
};

dls_layer *dls_pre_norm(dls_build *b, dls_layer *const part[4])
{
    dls_layer *l = b->status == DLS_OK
        ? dls_layer_make(b, &block_kind, part[0]->in, part[0]->in) : NULL;
    for (int i = 0; l && i < 4; i++)
        if (part[i]->in != l->in || part[i]->out != l->in) {
            b->status = DLS_FAIL(DLS_ERR_INPUT, "a block of %d columns has a %s from %d "
                                 "to %d", l->in, part[i]->kind->name, part[i]->in,
                                 part[i]->out);
            return NULL;
        }
    if (l)
        l->spares_x = !part[0]->discarded;
    return l && dls_layer_keep(b, l, part, 4) ? l : NULL;
}

/* tests/parallel/exact_head.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Scores and a loss of squares, over a band of the vocabulary. */
#include "exact_layers.h"
#include "layers/tensor.h"

/* compute the exact loss */
/* a: losses (rows), scores (rows, out), weight (out, in), x (rows, in); first: the number
 * of the band's first token */
static void head_forward(const exact_op *o)
{
    for (int r = 0; r < o->rows; r++) {
        double loss = 0;
        for (int v = 0; v < o->out; v++) {
            double score = 0;
            for (int c = 0; c < o->in; c++)
                score += exact_get(o, 3, (size_t)r * o->in + c)
                    * exact_get(o, 2, (size_t)v * o->in + c);
            double off = score - (o->ids[r] == o->first + v ? 8 : 0);
            loss += off * off;
            exact_set(o, 1, (size_t)r * o->out + v, exact_cut(off, 4));
        }
        exact_set(o, 0, r, loss / 2);
    }
}

/* compute the exact head gradients */
/* a: dx (rows, in), dscores (rows, out), weight (out, in) */
static void head_backward(const exact_op *o)
{
    for (int r = 0; r < o->rows; r++)
        for (int c = 0; c < o->in; c++) {
            double sum = 0;
            for (int v = 0; v < o->out; v++)
                sum += exact_get(o, 1, (size_t)r * o->out + v)
                    * exact_get(o, 2, (size_t)v * o->in + c);
            exact_set(o, 0, (size_t)r * o->in + c, o->scale * sum);
        }
}

/* a: dweight (out, in), dscores (rows, out), x (rows, in) */
static void head_weight(const exact_op *o)
{
    for (int r = 0; r < o->rows; r++)
        for (int i = 0; i < o->out * o->in; i++)
            exact_add(o, 0, i, o->scale
                      * exact_get(o, 1, (size_t)r * o->out + i / o->in)
                      * exact_get(o, 2, (size_t)r * o->in + i % o->in));
}

/* make the head exact */
static void exact_head_plan(dls_layer *l, dls_plan *plan)
{
    size_t rows = (size_t)plan->max_B * plan->max_T;
    l->slot[0] = dls_plan_stash(plan, rows * l->vocabulary, plan->dtype);   // scores
    dls_tensor_room(plan, l->gathers, l->in);
}

static exact_op head_op(const dls_layer *l, const dls_pass *p, void *a0, void *a1,
                        void *a2, void *a3)
{
    return (exact_op){.rows = p->B * p->T, .in = l->in, .out = l->vocabulary,
                      .first = l->first, .scale = p->loss_scale, .ids = p->targets,
                      .a = {a0, a1, a2, a3}};
}

static dls_status exact_head_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    dls_comm *comm;
    DLS_TRY(dls_tensor_gather(p, l->gathers, l->in, &x, x));
    exact_op o = head_op(l, p, y, dls_pass_stash(p, l->slot[0]),
                         dls_pass_value(p, l->weight), (void *)x);
    o.fn = head_forward;
    DLS_TRY(exact_enqueue(p->ctx, o, "head"));
    if (!l->cut)
        return DLS_OK;
    DLS_TRY(dls_tensor_comm(p, &comm));
    return dls_comm_all_reduce(comm, y, (size_t)o.rows, p->ctx->dtype, DLS_SUM,
                               p->ctx->stream);
}

static dls_status exact_head_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    void *share = dls_tensor_share(p, l->gathers, dx);
    exact_op o = head_op(l, p, share, dls_pass_stash(p, l->slot[0]),
                         dls_pass_value(p, l->weight), NULL);
    (void)dy, (void)x, (void)y;
    o.fn = head_backward;
    DLS_TRY(exact_enqueue(p->ctx, o, "head backward"));
    return l->cut ? dls_tensor_sum(p, l->gathers, l->in, dx, share) : DLS_OK;
}

static dls_status exact_head_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                    const void *x)
{
    (void)dy;
    DLS_TRY(dls_tensor_gather(p, l->gathers, l->in, &x, x));
    exact_op o = head_op(l, p, dls_pass_grad(p, l->weight),
                         dls_pass_stash(p, l->slot[0]), (void *)x, NULL);
    o.fn = head_weight;
    DLS_TRY(exact_enqueue(p->ctx, o, "head weight"));
    return dls_pass_added(p, l->weight);
}

const dls_layer_kind exact_head_kind = {
    .name = "exact head", .plan = exact_head_plan, .forward = exact_head_forward,
    .backward_input = exact_head_input, .backward_weight = exact_head_weight};

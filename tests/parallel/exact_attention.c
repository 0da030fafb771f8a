/* tests/parallel/exact_attention.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention in whole numbers: cut-off products as weights. */
#include <string.h>

#include "exact_layers.h"
#include "layers/context.h"

/* multiply heads */
/* Sum over a head's columns of a[i ...] and b[j ...], each cut off. */
static double heads_product(const exact_op *o, int a, size_t i, double most_a, int b,
                            size_t j, double most_b)
{
    double sum = 0;
    for (int c = 0; c < o->shape.D; c++)
        sum += exact_cut(exact_get(o, a, i + c), most_a)
            * exact_cut(exact_get(o, b, j + c), most_b);
    return sum;
}

/* Where head h of query i of sequence b begins in q and out; its key head in k and v. */
typedef struct place { size_t q, o, k, v; } place;

static place place_of(const dls_attention_shape *s, int b, int i, int h, int j)
{
    size_t head = (size_t)h * s->D, kv = (size_t)(h / (s->H / s->Hk)) * s->D;
    return (place){b * s->q_sequence + i * s->q_row + head,
                   b * s->o_sequence + i * s->o_row + head,
                   b * s->k_sequence + j * s->k_row + kv,
                   b * s->v_sequence + j * s->v_row + kv};
}

/* attend in whole numbers */
/* a: out, q, k, v */
static void attend(const exact_op *o, int b, int i, int h)
{
    const dls_attention_shape *s = &o->shape;
    double sum[s->D];
    memset(sum, 0, sizeof sum);
    for (int j = 0; j < dls_attention_seen(s, i, s->Tq, s->Tk); j++) {
        place at = place_of(s, b, i, h, j);
        double weight = exact_cut(heads_product(o, 1, at.q, 4, 2, at.k, 4), 1);
        for (int c = 0; c < s->D; c++)
            sum[c] += weight * exact_cut(exact_get(o, 3, at.v + c), 2);
    }
    for (int c = 0; c < s->D; c++)
        exact_set(o, 0, place_of(s, b, i, h, 0).o + c, sum[c]);
}

static void attention_forward(const exact_op *o)
{
    for (int b = 0; b < o->shape.B; b++)
        for (int i = 0; i < o->shape.Tq; i++)
            for (int h = 0; h < o->shape.H; h++)
                attend(o, b, i, h);
}

/* attend backward in whole numbers */
/* a: dq, dk, dv, dout, q, k, v; adds to the first three */
static void attend_back(const exact_op *o, int b, int i, int h)
{
    const dls_attention_shape *s = &o->shape;
    for (int j = 0; j < dls_attention_seen(s, i, s->Tq, s->Tk); j++) {
        place at = place_of(s, b, i, h, j);
        double weight = exact_cut(heads_product(o, 4, at.q, 4, 5, at.k, 4), 1);
        double d = exact_cut(heads_product(o, 3, at.o, 4, 6, at.v, 2), 1);
        for (int c = 0; c < s->D; c++) {
            exact_add(o, 0, at.q + c, d * exact_cut(exact_get(o, 5, at.k + c), 4));
            exact_add(o, 1, at.k + c, d * exact_cut(exact_get(o, 4, at.q + c), 4));
            exact_add(o, 2, at.v + c, weight * exact_cut(exact_get(o, 3, at.o + c), 4));
        }
    }
}

static void attention_backward(const exact_op *o)
{
    const dls_attention_shape *s = &o->shape;
    for (int b = 0; b < s->B; b++) {
        for (int i = 0; i < s->Tq; i++)
            for (int c = 0; c < s->H * s->D; c++)
                exact_set(o, 0, place_of(s, b, i, 0, 0).q + c, 0);
        for (int j = 0; j < s->Tk; j++)
            for (int c = 0; c < s->Hk * s->D; c++) {
                exact_set(o, 1, place_of(s, b, 0, 0, j).k + c, 0);
                exact_set(o, 2, place_of(s, b, 0, 0, j).v + c, 0);
            }
        for (int i = 0; i < s->Tq; i++)
            for (int h = 0; h < s->H; h++)
                attend_back(o, b, i, h);
    }
}

/* enqueue exact attention */
static dls_status block_forward(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                                void *lse, const void *q, const void *k, const void *v)
{
    exact_op o = {.fn = attention_forward, .shape = *s,
                  .a = {out, (void *)q, (void *)k, (void *)v}};
    (void)lse;
    DLS_TRY(dls_attention_complete(&o.shape));
    return exact_enqueue(ctx, o, "attention");
}

static dls_status block_backward(dls_ctx *ctx, const dls_attention_shape *s, void *dq,
                                 void *dk, void *dv, void *temporary, const void *dout,
                                 const void *q, const void *k, const void *v,
                                 const void *out, const void *lse)
{
    exact_op o = {.fn = attention_backward, .shape = *s,
                  .a = {dq, dk, dv, (void *)dout, (void *)q, (void *)k, (void *)v}};
    (void)temporary, (void)out, (void)lse;
    DLS_TRY(dls_attention_complete(&o.shape));
    return exact_enqueue(ctx, o, "attention backward");
}

static size_t no_room(const dls_attention_shape *s, dls_dtype dtype)
{
    (void)s, (void)dtype;
    return 0;
}

static const dls_context_functions exact_functions = {block_forward, block_backward,
                                                      no_room, 0};

/* attend over ranks in whole numbers */
/* `axes` says how it is cut; when planning there are no communicators yet. */
static dls_context context_of(const dls_layer *l, const dls_axes *axes, int B, int T)
{
    size_t row = l->in;
    int n = axes && axes->sharding.context > 1 ? axes->sharding.context : 1;
    return (dls_context){
        .axes = axes, .functions = &exact_functions,
        .shape = {.B = B, .Tq = T * n, .Tk = T * n, .H = l->heads, .Hk = l->kv_heads,
                  .D = l->head_size, .causal = 1, .q_row = row, .k_row = row,
                  .v_row = row}};
}

static void exact_attention_plan(dls_layer *l, dls_plan *plan)
{
    dls_axes axes = {.sharding = l->sharding ? *l->sharding : (dls_sharding){0}};
    dls_context c = context_of(l, &axes, plan->max_B, plan->max_T);
    size_t kept = dls_context_kept(&c, plan->dtype);
    l->slot[0] = dls_plan_early(plan, (kept + 3) / 4, DLS_F32);
    dls_plan_temporary(plan, dls_context_temporary(&c, plan->dtype, 1));
}

/* make the attention exact */
static dls_status exact_attention_forward(const dls_layer *l, dls_pass *p, void *y,
                                          const void *x)
{
    size_t size = dls_dtype_size(p->ctx->dtype);
    char *q = (char *)x, *k = q + l->out * size, *v = k + (l->in - l->out) / 2 * size;
    dls_context c = context_of(l, p->axes, p->B, p->T);
    return dls_context_forward(p->ctx, &c, y, dls_pass_stash(p, l->slot[0]), p->temporary,
                               q, k, v);
}

static dls_status exact_attention_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    size_t size = dls_dtype_size(p->ctx->dtype);
    size_t k = l->out * size, v = k + (l->in - l->out) / 2 * size;
    char *q = (char *)x, *dq = dx;
    dls_context c = context_of(l, p->axes, p->B, p->T);
    return dls_context_backward(p->ctx, &c, dq, dq + k, dq + v, p->temporary, dy, q,
                                q + k, q + v, y, dls_pass_stash(p, l->slot[0]));
}

const dls_layer_kind exact_attention_kind = {
    .name = "exact attention", .plan = exact_attention_plan,
    .forward = exact_attention_forward, .backward_input = exact_attention_input,
    .backward_weight = dls_layer_no_weights};

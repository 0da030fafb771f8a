/* code/layers/context_layer.c: from chapters/06-context-parallelism-ways.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention as a layer of a model whose sequences are spread over ranks, and the masks of
 * dropout where a rank's rows are not one stretch of the batch. */
#include "layers/context.h"
#include "layers/internal.h"
#include "layers/token_order.h"

/* describe the attention of a layer */
// `axes` says how it is cut; when planning there are no communicators yet.
static dls_context context_of(const dls_layer *l, const dls_axes *axes, int B, int T)
{
    size_t row = l->in;
    return (dls_context){
        .axes = axes,
        .shape = {.B = B, .Tq = T, .Tk = T, .H = l->heads, .Hk = l->kv_heads,
                  .D = l->head_size, .causal = 1, .q_row = row, .k_row = row,
                  .v_row = row}};
}

static void attention_plan(dls_layer *l, dls_plan *plan)
{
    dls_axes axes = {.sharding = *l->sharding};
    dls_context c = context_of(l, &axes, plan->max_B,
                               plan->max_T * l->sharding->context);
    size_t kept = dls_context_kept(&c, plan->dtype);
    l->slot[0] = dls_plan_early(plan, (kept + 3) / 4, DLS_F32);
    dls_plan_temporary(plan, dls_context_temporary(&c, plan->dtype, !plan->frozen));
}

/* run the attention of a layer */
static dls_status context_of_pass(const dls_layer *l, const dls_pass *p, dls_context *c)
{
    int n = l->sharding->context, T = p->T_whole > 0 ? p->T_whole : p->T * n;
    /* refuse a pass that can not be spread */
    if (!p->axes || p->axes->sharding.context != n)
        return DLS_FAIL(DLS_ERR_STATE, "attention over %d ranks, and no axes", n);
    if (p->cache)
        return DLS_FAIL(DLS_ERR_INPUT, "context: a cache of keys is not spread over "
                        "ranks; generate with context 1");
    if (T != p->T * n)
        return DLS_FAIL(DLS_ERR_INPUT, "context: %d tokens are not %d on each of %d "
                        "ranks; the nearest length that works is %d", T, p->T, n,
                        (T + n - 1) / n * n);
    *c = context_of(l, p->axes, p->B, T);
    /* number the weights of a layer */
    if (p->drops) {
        c->shape.dropout = l->dropout;
        c->shape.seed = p->seed;
        c->shape.stream = l->stream;
        c->shape.first_sequence = (int)p->first_sequence;
        c->shape.first_head = l->first;
    }
    return DLS_OK;
}

static dls_status attention_forward(const dls_layer *l, dls_pass *p, void *y,
                                    const void *x)
{
    dls_context c;
    size_t size = dls_dtype_size(p->ctx->dtype);
    const char *q = x, *k = q + l->out * size, *v = k + (l->in - l->out) / 2 * size;
    if (!y)
        return DLS_FAIL(DLS_ERR_STATE, "attention is run for its stash without a place "
                        "for its output");
    DLS_TRY(context_of_pass(l, p, &c));
    return dls_context_forward(p->ctx, &c, y, dls_pass_stash(p, l->slot[0]), p->temporary,
                               q, k, v);
}

static dls_status attention_backward(const dls_layer *l, dls_pass *p, void *dx,
                                     const void *dy, const void *x, void *y)
{
    dls_context c;
    size_t size = dls_dtype_size(p->ctx->dtype);
    size_t k = l->out * size, v = k + (l->in - l->out) / 2 * size;
    const char *q = x;
    char *dq = dx;
    if (!y)
        return DLS_FAIL(DLS_ERR_STATE, "attention's backward needs its output");
    DLS_TRY(context_of_pass(l, p, &c));
    return dls_context_backward(p->ctx, &c, dq, dq + k, dq + v, p->temporary, dy, q,
                                q + k, q + v, y, dls_pass_stash(p, l->slot[0]));
}

const dls_layer_kind dls_attention_over_ranks = {
    .name = "attention",
    .plan = attention_plan,
    .forward = attention_forward,
    .backward_input = attention_backward,
    .backward_weight = dls_layer_no_weights,
};

/* drop scattered rows */
int dls_layer_is_scattered(const dls_pass *p)
{
    return p->axes && p->axes->sharding.context > 1;
}

dls_status dls_layer_drop_scattered(const dls_layer *l, const dls_pass *p, void *out,
                                    const void *x)
{
    const dls_sharding *by = &p->axes->sharding;
    int T = p->T_whole > 0 ? p->T_whole : p->T * by->context, at, step;
    int first = dls_pass_first_row(l, p), end = first + dls_pass_rows(l, p);
    size_t row = (size_t)l->out * dls_dtype_size(p->ctx->dtype);
    for (int n = first, count; n < end; n += count) {
        /* drop a run of rows */
        dls_dropout d = dls_layer_mask(l, p);
        count = dls_token_run(by->order, T, by->context, by->context_rank, n % p->T, &at,
                              &step);
        count = count < end - n ? count : end - n;
        d.first = ((p->first_sequence + n / p->T) * T + at) * l->out;
        d.row = (uint64_t)step * l->out;
        size_t at_row = (n - first) * row;
        DLS_TRY(dls_dropout_apply(p->ctx, (char *)out + at_row, (const char *)x + at_row,
                                  count, l->out, &d));
    }
    return DLS_OK;
}

/* code/layers/context_block.c: from chapters/06-context-parallelism-ring.md. Edit the chapter, or edit here and run "make untangle". */
/* One block forward and backward, and its place in the sums; see context_internal.h. */
#include "kernels/attention_ways.h"
#include "layers/context_internal.h"

/* attend to a block */
dls_status dls_context_attend(const dls_context_pass *p, int s, const char *kv)
{
    const dls_member *r = &p->r;
    const dls_attention_shape *of = &r->shape;
    size_t width = (size_t)of->H * of->D, half = (size_t)of->Hk * of->D * r->size;
    dls_context_block b = dls_context_block_of(r, s, 2 * (size_t)of->Hk * of->D, width);
    void *lse = r->functions->weighted ? p->at.lse : NULL;
    if (b.empty)
        return DLS_OK;
    DLS_TRY(r->functions->forward(p->ctx, &b.shape,
                                  p->at.block + b.first * width * r->size, lse,
                                  p->q + b.first * of->q_row * r->size, kv, kv + half));
    return dls_merge_outputs(p->ctx, &b.queries, of->H, of->D, p->at.sum, p->kept,
                             p->at.block, lse, s == r->member);
}

/* walk back over a block */
dls_status dls_context_walk_back(const dls_context_pass *p, int s, const char *kv,
                                 char *dkv)
{
    const dls_member *r = &p->r;
    const dls_attention_shape *of = &r->shape;
    /* find the arrays of a block */
    int C = of->H * of->D, both = 2 * of->Hk * of->D, begin = s == r->member;
    dls_context_block b = dls_context_block_of(r, s, both, of->o_row);
    void *lse = r->functions->weighted ? p->at.lse : NULL;
    size_t half = both / 2 * r->size, q = b.first * of->q_row * r->size;
    size_t o = b.first * of->o_row * r->size;
    if (b.empty)
        return p->travelling ? dls_context_arrived(p) : DLS_OK;
    if (lse)
        DLS_TRY(dls_merge_totals(p->ctx, &b.queries, of->H, lse, p->kept));
    /* add the shares of a block */
    DLS_TRY(r->functions->backward(p->ctx, &b.shape, p->dq + q, p->at.block,
                                   p->at.block + half, p->at.temporary, p->dout + o,
                                   p->q + q, kv, kv + half, p->out + o, lse));
    DLS_TRY(dls_merge_add(p->ctx, &b.queries, C, p->at.sum, C, p->dq, of->q_row, begin));
    if (p->travelling)
        DLS_TRY(dls_context_arrived(p));
    return dls_merge_add(p->ctx, &b.keys, both, dkv, both, p->at.block, both, begin);
}

/* call the kernels */
static dls_status kernels_backward(dls_ctx *ctx, const dls_attention_shape *shape,
                                   void *dq, void *dk, void *dv, void *temporary,
                                   const void *dout, const void *q, const void *k,
                                   const void *v, const void *out, const void *lse)
{
    /* take the way that was asked for */
    dls_attention_shape s = *shape;
    dls_attention_way way;
    DLS_TRY(dls_attention_choose(&s, ctx->dtype, &way));
    if (way != DLS_ATTENTION_NAIVE)
        return dls_attention_backward(ctx, &s, dq, dk, dv, temporary, dout, q, k, v, out,
                                      lse);
    DLS_TRY(dls_attention_complete(&s));
    return dls_attention_flash_backward(ctx, &s, dq, dk, dv, temporary, dout, q, k, v,
                                        out, lse);
}

const dls_context_functions dls_context_kernels = {
    dls_attention_forward, kernels_backward, dls_attention_temporary, 1};

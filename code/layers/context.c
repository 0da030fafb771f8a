/* code/layers/context.c: from chapters/06-context-parallelism-ways.md. Edit the chapter, or edit here and run "make untangle". */
/* The entrance to context parallelism: checks, sizes, and the choice of a way. */
#include "layers/context.h"

#include "kernels/attention_ways.h"
#include "layers/context_internal.h"

/* view a member */
int dls_context_group(const dls_sharding *by)
{
    int n = by->context > 1 ? by->context : 1;
    return by->way == DLS_CONTEXT_ULYSSES ? n : by->ulysses > 1 ? by->ulysses : 1;
}

dls_member dls_member_of(const dls_context *c, dls_dtype dtype,
                         const dls_attention_shape *shape, int members, int member,
                         int group)
{
    const dls_sharding one = {0}, *by = c->axes ? &c->axes->sharding : &one;
    dls_member r = {.c = c, .axes = c->axes, .shape = *shape, .members = members,
                    .member = member, .group = group, .order = by->order,
                    .functions = c->functions ? c->functions : &dls_context_kernels,
                    .size = dls_dtype_size(dtype),
                    .wide = dls_dtype_size(dls_dtype_accumulator(dtype))};
    r.ranks = by->context > 1 ? by->context : 1;
    for (int s = 0; s < members; s++) {
        int rows = dls_member_rows(&r, s);
        r.most = rows > r.most ? rows : r.most;
    }
    return r;
}

static size_t or(size_t value, size_t otherwise) { return value ? value : otherwise; }

static dls_context completed(const dls_context *c)
{
    dls_context full = *c;
    dls_attention_shape *s = &full.shape;
    size_t q = (size_t)s->H * s->D, kv = (size_t)s->Hk * s->D;
    s->q_row = or(s->q_row, q);
    s->k_row = or(s->k_row, kv);
    s->v_row = or(s->v_row, kv);
    s->o_row = or(s->o_row, q);
    s->q_sequence = s->k_sequence = s->v_sequence = s->o_sequence = 0;
    s->pairs = s->tokens_q = s->tokens_k = 0;
    return full;
}

// The view of a rank that is a member by itself.
static dls_member alone(const dls_context *c, dls_dtype dtype)
{
    const dls_sharding *by = c->axes ? &c->axes->sharding : NULL;
    int n = by && by->context > 1 ? by->context : 1;
    return dls_member_of(c, dtype, &c->shape, n, n > 1 ? by->context_rank : 0, 1);
}

/* check a context */
// The largest number of ranks up to u that divides n and can share these heads.
static int nearest_group(int n, int u, int H, int Hk)
{
    while (u > 1 && (n % u != 0 || H % u != 0 || (Hk % u != 0 && u % Hk != 0)))
        u--;
    return u;
}

static dls_status check_group(const dls_sharding *by, const dls_attention_shape *s, int u)
{
    int n = by->context, fits = nearest_group(n, u, s->H, s->Hk);
    const char *field = by->way == DLS_CONTEXT_ULYSSES ? "context" : "ulysses";
    if (u > 1 && u < n && by->order == DLS_TOKENS_STRIPED)
        return DLS_FAIL(DLS_ERR_INPUT, "tokens: striped does not go with groups of %d in "
                        "a ring of %d; zigzag and contiguous do", u, n / u);
    if (fits == u)
        return DLS_OK;
    if (n % u != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: groups of %d do not divide %d ranks; the "
                        "nearest that works is %d", field, u, n, fits);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %d ranks can not share %d heads with %d of keys; "
                    "the nearest that works is %d", field, u, s->H, s->Hk, fits);
}

dls_status dls_context_check(const dls_context *c)
{
    enum { MOST = 1024 };
    const dls_attention_shape *s = &c->shape;
    const dls_sharding *by = c->axes ? &c->axes->sharding : NULL;
    if (s->Tq != s->Tk || s->starts_q || s->starts_k || s->lengths_k)
        return DLS_FAIL(DLS_ERR_INPUT, "context: %d queries and %d keys are not those of "
                        "one sequence", s->Tq, s->Tk);
    if (!by || by->context <= 1)
        return DLS_OK;
    /* check ranks and groups */
    int u = dls_context_group(by), ring = u < by->context;
    if (by->context > MOST)
        return DLS_FAIL(DLS_ERR_INPUT, "context: %d ranks; at most %d", by->context,
                        MOST);
    DLS_TRY(check_group(by, s, u));
    /* check what a ring can not do */
    if (ring && s->dropout > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "context: attention dropout %g needs all tokens of a "
                        "head on one rank (ulysses); with a ring or gather it must be 0",
                        s->dropout);
    if (ring && s->D > DLS_FLASH_LARGEST_HEAD)
        return DLS_FAIL(DLS_ERR_INPUT, "context: heads of %d; blocks of keys need at most %d",
                        s->D, DLS_FLASH_LARGEST_HEAD);
    if ((ring && !c->axes->ring) || (u > 1 && !c->axes->ulysses))
        return DLS_FAIL(DLS_ERR_STATE, "context: %d ranks, and no communicator between them",
                        by->context);
    return DLS_OK;
}

/* go between the groups */
size_t dls_context_inner_kept(const dls_member *r)
{
    dls_context_block own = dls_context_block_of(r, r->member, r->shape.k_row,
                                                 r->shape.o_row);
    size_t rows = r->members > 1 ? (size_t)dls_member_rows(r, r->member)
                                 : (size_t)own.shape.B * own.shape.Tq;
    return rows * r->shape.H * r->wide;
}

dls_status dls_context_inner_forward(const dls_context_pass *p, char *out, const char *k,
                                     const char *v)
{
    const dls_member *r = &p->r;
    if (r->members > 1)
        return r->axes->sharding.way == DLS_CONTEXT_GATHER
                   ? dls_context_gather_forward(p, out, k, v)
                   : dls_context_ring_forward(p, out, k, v);
    dls_context_block own = dls_context_block_of(r, 0, r->shape.k_row, r->shape.o_row);
    return own.empty ? DLS_OK
                     : r->functions->forward(p->ctx, &own.shape, out,
                                             r->functions->weighted ? p->kept : NULL,
                                             p->q, k, v);
}

dls_status dls_context_inner_backward(const dls_context_pass *p, char *dk, char *dv,
                                      const char *k, const char *v)
{
    const dls_member *r = &p->r;
    dls_context_pass now = *p;
    now.travelling = r->members > 1 && r->axes->sharding.way != DLS_CONTEXT_GATHER;
    if (r->members > 1)
        return now.travelling ? dls_context_ring_backward(&now, dk, dv, k, v)
                              : dls_context_gather_backward(&now, dk, dv, k, v);
    dls_context_block own = dls_context_block_of(r, 0, r->shape.k_row, r->shape.o_row);
    return own.empty ? DLS_OK
                     : r->functions->backward(p->ctx, &own.shape, p->dq, dk, dv,
                                              p->at.temporary, p->dout, p->q, k, v,
                                              p->out, p->kept);
}

/* size a context */
static int grouped(const dls_context *c)
{
    return c->axes && c->axes->sharding.context > 1 &&
           dls_context_group(&c->axes->sharding) > 1;
}

static int gathers(const dls_context *c)
{
    return c->axes && c->axes->sharding.way == DLS_CONTEXT_GATHER;
}

size_t dls_context_kept(const dls_context *c, dls_dtype dtype)
{
    dls_context full = completed(c);
    size_t kept;
    if (grouped(c)) {
        (void)dls_context_ulysses_bytes(&full, dtype, 1, &kept);
        return kept;
    }
    dls_member r = alone(&full, dtype);
    return dls_context_inner_kept(&r);
}

size_t dls_context_temporary(const dls_context *c, dls_dtype dtype, int backward)
{
    dls_context full = completed(c);
    if (grouped(c)) {
        size_t forward = dls_context_ulysses_bytes(&full, dtype, 0, NULL);
        size_t both = backward ? dls_context_ulysses_bytes(&full, dtype, 1, NULL) : 0;
        return forward > both ? forward : both;
    }
    dls_member r = alone(&full, dtype);
    size_t most = dls_context_lay_out(&r, dtype, NULL, gathers(c), 0).bytes;
    size_t back = backward ? dls_context_lay_out(&r, dtype, NULL, gathers(c), 1).bytes
                           : 0;
    return most > back ? most : back;
}

int dls_context_rows(const dls_context *c)
{
    const dls_sharding *by = c->axes ? &c->axes->sharding : NULL;
    int n = by && by->context > 1 ? by->context : 1;
    if (c->documents)
        return dls_context_document_row(c->documents,
                                        dls_context_documents_count(c->documents));
    dls_token_order order = by ? by->order : DLS_TOKENS_ZIGZAG;
    int rank = n > 1 ? by->context_rank : 0;
    return c->shape.B * dls_token_count(order, c->shape.Tq, n, rank);
}

/* enter the context */
static dls_context_pass pass_of(dls_ctx *ctx, const dls_context *c, void *temporary,
                                int backward)
{
    dls_context_pass p = {.ctx = ctx, .r = alone(c, ctx->dtype)};
    p.at = dls_context_lay_out(&p.r, ctx->dtype, temporary, gathers(c), backward);
    return p;
}

dls_status dls_context_forward(dls_ctx *ctx, const dls_context *c, void *out, void *kept,
                               void *temporary, const void *q, const void *k,
                               const void *v)
{
    dls_context full = completed(c);
    DLS_TRY(dls_context_check(c));
    if (grouped(c))
        return dls_context_ulysses_forward(ctx, &full, out, kept, temporary, q, k, v);
    dls_context_pass p = pass_of(ctx, &full, temporary, 0);
    p.q = q;
    p.kept = kept;
    return dls_context_inner_forward(&p, out, k, v);
}

dls_status dls_context_backward(dls_ctx *ctx, const dls_context *c, void *dq, void *dk,
                                void *dv, void *temporary, const void *dout,
                                const void *q, const void *k, const void *v,
                                const void *out, const void *kept)
{
    dls_context full = completed(c);
    DLS_TRY(dls_context_check(c));
    if (grouped(c))
        return dls_context_ulysses_backward(ctx, &full, dq, dk, dv, temporary, dout,
                                            (char *)kept);
    /* walk back without groups */
    dls_context_pass p = pass_of(ctx, &full, temporary, 1);
    p.q = q;
    p.dout = dout;
    p.out = out;
    p.kept = (char *)kept;
    p.dq = dq;
    return dls_context_inner_backward(&p, dk, dv, k, v);
}

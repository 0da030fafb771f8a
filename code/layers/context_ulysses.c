/* code/layers/context_ulysses.c: from chapters/06-context-parallelism-ways.md. Edit the chapter, or edit here and run "make untangle". */
/* Heads for tokens within a group of ranks; see context.h. */
#include "comm/comm.h"
#include "layers/context_internal.h"

/* divide the heads */
// How a group shares the heads; rows of the exchange are (q + 2 kv) D elements.
typedef struct share { int u, q, kv, D; size_t row, out; } share;

static share share_of(const dls_attention_shape *s, int u)
{
    share x = {.u = u, .q = s->H / u, .kv = s->Hk < u ? 1 : s->Hk / u, .D = s->D};
    x.row = (size_t)(x.q + 2 * x.kv) * x.D;
    x.out = (size_t)x.q * x.D;
    return x;
}

static int first_key_head(const dls_attention_shape *s, int u, int i)
{
    return i * s->Hk / u;
}

// The shape that a rank of the group attends with: rows as they lie after the exchange.
static dls_attention_shape with_some_heads(const dls_context *c, const share *x, int i)
{
    dls_attention_shape s = c->shape;
    s.first_head += i * x->q;
    s.H = x->q;
    s.Hk = x->kv;
    s.q_row = s.k_row = s.v_row = x->row;
    s.o_row = x->out;
    return s;
}

/* walk the stretches of a group */
// Rows that lie side by side both at a rank and in its group's sequence: `count`
// stretches of `rows`, `from_pitch` and `to_pitch` rows apart.
typedef struct stretch { size_t from, to, rows, count, from_pitch, to_pitch; } stretch;

typedef struct group {
    const dls_context *c;
    const dls_sharding *by;
    int u, member, i;               // ranks; number of the group; of this rank in it
} group;

static int ranks_of(const group *g) { return g->by->context; }

// Tokens of a sequence of T that rank j of the group has.
static int tokens_at(const group *g, int T, int j)
{
    return dls_token_count(g->by->order, T, ranks_of(g), g->member * g->u + j);
}

static int in_group(const group *g, int T)
{
    int all = 0;
    for (int j = 0; j < g->u; j++)
        all += tokens_at(g, T, j);
    return all;
}

static int earlier(const group *g, int T, int position)
{
    int all = 0;
    for (int j = 0; j < g->u; j++) {
        int at, step, local = 0, rank = g->member * g->u + j;
        for (int run; (run = dls_token_run(g->by->order, T, ranks_of(g), rank, local, &at,
                                           &step)) > 0; local += run)
            all += position <= at ? 0
                   : (position - at + step - 1) / step < run
                       ? (position - at + step - 1) / step : run;
    }
    return all;
}

// The stretch of rank j's tokens from `local` on, in one sequence; 0 behind the last.
static int stretch_of(const group *g, int T, int j, int local, stretch *s)
{
    int at, step, rank = g->member * g->u + j;
    int run = dls_token_run(g->by->order, T, ranks_of(g), rank, local, &at, &step);
    if (run == 0)
        return 0;
    *s = (stretch){.from = local, .to = earlier(g, T, at), .rows = run, .count = 1};
    if (step > 1)
        *s = (stretch){.from = local, .to = at, .rows = 1, .count = run, .from_pitch = 1,
                       .to_pitch = step};
    return run;
}

/* exchange with the group */
typedef struct copy { dls_ctx *ctx; char *to; const char *from; size_t row; int back; }
    copy;

static dls_status copy_stretch(const copy *x, stretch s)
{
    const char *from = x->from + (x->back ? s.to : s.from) * x->row;
    char *to = x->to + (x->back ? s.from : s.to) * x->row;
    size_t from_pitch = (x->back ? s.to_pitch : s.from_pitch) * x->row;
    size_t to_pitch = (x->back ? s.from_pitch : s.to_pitch) * x->row;
    size_t width = s.rows * x->row;
    if (s.count == 1)
        from_pitch = to_pitch = width;
    DLS_CUDA(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, s.count,
                               cudaMemcpyDeviceToDevice, x->ctx->stream));
    return DLS_OK;
}

// Sequences `count` of T tokens, whose rows of rank j begin at `at` of the exchange and
// whose rows of the group at `group_at`.
static dls_status place(const group *g, const copy *x, int j, int T, int count, size_t at,
                        size_t group_at)
{
    size_t own = tokens_at(g, T, j), all = in_group(g, T);
    stretch s;
    for (int local = 0, run; (run = stretch_of(g, T, j, local, &s)) > 0; local += run) {
        int repeats = s.count == 1 ? 1 : count;
        s.from += at;
        s.to += group_at;
        if (s.count == 1)
            s = (stretch){s.from, s.to, s.rows, count, own, all};
        for (int b = 0; b < repeats; b++, s.from += own, s.to += all)
            DLS_TRY(copy_stretch(x, s));
    }
    return DLS_OK;
}

static dls_status place_all(const group *g, const copy *x)
{
    const dls_context_documents *d = g->c->documents;
    int n = d ? dls_context_documents_count(d) : 1;
    size_t at = 0;
    for (int j = 0; j < g->u; j++) {
        size_t group_at = 0;
        for (int b = 0; b < n; b++) {
            /* place the sequences of one length */
            int T = d ? dls_context_document_length(d, b) : g->c->shape.Tq;
            int count = d ? 1 : g->c->shape.B;
            DLS_TRY(place(g, x, j, T, count, at, group_at));
            at += (size_t)count * tokens_at(g, T, j);
            group_at += (size_t)count * in_group(g, T);
        }
    }
    return DLS_OK;
}

static size_t rows_at(const group *g, int j)
{
    const dls_context_documents *d = g->c->documents;
    size_t rows = 0;
    if (!d)
        return (size_t)g->c->shape.B * tokens_at(g, g->c->shape.Tq, j);
    for (int b = 0; b < dls_context_documents_count(d); b++)
        rows += tokens_at(g, dls_context_document_length(d, b), j);
    return rows;
}

enum { GROUP = 1024 };

// Each rank of the group gets `in`'s block for it; back = 1: the way to the owners.
static dls_status all_to_all(const group *g, dls_ctx *ctx, const char *in, char *out,
                             size_t row, int back)
{
    size_t mine[GROUP], theirs[GROUP], mine_at[GROUP], theirs_at[GROUP], at = 0;
    size_t own = rows_at(g, g->i) * row;
    /* list the blocks of an exchange */
    for (int j = 0; j < g->u; j++) {
        mine[j] = own;
        mine_at[j] = j * own;
        theirs[j] = rows_at(g, j) * row;
        theirs_at[j] = at;
        at += theirs[j];
    }
    return back ? dls_comm_all_to_all_v(g->c->axes->ulysses, in, theirs, theirs_at, out,
                                        mine, mine_at, ctx->dtype, ctx->stream)
                : dls_comm_all_to_all_v(g->c->axes->ulysses, in, mine, mine_at, out,
                                        theirs, theirs_at, ctx->dtype, ctx->stream);
}

/* cut rows into heads */
// Some columns of an array (rows, row) and of the blocks (ranks, rows, width).
typedef struct columns { const dls_ctx *ctx; size_t rows, size; } columns;

static dls_status copy_columns(const columns *x, void *to, size_t to_row,
                               const void *from, size_t from_row, size_t width)
{
    if (x->rows == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemcpy2DAsync(to, to_row * x->size, from, from_row * x->size,
                               width * x->size, x->rows, cudaMemcpyDeviceToDevice,
                               x->ctx->stream));
    return DLS_OK;
}

// blocks (u, rows, x.row) = for each rank its heads of q, k and v.
static dls_status cut_heads(const group *g, dls_ctx *ctx, const share *x, char *blocks,
                            const char *q, const char *k, const char *v)
{
    const dls_attention_shape *s = &g->c->shape;
    columns c = {ctx, rows_at(g, g->i), dls_dtype_size(ctx->dtype)};
    size_t kv = (size_t)x->kv * x->D, size = c.size;
    for (int j = 0; j < x->u; j++) {
        /* cut the heads of a rank */
        char *to = blocks + j * c.rows * x->row * size;
        size_t head = (size_t)first_key_head(s, x->u, j) * x->D * size;
        DLS_TRY(copy_columns(&c, to, x->row, q + j * x->out * size, s->q_row, x->out));
        to += x->out * size;
        DLS_TRY(copy_columns(&c, to, x->row, k + head, s->k_row, kv));
        DLS_TRY(copy_columns(&c, to + kv * size, x->row, v + head, s->v_row, kv));
    }
    return DLS_OK;
}

// The same for outputs: blocks (u, rows, x.out), or back from them.
static dls_status cut_outputs(const group *g, dls_ctx *ctx, const share *x, char *blocks,
                              char *out, int back)
{
    columns c = {ctx, rows_at(g, g->i), dls_dtype_size(ctx->dtype)};
    size_t o_row = g->c->shape.o_row;
    for (int j = 0; j < x->u; j++) {
        char *block = blocks + j * c.rows * x->out * c.size;
        char *part = out + j * x->out * c.size;
        DLS_TRY(back ? copy_columns(&c, part, o_row, block, x->out, x->out)
                     : copy_columns(&c, block, x->out, part, o_row, x->out));
    }
    return DLS_OK;
}

// sums (rows, 2, Hk, D) accumulators; dq from the blocks, dk and dv from the sums.
static dls_status join_gradients(const group *g, dls_ctx *ctx, const share *x,
                                 const char *blocks, char *sums, char *dq, char *dk,
                                 char *dv)
{
    const dls_attention_shape *s = &g->c->shape;
    columns c = {ctx, rows_at(g, g->i), dls_dtype_size(ctx->dtype)};
    int kv = x->kv * x->D, half = s->Hk * x->D, rows = (int)c.rows;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(ctx->dtype));
    dls_merge_rows all = {.B = 1, .most = rows, .count = rows};
    for (int j = 0; j < x->u; j++) {
        /* find the sum of a rank */
        const char *from = blocks + j * c.rows * x->row * c.size;
        int head = first_key_head(s, x->u, j);
        int begin = j == 0 || head != first_key_head(s, x->u, j - 1);
        char *to = sums + (size_t)head * x->D * wide;
        /* join the gradients of a rank */
        DLS_TRY(copy_columns(&c, dq + j * x->out * c.size, s->q_row, from, x->row, x->out));
        from += x->out * c.size;
        DLS_TRY(dls_merge_add(ctx, &all, kv, to, 2 * half, from, x->row, begin));
        DLS_TRY(dls_merge_add(ctx, &all, kv, to + half * wide, 2 * half, from + kv * c.size,
                              x->row, begin));
    }
    DLS_TRY(dls_merge_store(ctx, rows, half, dk, s->k_row, sums, 2 * half));
    return dls_merge_store(ctx, rows, half, dv, s->v_row, sums + half * wide, 2 * half);
}

/* lay out an exchange */
typedef struct exchange {
    char *rows, *out, *kept;        // of what is kept: (group rows, x.row), (.., x.out)
    char *sent, *got;               // temporary: blocks on their way
    char *dout, *drows, *sums;      // temporary, of the way back
    char *inner;                    // temporary: of the ring between the groups
    size_t kept_bytes, bytes;
} exchange;

static char *cut(size_t *at, char *memory, size_t bytes)
{
    size_t from = *at;
    *at += (bytes + 255) / 256 * 256;
    return memory ? memory + from : NULL;
}

static exchange lay_out(const group *g, const share *x, dls_dtype dtype, char *kept,
                        char *memory, const dls_member *r, int backward)
{
    exchange e = {0};
    size_t size = dls_dtype_size(dtype);
    size_t wide = dls_dtype_size(dls_dtype_accumulator(dtype));
    size_t all = dls_member_rows(r, r->member), own = rows_at(g, g->i);
    size_t most = (own * x->u > all ? own * x->u : all) * x->row * size;
    int gather = g->by->way == DLS_CONTEXT_GATHER;
    /* cut the buffers of an exchange */
    e.rows = cut(&e.kept_bytes, kept, all * x->row * size);
    e.out = cut(&e.kept_bytes, kept, all * x->out * size);
    e.kept = cut(&e.kept_bytes, kept, dls_context_inner_kept(r));
    e.sent = cut(&e.bytes, memory, most);
    e.got = cut(&e.bytes, memory, most);
    if (backward) {
        e.dout = cut(&e.bytes, memory, all * x->out * size);
        e.drows = cut(&e.bytes, memory, all * x->row * size);
        e.sums = cut(&e.bytes, memory, own * 2 * g->c->shape.Hk * x->D * wide);
    }
    e.inner = memory ? memory + e.bytes : NULL;
    e.bytes += dls_context_lay_out(r, dtype, NULL, gather, backward).bytes;
    return e;
}

/* attend with some heads */
// What both directions need: the group, its shares, the member that it makes.
typedef struct setting {
    group g;
    share x;
    dls_member r;
    exchange e;
    size_t size, k, v;              // where keys and values begin in a row, in bytes
} setting;

static setting set_up(const dls_context *c, dls_dtype dtype, char *kept, char *memory,
                      int backward)
{
    const dls_sharding *by = &c->axes->sharding;
    int u = dls_context_group(by);
    setting s = {.g = {c, by, u, by->context_rank / u, by->context_rank % u},
                 .x = share_of(&c->shape, u), .size = dls_dtype_size(dtype)};
    /* see the group as a member */
    dls_attention_shape some = with_some_heads(c, &s.x, s.g.i);
    s.r = dls_member_of(c, dtype, &some, by->context / u, s.g.member, u);
    s.e = lay_out(&s.g, &s.x, dtype, kept, memory, &s.r, backward);
    s.k = s.x.out * s.size;
    s.v = s.k + (size_t)s.x.kv * s.x.D * s.size;
    return s;
}

static dls_context_pass inner_pass(const setting *s, dls_ctx *ctx, int backward)
{
    int gather = s->g.by->way == DLS_CONTEXT_GATHER;
    return (dls_context_pass){
        .ctx = ctx, .r = s->r, .q = s->e.rows, .out = s->e.out, .kept = s->e.kept,
        .at = dls_context_lay_out(&s->r, ctx->dtype, s->e.inner, gather, backward),
        .dout = s->e.dout, .dq = s->e.drows};
}

dls_status dls_context_ulysses_forward(dls_ctx *ctx, const dls_context *c, char *out,
                                       char *kept, char *temporary, const char *q,
                                       const char *k, const char *v)
{
    setting s = set_up(c, ctx->dtype, kept, temporary, 0);
    const exchange *e = &s.e;
    size_t row = s.x.row * s.size, narrow = s.x.out * s.size;
    dls_context_pass p = inner_pass(&s, ctx, 0);
    DLS_TRY(cut_heads(&s.g, ctx, &s.x, e->sent, q, k, v));
    DLS_TRY(all_to_all(&s.g, ctx, e->sent, e->got, s.x.row, 0));
    DLS_TRY(place_all(&s.g, &(copy){ctx, e->rows, e->got, row, 0}));
    DLS_TRY(dls_context_inner_forward(&p, e->out, e->rows + s.k, e->rows + s.v));
    DLS_TRY(place_all(&s.g, &(copy){ctx, e->sent, e->out, narrow, 1}));
    DLS_TRY(all_to_all(&s.g, ctx, e->sent, e->got, s.x.out, 1));
    return cut_outputs(&s.g, ctx, &s.x, e->got, out, 1);
}

/* walk back with some heads */
dls_status dls_context_ulysses_backward(dls_ctx *ctx, const dls_context *c, char *dq,
                                        char *dk, char *dv, char *temporary,
                                        const char *dout, char *kept)
{
    setting s = set_up(c, ctx->dtype, kept, temporary, 1);
    const exchange *e = &s.e;
    size_t row = s.x.row * s.size, narrow = s.x.out * s.size;
    dls_context_pass p = inner_pass(&s, ctx, 1);
    DLS_TRY(cut_outputs(&s.g, ctx, &s.x, e->sent, (char *)dout, 0));
    DLS_TRY(all_to_all(&s.g, ctx, e->sent, e->got, s.x.out, 0));
    DLS_TRY(place_all(&s.g, &(copy){ctx, e->dout, e->got, narrow, 0}));
    DLS_TRY(dls_context_inner_backward(&p, e->drows + s.k, e->drows + s.v, e->rows + s.k,
                                       e->rows + s.v));
    DLS_TRY(place_all(&s.g, &(copy){ctx, e->sent, e->drows, row, 1}));
    DLS_TRY(all_to_all(&s.g, ctx, e->sent, e->got, s.x.row, 1));
    return join_gradients(&s.g, ctx, &s.x, e->got, e->sums, dq, dk, dv);
}

size_t dls_context_ulysses_bytes(const dls_context *c, dls_dtype dtype, int backward,
                                 size_t *kept)
{
    setting s = set_up(c, dtype, NULL, NULL, backward);
    if (kept)
        *kept = s.e.kept_bytes;
    return s.e.bytes;
}

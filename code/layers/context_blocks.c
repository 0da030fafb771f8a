/* code/layers/context_blocks.c: from chapters/06-context-parallelism-ring.md. Edit the chapter, or edit here and run "make untangle". */
/* Which queries see which keys, for all orders of tokens; see context.h. */
#include <stdlib.h>

#include "layers/context_internal.h"

/* define the documents */
// The arrays of one block, on the device.
typedef struct packing {
    int sequences, most_q, most_k, empty;
    double pairs, queries, keys;
    int *starts_q, *starts_k, *lengths_k;   // (sequences + 1) each
} packing;

struct dls_context_documents {
    int n, members, member;
    int *lengths;       // (n) host
    int *first;         // (n + 1) host: this rank's first row of each
    int *device;        // all the arrays below
    packing block[];    // (members)
};

static int room(int n) { return 3 * (2 * n + 1); }

/* find the parts of a member */
typedef struct parts { int low, high; } parts;     // tokens in the two parts

static int between(int T, int of, int from, int to)
{
    return dls_token_cut(T, of, to) - dls_token_cut(T, of, from);
}

static parts parts_of(const dls_sharding *by, int group, int T, int s)
{
    int n = by->context > 1 ? by->context : 1, from = s * group, to = from + group;
    if (by->order == DLS_TOKENS_ZIGZAG)
        return (parts){between(T, 2 * n, from, to),
                       between(T, 2 * n, 2 * n - to, 2 * n - from)};
    if (by->order == DLS_TOKENS_CONTIGUOUS || group == n)
        return (parts){between(T, n, from, to), 0};
    return (parts){dls_token_count(by->order, T, n, s), 0};
}

/* find what is seen */
// Queries first .. first + queries - 1 see keys 0 .. keys - 1.
typedef struct sight { int first, queries, keys, causal; } sight;

static sight sight_of(const dls_sharding *by, int group, int causal, int T, int g, int s)
{
    parts own = parts_of(by, group, T, g), other = parts_of(by, group, T, s);
    int all = own.low + own.high, keys = other.low + other.high;
    if (!causal || s == g)
        return (sight){0, all, keys, causal};
    if (by->order == DLS_TOKENS_STRIPED)
        return s < g ? (sight){0, all, all, 1} : (sight){1, all - 1, all - 1, 1};
    if (s < g)
        return (sight){0, all, other.low, 0};
    return (sight){own.low, own.high, keys, 0};
}

/* describe a block of a batch */
static dls_context_block batch_block(const dls_member *r, int s, const sight *now)
{
    const dls_attention_shape *all = &r->shape;
    dls_context_block b = {.shape = *all};
    int own = dls_member_tokens(r, r->member, 0), other = dls_member_tokens(r, s, 0);
    b.empty = all->B == 0 || now->queries <= 0 || now->keys <= 0;
    b.first = now->first;
    b.shape.Tq = now->queries;
    b.shape.Tk = now->keys;
    b.shape.causal = now->causal;
    /* place the rows of a batch */
    b.shape.q_sequence = own * all->q_row;
    b.shape.o_sequence = own * all->o_row;
    b.shape.k_sequence = other * all->k_row;
    b.shape.v_sequence = other * all->v_row;
    b.queries = (dls_merge_rows){.B = all->B, .most = now->queries, .pitch = own,
                                 .first = now->first,
                                 .count = (double)all->B * now->queries};
    b.keys = (dls_merge_rows){.B = all->B, .most = now->keys, .pitch = other,
                              .count = (double)all->B * now->keys};
    return b;
}

/* describe a block of documents */
dls_context_block dls_context_block_of(const dls_member *r, int s, size_t kv_row,
                                       size_t o_row)
{
    const dls_context_documents *d = r->c->documents;
    dls_member now = *r;
    if (r->members > 1)
        now.shape.k_row = now.shape.v_row = kv_row;
    now.shape.o_row = o_row;
    if (!d) {
        const dls_sharding one = {0}, *by = r->axes ? &r->axes->sharding : &one;
        sight seen = sight_of(by, r->group, r->shape.causal, r->shape.Tq, r->member, s);
        return batch_block(&now, s, &seen);
    }
    const packing *p = &d->block[s];
    dls_context_block b = {.shape = now.shape, .empty = p->empty};
    /* fill in a packed shape */
    b.shape.B = p->sequences;
    b.shape.Tq = p->most_q;
    b.shape.Tk = p->most_k;
    b.shape.starts_q = p->starts_q;
    b.shape.starts_k = p->starts_k;
    b.shape.lengths_k = p->lengths_k;
    b.shape.pairs = p->pairs;
    b.shape.tokens_q = p->queries;
    b.shape.tokens_k = p->keys;
    b.queries = (dls_merge_rows){.B = p->sequences, .most = p->most_q,
                                 .starts = p->starts_q, .count = p->queries};
    b.keys = (dls_merge_rows){.B = p->sequences, .most = p->most_k, .starts = p->starts_k,
                              .lengths = p->lengths_k, .count = p->keys};
    if (s != r->member && r->shape.causal && r->order != DLS_TOKENS_STRIPED)
        b.shape.causal = 0;
    return b;
}

/* open the documents */
// Enters document b, with T tokens, into the host's copy of the arrays of a block.
static void enter(packing *p, int *host, int stride, int b, const sight *now, int row_q,
                  int row_k, int rows)
{
    /* divide the rows of a document */
    int seen = now->queries > 0 && now->keys > 0, first = seen ? now->first : rows;
    int *starts_q = host, *starts_k = host + stride, *lengths_k = host + 2 * stride;
    int count = seen ? now->queries : 0, keys = seen ? now->keys : 0;
    starts_q[2 * b] = row_q;
    starts_q[2 * b + 1] = row_q + first;
    starts_q[2 * b + 2] = row_q + rows;
    starts_k[2 * b] = starts_k[2 * b + 1] = row_k;
    lengths_k[2 * b] = 0;
    lengths_k[2 * b + 1] = keys;
    /* count what a document sees */
    int most = first > count ? first : count;
    p->most_q = most > p->most_q ? most : p->most_q;
    p->most_k = keys > p->most_k ? keys : p->most_k;
    p->queries += count;
    p->keys += keys;
    p->pairs += now->causal ? 0.5 * count * (count + 1) : (double)count * keys;
}

static void describe(dls_context_documents *d, const dls_sharding *by, int group,
                     int causal, int s, int *host)
{
    packing *p = &d->block[s];
    int stride = 2 * d->n + 1, row_q = 0, row_k = 0;
    p->sequences = 2 * d->n;
    for (int b = 0; b < d->n; b++) {
        parts own = parts_of(by, group, d->lengths[b], d->member);
        parts other = parts_of(by, group, d->lengths[b], s);
        sight now = sight_of(by, group, causal, d->lengths[b], d->member, s);
        enter(p, host, stride, b, &now, row_q, row_k, own.low + own.high);
        row_q += own.low + own.high;
        row_k += other.low + other.high;
    }
    /* point at the arrays of a block */
    host[stride + 2 * d->n] = row_k;
    p->empty = p->pairs == 0;
    p->starts_q = d->device + (size_t)s * room(d->n);
    p->starts_k = p->starts_q + stride;
    p->lengths_k = p->starts_k + stride;
}

static dls_status fill(dls_context_documents *d, const dls_sharding *by, int group,
                       int causal)
{
    size_t each = room(d->n), bytes = d->members * each * sizeof(int);
    int *host = calloc(d->members * each, sizeof *host);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d documents", d->n);
    /* describe all blocks and copy */
    dls_status s = dls_device_alloc((void **)&d->device, d->members * each, DLS_F32,
                                    DLS_MEM_OTHER);
    for (int m = 0; s == DLS_OK && m < d->members; m++)
        describe(d, by, group, causal, m, host + m * each);
    if (s == DLS_OK && cudaMemcpy(d->device, host, bytes, cudaMemcpyHostToDevice))
        s = DLS_FAIL(DLS_ERR_DEVICE, "%d documents can not be copied", d->n);
    free(host);
    return s;
}

dls_status dls_context_documents_open(dls_context_documents **out, const dls_axes *axes,
                                      int causal, const int *lengths, int n)
{
    dls_sharding one = {0}, by = axes ? axes->sharding : one;
    int ranks = by.context > 1 ? by.context : 1, group = dls_context_group(&by);
    int members = ranks / group;
    dls_context_documents *d = *out = calloc(1, sizeof *d + members * sizeof(packing));
    if (d)
        d->lengths = calloc(2 * (size_t)n + 1, sizeof(int));
    if (!d || !d->lengths)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d documents", n);
    /* number the member of a rank */
    d->n = n;
    d->members = members;
    d->member = by.context_rank / group;
    d->first = d->lengths + n;
    /* find the first rows of the documents */
    for (int b = 0; b < n; b++) {
        d->lengths[b] = lengths[b];
        d->first[b + 1] = d->first[b] + dls_token_count(by.order, lengths[b], ranks,
                                                        by.context_rank);
    }
    return fill(d, &by, group, causal);
}

void dls_context_documents_close(dls_context_documents *d)
{
    if (!d)
        return;
    dls_device_free(d->device);
    free(d->lengths);
    free(d);
}

int dls_context_document_row(const dls_context_documents *d, int b)
{
    return d->first[b];
}

int dls_context_documents_count(const dls_context_documents *d) { return d->n; }

int dls_context_document_length(const dls_context_documents *d, int b)
{
    return d->lengths[b];
}

int dls_member_tokens(const dls_member *r, int s, int b)
{
    const dls_context_documents *d = r->c->documents;
    const dls_sharding one = {0}, *by = r->axes ? &r->axes->sharding : &one;
    parts p = parts_of(by, r->group, d ? d->lengths[b] : r->shape.Tq, s);
    return p.low + p.high;
}

int dls_member_rows(const dls_member *r, int s)
{
    const dls_context_documents *d = r->c->documents;
    int rows = 0;
    if (!d)
        return r->shape.B * dls_member_tokens(r, s, 0);
    for (int b = 0; b < d->n; b++)
        rows += dls_member_tokens(r, s, b);
    return rows;
}

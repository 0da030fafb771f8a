/* code/kernels/attention_flash_backward_host.c: from chapters/10-flash-attention-host.md. Edit the chapter, or edit here and run "make untangle". */
/* The backward pass of flash attention in plain C (attention_lanes.h), a key a lane: for
 * each tile of keys, all queries that see it. dK and dV are complete at the tile's end.
 * dQ grows in memory: in place where elements are accumulators; for bf16 in halves, the
 * upper ones in dq itself and the lower ones in `temporary`. */
#include "kernels/attention_lanes.h"
#include "kernels/parallel.h"

#include "kernels/attention_flash_host.h"

/* gather the backward arguments */
/* The arrays of the call. */
typedef struct backward {
    dls_attention_shape s;
    const real *q, *k, *v, *dout, *out;
    const acc *lse;
    real *dq, *dk, *dv;
    acc *temporary;                 // see head_of
} backward;

/* A query head, from its first query on. */
typedef struct head {
    const dls_attention_shape *s;
    int b, h, queries, keys;
    const real *q, *dout, *out;
    const acc *lse;
    real *dq;
    acc *delta;                     // (queries)
    uint16_t *low;                  // (queries, D): lower halves of the sums in dq, bf16
} head;

/* A tile of keys: along lanes, as rows, and its gradients. */
typedef struct key_tile {
    tile Kt, Vt, dKt, dVt;
    acc K[LANES * MOST] __attribute__((aligned(64)));
    int first, count, width;        // keys first .. first + count - 1
} key_tile;

static head head_of(const backward *a, int b, int h)
{
    const dls_attention_shape *s = &a->s;
    const size_t q = head_at(s->starts_q, s->q_sequence, s->q_row, b, h, s->D);
    const size_t o = head_at(s->starts_q, s->o_sequence, s->o_row, b, h, s->D);
    const size_t first = ((size_t)b * s->H + h) * s->Tq;
    head now = {.s = s, .b = b, .h = h, .queries = dls_attention_queries(s, b),
                .keys = dls_attention_keys(s, b), .q = a->q + q, .dq = a->dq + q,
                .dout = a->dout + o, .out = a->out + o, .lse = a->lse + first,
                .delta = a->temporary + first};
#if DLS_REAL == 16
    now.low = (uint16_t *)(a->temporary + (size_t)s->B * s->H * s->Tq) + first * s->D;
#endif
    return now;
}

/* keep the sums of a query */
#if DLS_REAL == 16
/* A sum in two halves, the upper one a bf16 number. */
static inline acc join(real high, uint16_t low)
{
    uint32_t bits = (uint32_t)high.bits << 16 | low;
    acc sum;
    memcpy(&sum, &bits, sizeof sum);
    return sum;
}

static inline void part(acc sum, real *high, uint16_t *low)
{
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    high->bits = (uint16_t)(bits >> 16);
    *low = (uint16_t)bits;
}
#endif

/* dq += factor * from, for query i. */
static void add_to_query(const head *a, int i, const acc *from, acc factor)
{
    const int D = a->s->D;
    real *dq = a->dq + i * a->s->q_row;
#if DLS_REAL == 16
    uint16_t *low = a->low + (size_t)i * D;
    #pragma omp simd
    for (int d = 0; d < D; d++)
        part(join(dq[d], low[d]) + factor * from[d], &dq[d], &low[d]);
#else
    #pragma omp simd
    for (int d = 0; d < D; d++)
        dq[d] += factor * from[d];
#endif
}

/* The sums of all queries are rounded. */
static void finish_queries(head a)
{
#if DLS_REAL == 16
    const int D = a.s->D;
    for (int i = 0; i < a.queries; i++) {
        real *dq = a.dq + i * a.s->q_row;
        const uint16_t *low = a.low + (size_t)i * D;
        #pragma omp simd
        for (int d = 0; d < D; d++)
            dq[d] = narrow(join(dq[d], low[d]));
    }
#else
    (void)a;
#endif
}

/* Sums are zero, and delta is known. */
static void begin_queries(head a)
{
    const dls_attention_shape *s = a.s;
    for (int i = 0; i < a.queries; i++) {
        const real *dout = a.dout + i * s->o_row, *out = a.out + i * s->o_row;
        acc sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int d = 0; d < s->D; d++)
            sum += widen(dout[d]) * widen(out[d]);
        a.delta[i] = sum;
        memset(a.dq + i * s->q_row, 0, sizeof(real) * s->D);
    }
    if (a.low && a.queries > 0)
        memset(a.low, 0, sizeof *a.low * a.queries * s->D);
}

/* prepare a tile of keys */
static void take_keys(key_tile *t, const backward *a, size_t at_k, size_t at_v)
{
    const dls_attention_shape *s = &a->s;
    const real *k = a->k + at_k + t->first * s->k_row;
    const real *v = a->v + at_v + t->first * s->v_row;
    t->width = round_up(s->D, VEC);
    turn_rows(t->Kt, k, s->k_row, t->count, s->D, (acc)s->scale);
    turn_rows(t->Vt, v, s->v_row, t->count, s->D, 1);
    copy_rows(t->K, t->width, k, s->k_row, t->count, s->D, LANES);
    memset(t->dKt, 0, sizeof(acc) * LANES * t->width);
    memset(t->dVt, 0, sizeof(acc) * LANES * t->width);
}

static void store_keys(key_tile *t, const backward *a, size_t at_k, size_t at_v)
{
    const dls_attention_shape *s = &a->s;
    acc scale[LANES], one[LANES];
    for (int r = 0; r < LANES; r++) {
        scale[r] = (acc)s->scale;
        one[r] = 1;
    }
    real *dk = a->dk + at_k + t->first * s->k_row;
    real *dv = a->dv + at_v + t->first * s->v_row;
    turn_back(dk, s->k_row, t->dKt, scale, t->count, s->D);
    turn_back(dv, s->v_row, t->dVt, one, t->count, s->D);
}

/* walk back over a tile of queries */
/* How many keys of the tile query i sees. */
static int seen_of(const key_tile *t, const head *a, int i)
{
    return least(dls_attention_seen(a->s, i, a->queries, a->keys) - t->first, t->count);
}

/* The first query that sees a key of the tile. */
static int first_query(const key_tile *t, const head *a)
{
    const int first = a->s->causal ? t->first - (a->keys - a->queries) : 0;
    return first > 0 ? first : 0;
}

/* Queries to be taken together: a tile of such as see all of its keys, else a few. */
static int queries_together(const key_tile *t, const head *a, int i)
{
    return least(a->queries - i, seen_of(t, a, i) == t->count ? ROWS : VEC);
}

/* For query i, p: scores -> weights (dropped), ds: gradients of weights -> of scores. */
static void differentiate_softmax(const key_tile *t, const head *a, int i, int lanes,
                                  acc *p, acc *ds)
{
    const acc lse = a->lse[i], delta = a->delta[i];
    const int seen = lse == -INFINITY ? 0 : seen_of(t, a, i);
    const dls_dropout_gate gate = dls_attention_gate(a->s, a->b, a->h);
    const int position = dls_attention_position(a->s, i, a->queries, a->keys);
    #pragma omp simd
    for (int r = 0; r < lanes; r++)
        p[r] = r < seen ? acc_exp(p[r] - lse) : 0;
    acc kept[LANES];
    for (int r = 0; r < seen && a->s->dropout > 0; r++) {
        kept[r] = (acc)dls_attention_kept(&gate, position, t->first + r);
        ds[r] *= kept[r];
    }
    #pragma omp simd
    for (int r = 0; r < lanes; r++)
        ds[r] = r < seen ? p[r] * (ds[r] - delta) : 0;
    for (int r = 0; r < seen && a->s->dropout > 0; r++)
        p[r] *= kept[r];
}

/* Asks for the sums of queries, which will be needed soon. */
static void expect_queries(const head *a, int first, int count)
{
    enum { LINE = 64 };
    for (int i = first; i < first + count; i++)
        for (int d = 0; d < a->s->D; d += LINE / sizeof(real)) {
            __builtin_prefetch(a->dq + i * a->s->q_row + d, 1);
            if (a->low)
                __builtin_prefetch(a->low + (size_t)i * a->s->D + d, 1);
        }
}

/* The tile of keys meets `count` queries from `first` on. */
static void meet(key_tile *t, const head *a, int first, int count)
{
    const dls_attention_shape *s = a->s;
    const int D = s->D, W = t->width, padded = round_up(count, 4);
    const int N = round_up(seen_of(t, a, first + count - 1), VEC);
    acc Q[ROWS * MOST] __attribute__((aligned(64)));
    acc dO[ROWS * MOST] __attribute__((aligned(64)));
    acc P[ROWS][LANES] __attribute__((aligned(64)));
    acc dS[ROWS][LANES] __attribute__((aligned(64)));
    expect_queries(a, first, count);
    memset(P, 0, sizeof P[0] * padded);
    memset(dS, 0, sizeof dS[0] * padded);
    copy_rows(Q, W, a->q + first * s->q_row, s->q_row, count, D, padded);
    copy_rows(dO, W, a->dout + first * s->o_row, s->o_row, count, D, padded);
    add_products(P[0], LANES, Q, W, 1, t->Kt[0], LANES, count, N, D);
    add_products(dS[0], LANES, dO, W, 1, t->Vt[0], LANES, count, N, D);
    for (int c = 0; c < count; c++)
        differentiate_softmax(t, a, first + c, N, P[c], dS[c]);
    add_products(t->dVt[0], LANES, dO, 1, W, P[0], LANES, D, N, count);
    add_products(t->dKt[0], LANES, Q, 1, W, dS[0], LANES, D, N, count);
    /* add to the sums of queries */
    memset(dO, 0, sizeof(acc) * padded * W);
    add_products(dO, W, dS[0], LANES, 1, t->K, W, count, W, N);
    for (int c = 0; c < count; c++)
        add_to_query(a, first + c, dO + c * W, (acc)s->scale);
}

/* The tile of keys meets all queries of a head that see it. */
static void meet_all(key_tile *t, head a)
{
    for (int i = first_query(t, &a), n; i < a.queries; i += n) {
        n = queries_together(t, &a, i);
        meet(t, &a, i, n);
    }
}

/* walk back on the host */
/* Key head `shared` of sequence b, and the query heads of its group. */
static void walk_back(const backward *a, int b, int shared)
{
    const dls_attention_shape *s = &a->s;
    const int group = s->H / s->Hk, keys = dls_attention_keys(s, b);
    const size_t at_k = head_at(s->starts_k, s->k_sequence, s->k_row, b, shared, s->D);
    const size_t at_v = head_at(s->starts_k, s->v_sequence, s->v_row, b, shared, s->D);
    const int from = shared * group, to = from + group;
    key_tile t;
    for (int h = from; h < to; h++)
        begin_queries(head_of(a, b, h));
    for (t.first = 0; t.first < keys; t.first += LANES) {
        t.count = least(keys - t.first, LANES);
        take_keys(&t, a, at_k, at_v);
        for (int h = from; h < to; h++)
            meet_all(&t, head_of(a, b, h));
        store_keys(&t, a, at_k, at_v);
    }
    for (int h = from; h < to; h++)
        finish_queries(head_of(a, b, h));
}

void DLS_HOST_NAME(dls_attention_flash_backward)(dls_attention_shape s, real *dq,
                                                 real *dk, real *dv, acc *temporary,
                                                 const real *dout, const real *q,
                                                 const real *k, const real *v,
                                                 const real *out, const acc *lse)
{
    const backward a = {s, q, k, v, dout, out, lse, dq, dk, dv, temporary};
    DLS_PARALLEL_TASKS((size_t)s.B * s.H * s.Tq * s.Tk * s.D)
    for (int n = 0; n < s.B * s.Hk; n++)
        walk_back(&a, n / s.Hk, n % s.Hk);
}

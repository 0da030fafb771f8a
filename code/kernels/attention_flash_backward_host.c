/* code/kernels/attention_flash_backward_host.c: from chapters/10-flash-attention-host.md. Edit the chapter, or edit here and run "make untangle". */
/* The backward pass of flash attention in plain C (attention_lanes.h): for each tile of
 * queries, all keys. dK and dV grow in memory: in place where elements are accumulators,
 * in `temporary` for bf16. */
#include "kernels/attention_lanes.h"
#include "kernels/parallel.h"

#include "kernels/attention_flash_host.h"

/* describe a tile of queries */
/* A tile of queries of one head, and what it sees. */
typedef struct lanes {
    const dls_attention_shape *s;
    int b, h, first, rows;          // queries first .. first + rows - 1
    int queries, keys, last;        // keys 0 .. last - 1 are seen by some lane
    int seen[LANES];
} lanes;

static lanes lanes_of(const dls_attention_shape *s, int b, int h, int first)
{
    lanes l = {.s = s, .b = b, .h = h, .first = first,
               .queries = dls_attention_queries(s, b), .keys = dls_attention_keys(s, b)};
    l.rows = least(l.queries - first, LANES);
    for (int r = 0; r < l.rows; r++)
        l.seen[r] = dls_attention_seen(s, first + r, l.queries, l.keys);
    l.last = l.rows > 0 ? l.seen[l.rows - 1] : 0;
    return l;
}

/* Keys to be taken together: all of a tile that all lanes see, else a few. */
static int keys_together(const lanes *l, int j, int count)
{
    return j + count <= l->seen[0] ? count : least(count, VEC);
}

/* The first lane, in whole vectors, that must be looked at for keys from j on. */
static int first_lane(const lanes *l, int j)
{
    int first = 0;
    while (first + VEC < l->rows && l->seen[first + VEC - 1] <= j)
        first += VEC;
    return first;
}

/* x becomes `hidden` where a lane does not see key j0 + c. */
static void hide_unseen(const lanes *l, acc (*x)[LANES], int j0, int count, acc hidden)
{
    if (j0 + count <= l->seen[0] && l->rows == LANES)
        return;  // all see all
    for (int c = 0; c < count; c++)
        #pragma omp simd
        for (int r = 0; r < LANES; r++)
            x[c][r] = j0 + c < l->seen[r] ? x[c][r] : hidden;
}

/* Multiplies weights by their dropout factors. */
static void drop_lanes(const lanes *l, acc (*x)[LANES], int j0, int count)
{
    dls_dropout_gate gate = dls_attention_gate(l->s, l->b, l->h);
    int position = dls_attention_position(l->s, l->first, l->queries, l->keys);
    for (int c = 0; c < count; c++)
        for (int r = 0; r < l->rows; r++)
            x[c][r] *= (acc)dls_attention_kept(&gate, position + r, j0 + c);
}

/* gather the backward arguments */
/* The arrays of one head; dk and dv are sums, their rows dk_row and dv_row apart. */
typedef struct backward {
    const real *q, *k, *v, *dout, *out;
    const acc *lse;
    real *dq;
    acc *dk, *dv;
    size_t dk_row, dv_row;
} backward;

/* What a tile of queries needs in both directions: along lanes, and as rows. */
typedef struct prepared {
    tile Qt, dOt, dQt;
    acc Q[LANES * MOST] __attribute__((aligned(64)));
    acc dO[LANES * MOST] __attribute__((aligned(64)));
    acc lse[LANES], delta[LANES];
    int width;
} prepared;

/* prepare a tile of queries */
static void prepare(prepared *t, const lanes *l, const backward *a)
{
    const dls_attention_shape *s = l->s;
    t->width = round_up(s->D, VEC);
    turn_rows(t->Qt, a->q, s->q_row, l->rows, s->D, (acc)s->scale);
    turn_rows(t->dOt, a->dout, s->o_row, l->rows, s->D, 1);
    copy_rows(t->Q, t->width, a->q, s->q_row, l->rows, s->D, LANES);
    copy_rows(t->dO, t->width, a->dout, s->o_row, l->rows, s->D, LANES);
    memset(t->dQt, 0, sizeof(acc) * LANES * t->width);
    for (int r = 0; r < LANES; r++) {
        acc sum = 0;
        const int D = r < l->rows ? s->D : 0;
        #pragma omp simd reduction(+ : sum)
        for (int d = 0; d < D; d++)
            sum += t->dO[r * t->width + d] * widen(a->out[r * s->o_row + d]);
        t->delta[r] = sum;
        t->lse[r] = r < l->rows ? a->lse[r] : -INFINITY;
    }
}

static void add_rows(acc *to, size_t to_row, const acc *from, int width, int rows, int D,
                     acc factor)
{
    for (int r = 0; r < rows; r++)
        #pragma omp simd
        for (int d = 0; d < D; d++)
            to[r * to_row + d] += factor * from[r * width + d];
}

/* walk back over a tile of keys */
/* p: scores -> weights (dropped), ds: gradients of weights -> of scores. */
static void differentiate_softmax(prepared *t, const lanes *l, int j0, int count,
                                  acc (*p)[LANES], acc (*ds)[LANES])
{
    for (int c = 0; c < count; c++)
        #pragma omp simd
        for (int r = 0; r < LANES; r++)
            p[c][r] = t->lse[r] == -INFINITY ? 0 : acc_exp(p[c][r] - t->lse[r]);
    hide_unseen(l, p, j0, count, 0);
    if (l->s->dropout > 0)
        drop_lanes(l, ds, j0, count);
    for (int c = 0; c < count; c++)
        #pragma omp simd
        for (int r = 0; r < LANES; r++)
            ds[c][r] = p[c][r] * (ds[c][r] - t->delta[r]);
    hide_unseen(l, ds, j0, count, 0);
    if (l->s->dropout > 0)
        drop_lanes(l, p, j0, count);
}

/* The keys j0 .. j0 + count - 1, which no lane before `first` sees. */
static void walk_back(prepared *t, const lanes *l, const backward *a, int j0, int count,
                      int first)
{
    const dls_attention_shape *s = l->s;
    const int D = s->D, W = t->width, N = LANES - first, padded = round_up(count, 4);
    acc rows[KEYS * MOST] __attribute__((aligned(64)));
    acc sums[KEYS * MOST] __attribute__((aligned(64)));
    acc P[KEYS][LANES] __attribute__((aligned(64)));
    acc dS[KEYS][LANES] __attribute__((aligned(64)));
    memset(P, 0, sizeof P[0] * padded);
    memset(dS, 0, sizeof dS[0] * padded);
    copy_rows(rows, W, a->v + j0 * s->v_row, s->v_row, count, D, padded);
    add_products(dS[0] + first, LANES, rows, W, 1, t->dOt[0] + first, LANES, count, N, D);
    copy_rows(rows, W, a->k + j0 * s->k_row, s->k_row, count, D, padded);
    add_products(P[0] + first, LANES, rows, W, 1, t->Qt[0] + first, LANES, count, N, D);
    differentiate_softmax(t, l, j0, count, P, dS);
    add_products(t->dQt[0] + first, LANES, rows, 1, W, dS[0] + first, LANES, D, N, count);
    /* add to the sums of keys and values */
    memset(sums, 0, sizeof(acc) * padded * W);
    add_products(sums, W, dS[0] + first, LANES, 1, t->Q + first * W, W, count, W, N);
    add_rows(a->dk + j0 * a->dk_row, a->dk_row, sums, W, count, D, (acc)s->scale);
    memset(sums, 0, sizeof(acc) * padded * W);
    add_products(sums, W, P[0] + first, LANES, 1, t->dO + first * W, W, count, W, N);
    add_rows(a->dv + j0 * a->dv_row, a->dv_row, sums, W, count, D, 1);
}

/* walk back on the host */
static void walk_back_head(const dls_attention_shape *s, int b, int h, backward a)
{
    prepared t;
    int queries = dls_attention_queries(s, b);
    size_t lse = ((size_t)b * s->H + h) * s->Tq;
    size_t q = head_at(s->starts_q, s->q_sequence, s->q_row, b, h, s->D);
    size_t o = head_at(s->starts_q, s->o_sequence, s->o_row, b, h, s->D);
    for (int first = 0; first < queries; first += LANES) {
        const lanes l = lanes_of(s, b, h, first);
        backward now = a;
        now.q += q + first * s->q_row;
        now.dq += q + first * s->q_row;
        now.dout += o + first * s->o_row;
        now.out += o + first * s->o_row;
        now.lse += lse + first;
        prepare(&t, &l, &now);
        for (int j0 = 0, count; j0 < l.last; j0 += count) {
            count = keys_together(&l, j0, least(l.last - j0, KEYS));
            walk_back(&t, &l, &now, j0, count, first_lane(&l, j0));
        }
        /* store the gradient of queries */
        acc factor[LANES];
        for (int r = 0; r < LANES; r++)
            factor[r] = (acc)s->scale;
        turn_back(now.dq, s->q_row, t.dQt, factor, l.rows, s->D);
    }
}

/* All query heads of key head `shared`; sums: 2 * Tk * D accumulators, or NULL. */
static void walk_back_group(const dls_attention_shape *s, int b, int shared, backward a,
                            real *dk, real *dv, acc *sums)
{
    int group = s->H / s->Hk, keys = dls_attention_keys(s, b), D = s->D;
    a.k += head_at(s->starts_k, s->k_sequence, s->k_row, b, shared, D);
    a.v += head_at(s->starts_k, s->v_sequence, s->v_row, b, shared, D);
    dk += head_at(s->starts_k, s->k_sequence, s->k_row, b, shared, D);
    dv += head_at(s->starts_k, s->v_sequence, s->v_row, b, shared, D);
    /* clear the sums of keys and values */
    #if DLS_REAL == 16
    a.dk = sums;
    a.dv = sums + (size_t)keys * D;
    a.dk_row = a.dv_row = D;
    #else
    (void)sums;
    a.dk = dk;
    a.dv = dv;
    a.dk_row = s->k_row;
    a.dv_row = s->v_row;
    #endif
    for (int j = 0; j < keys; j++) {
        memset(a.dk + j * a.dk_row, 0, sizeof(acc) * D);
        memset(a.dv + j * a.dv_row, 0, sizeof(acc) * D);
    }
    for (int h = shared * group; h < (shared + 1) * group; h++)
        walk_back_head(s, b, h, a);
#if DLS_REAL == 16
    for (int j = 0; j < keys; j++)
        for (int d = 0; d < D; d++) {
            dk[j * s->k_row + d] = narrow(a.dk[(size_t)j * D + d]);
            dv[j * s->v_row + d] = narrow(a.dv[(size_t)j * D + d]);
        }
#endif
}

void DLS_HOST_NAME(dls_attention_flash_backward)(dls_attention_shape s, real *dq,
                                                 real *dk, real *dv, acc *temporary,
                                                 const real *dout, const real *q,
                                                 const real *k, const real *v,
                                                 const real *out, const acc *lse)
{
    DLS_PARALLEL_TASKS((size_t)s.B * s.H * s.Tq * s.Tk * s.D)
    for (int n = 0; n < s.B * s.Hk; n++) {
        backward a =
            {.q = q, .k = k, .v = v, .dout = dout, .out = out, .lse = lse, .dq = dq};
        acc *sums = temporary + 2 * (size_t)n * s.Tk * s.D;
        walk_back_group(&s, n / s.Hk, n % s.Hk, a, dk, dv, sums);
    }
}

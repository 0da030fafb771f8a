/* code/kernels/attention_flash_host.c: from chapters/10-flash-attention-host.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash attention in plain C, a query a lane (attention_lanes.h). Memory beyond the
 * arguments is on the stack: some 400 KiB, whatever the length. */
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

/* update the softmax of lanes */
/* Scores become weights, in place; factor[r] is what the past is worth now. */
static void update_softmax(acc (*p)[LANES], int count, acc *largest, acc *total,
                           acc *factor)
{
    acc from[LANES];
    for (int r = 0; r < LANES; r++)
        from[r] = largest[r];
    for (int c = 0; c < count; c++)
        #pragma omp simd
        for (int r = 0; r < LANES; r++)
            from[r] = p[c][r] > from[r] ? p[c][r] : from[r];
    #pragma omp simd
    for (int r = 0; r < LANES; r++) {
        acc most = from[r];
        from[r] = most == -INFINITY ? 0 : most;
        factor[r] = acc_exp(largest[r] - from[r]);
        largest[r] = most;
        total[r] *= factor[r];
    }
    /* exponentiate the scores of lanes */
    for (int c = 0; c < count; c++)
        #pragma omp simd
        for (int r = 0; r < LANES; r++) {
            p[c][r] = acc_exp(p[c][r] - from[r]);
            total[r] += p[c][r];
        }
}

/* attend to a tile of lanes */
static void attend(const lanes *l, real *out, acc *lse, const real *q, const real *k,
                   const real *v)
{
    const dls_attention_shape *s = l->s;
    const int D = s->D, width = round_up(D, VEC);
    tile Qt, Ot, P;
    acc rows[ROWS * MOST] __attribute__((aligned(64)));
    acc largest[LANES], total[LANES] = {0}, factor[LANES];
    for (int r = 0; r < LANES; r++)
        largest[r] = -INFINITY;
    turn_rows(Qt, q, s->q_row, l->rows, D, (acc)s->scale);
    memset(Ot, 0, sizeof(acc) * LANES * width);
    for (int j0 = 0; j0 < l->last; j0 += ROWS) {
        /* attend to a tile of keys */
        const int count = least(l->last - j0, ROWS);
        copy_rows(rows, width, k + j0 * s->k_row, s->k_row, count, D, ROWS);
        memset(P, 0, sizeof(acc) * LANES * ROWS);
        for (int c = 0, n; c < count; c += n) {
            const int from = first_lane(l, j0 + c);
            n = keys_together(l, j0 + c, count - c);
            add_products(P[c] + from, LANES, rows + c * width, width, 1, Qt[0] + from, LANES, n,
                         LANES - from, D);
        }
        hide_unseen(l, P, j0, count, -INFINITY);
        update_softmax(P, count, largest, total, factor);
        if (s->dropout > 0)
            drop_lanes(l, P, j0, count);
        for (int d = 0; d < D; d++)
            #pragma omp simd
            for (int r = 0; r < LANES; r++)
                Ot[d][r] *= factor[r];
        copy_rows(rows, width, v + j0 * s->v_row, s->v_row, count, D, ROWS);
        for (int c = 0, n; c < count; c += n) {
            const int from = first_lane(l, j0 + c);
            n = keys_together(l, j0 + c, count - c);
            add_products(Ot[0] + from, LANES, rows + c * width, 1, width, P[c] + from, LANES, D,
                         LANES - from, n);
        }
    }
    /* store the lanes */
    for (int r = 0; r < LANES; r++) {
        if (lse && r < l->rows)
            lse[r] = total[r] == 0 ? -INFINITY : largest[r] + acc_log(total[r]);
        factor[r] = total[r] == 0 ? 0 : 1 / total[r];
    }
    turn_back(out, s->o_row, Ot, factor, l->rows, D);
}

/* attend to a single query */
static void attend_one(const lanes *l, int r, real *out, acc *lse, const real *q,
                       const real *k, const real *v)
{
    const dls_attention_shape *s = l->s;
    const int D = s->D;
    acc query[MOST], sum[MOST] = {0}, p[ROWS], largest = -INFINITY, total = 0;
    dls_dropout_gate gate = dls_attention_gate(s, l->b, l->h);
    int position = dls_attention_position(s, l->first + r, l->queries, l->keys);
    for (int d = 0; d < D; d++)
        query[d] = (acc)s->scale * widen(q[r * s->q_row + d]);
    for (int j0 = 0; j0 < l->seen[r]; j0 += ROWS) {
        const int count = least(l->seen[r] - j0, ROWS);
        /* score the keys of one query */
        acc most = largest;
        for (int c = 0; c < count; c++) {
            const real *key = k + (size_t)(j0 + c) * s->k_row;
            acc score = 0;
            #pragma omp simd reduction(+ : score)
            for (int d = 0; d < D; d++)
                score += query[d] * widen(key[d]);
            p[c] = score;
            most = score > most ? score : most;
        }
        const acc from = most == -INFINITY ? 0 : most, factor = acc_exp(largest - from);
        largest = most;
        /* add the values of one query */
        total *= factor;
        for (int d = 0; d < D; d++)
            sum[d] *= factor;
        for (int c = 0; c < count; c++) {
            const real *value = v + (size_t)(j0 + c) * s->v_row;
            acc weight = acc_exp(p[c] - from);
            total += weight;
            if (s->dropout > 0)
                weight *= (acc)dls_attention_kept(&gate, position, j0 + c);
            #pragma omp simd
            for (int d = 0; d < D; d++)
                sum[d] += weight * widen(value[d]);
        }
    }
    /* store one query */
    if (lse)
        lse[r] = total == 0 ? -INFINITY : largest + acc_log(total);
    for (int d = 0; d < D; d++)
        out[r * s->o_row + d] = narrow(total == 0 ? 0 : sum[d] / total);
}

/* attend on the host without a square */
/* Queries first .. of one head. */
static void attend_tile(const dls_attention_shape *s, int b, int h, int first, real *out,
                        acc *lse, const real *q, const real *k, const real *v)
{
    enum { FEW = 4 };
    const lanes l = lanes_of(s, b, h, first);
    const int shared = h / (s->H / s->Hk);
    q += head_at(s->starts_q, s->q_sequence, s->q_row, b, h, s->D) + first * s->q_row;
    k += head_at(s->starts_k, s->k_sequence, s->k_row, b, shared, s->D);
    v += head_at(s->starts_k, s->v_sequence, s->v_row, b, shared, s->D);
    out += head_at(s->starts_q, s->o_sequence, s->o_row, b, h, s->D) + first * s->o_row;
    lse = lse ? lse + ((size_t)b * s->H + h) * s->Tq + first : NULL;
    for (int r = l.rows > 0 ? l.rows : 0; lse && r < least(LANES, s->Tq - first); r++)
        lse[r] = -INFINITY;  // behind the last query
    if (l.rows > FEW)
        attend(&l, out, lse, q, k, v);
    for (int r = 0; r < l.rows && l.rows <= FEW; r++)
        attend_one(&l, r, out, lse, q, k, v);
}

void DLS_HOST_NAME(dls_attention_flash_forward)(dls_attention_shape s, real *out,
                                                acc *lse, const real *q, const real *k,
                                                const real *v)
{
    const int tiles = (s.Tq + LANES - 1) / LANES;
    DLS_PARALLEL_TASKS((size_t)s.B * s.H * s.Tq * s.Tk * s.D)
    for (int i = 0; i < s.B * s.H * tiles; i++)
        attend_tile(&s, i / tiles / s.H, i / tiles % s.H, i % tiles * LANES, out, lse, q,
                    k, v);
}

/* code/kernels/attention_naive_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Materialised attention in plain C: the six products in tiles of 64 x 64, copied so that
 * each is a weighted sum of rows,
 *
 *     sums[y][0..64) += sum over k of a[y][k] * b[k][0..64)
 *
 * Dot products were tried first: the horizontal sums at their ends made them three times
 * slower at D = 32. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/real_math.h"

#include "kernels/attention_naive_host.h"

enum { SCORES, ALONG_ROWS, ALONG_COLUMNS };
enum { STRIP = 128 / sizeof(acc), TILE = 64 };

/* view heads on the host */
typedef struct view {
    const void *data;
    int is_acc;  // else real
    size_t sequence, head, row;
    int group;
    const int *starts;
} view;

static size_t view_at(const view *x, int b, int h)
{
    return dls_attention_at(x->starts, x->sequence, x->row, b) + h / x->group * x->head;
}

/* copy a tile */
/* tile[r][c] = x[(r0 + r)][(c0 + c)], or its transpose, with zeros outside. */
static void copy_tile(acc tile[TILE][TILE], const view *x, size_t at, int r0, int rows,
                      int c0, int columns, int transposed)
{
    memset(tile, 0, sizeof(acc) * TILE * TILE);
    for (int r = 0; r < TILE && r0 + r < rows; r++) {
        size_t from = at + (size_t)(r0 + r) * x->row + c0;
        for (int c = 0; c < TILE && c0 + c < columns; c++) {
            acc value = x->is_acc ? ((const acc *)x->data)[from + c]
                                  : widen(((const real *)x->data)[from + c]);
            if (transposed)
                tile[c][r] = value;
            else
                tile[r][c] = value;
        }
    }
}

/* Multiplies the weights of a tile by their dropout factors. */
static void drop_tile(acc tile[TILE][TILE], const dls_attention_shape *s, int kind, int b,
                      int h, int row, int k)
{
    dls_dropout_gate gate = dls_attention_gate(s, b, h);
    int queries = dls_attention_queries(s, b), keys = dls_attention_keys(s, b);
    int before = dls_attention_position(s, 0, queries, keys);
    for (int y = 0; y < TILE; y++)
        for (int x = 0; x < TILE; x++)
            tile[y][x] *= kind == ALONG_ROWS
                              ? (acc)dls_attention_kept(&gate, before + row + y, k + x)
                              : (acc)dls_attention_kept(&gate, before + k + x, row + y);
}

static void store_tile(const view *out, size_t at, acc tile[TILE][TILE], int r0, int rows,
                       int c0, int columns, acc alpha)
{
    for (int r = 0; r < TILE && r0 + r < rows; r++) {
        size_t to = at + (size_t)(r0 + r) * out->row + c0;
        for (int c = 0; c < TILE && c0 + c < columns; c++)
            if (out->is_acc)
                ((acc *)out->data)[to + c] = alpha * tile[r][c];
            else
                ((real *)out->data)[to + c] = narrow(alpha * tile[r][c]);
    }
}

/* add weighted rows */
/* dst[j] += sum over k < count of w[k] * rows[k][j], for the tile's 64 columns. */
__attribute__((noinline))
static void add_weighted_rows(acc *dst, const acc *w, acc rows[TILE][TILE], int count)
{
    for (int j = 0; j < TILE; j += STRIP) {
        acc sum[STRIP] = {0};
        for (int k = 0; k < count; k++) {
            const acc weight = w[k], *row = rows[k] + j;
            #pragma omp simd
            for (int i = 0; i < STRIP; i++)
                sum[i] += weight * row[i];
        }
        #pragma omp simd
        for (int i = 0; i < STRIP; i++)
            dst[j + i] += sum[i];
    }
}

/* multiply in tiles on the host */
/* sums = one tile of the product, at (row, column) of head `head` of sequence b. */
static void multiply_tile(acc sums[TILE][TILE], int kind, const dls_attention_shape *s,
                          const view *left, const view *right, int b, int head, int row,
                          int column)
{
    acc a[TILE][TILE], r[TILE][TILE];
    int queries = dls_attention_queries(s, b), keys = dls_attention_keys(s, b);
    int heads = kind == ALONG_COLUMNS ? s->H / s->Hk : 1, before = keys - queries;
    /* find the range of the inner index */
    int M = kind == ALONG_COLUMNS ? keys : queries;
    int first = 0, last = kind == SCORES ? s->D : kind == ALONG_ROWS ? keys : queries;
    if (s->causal && kind == ALONG_ROWS && row + TILE + before < last)
        last = row + TILE + before;
    if (s->causal && kind == ALONG_COLUMNS && row - before > 0)
        first = (row - before) / TILE * TILE;
    memset(sums, 0, sizeof(acc) * TILE * TILE);
    for (int h = head; h < head + heads; h++)
        for (int k = first; k < last; k += TILE) {
            /* copy both tiles */
            size_t from = view_at(left, b, h);
            if (kind == ALONG_COLUMNS)
                copy_tile(a, left, from, k, last, row, M, 1);
            else
                copy_tile(a, left, from, row, M, k, last, 0);
            if (s->dropout > 0)
                drop_tile(a, s, kind, b, h, row, k);
            if (kind == SCORES)
                copy_tile(r, right, view_at(right, b, h), column, keys, k, last, 1);
            else
                copy_tile(r, right, view_at(right, b, h), k, last, column, s->D, 0);
            for (int y = 0; y < TILE && row + y < M; y++)
                add_weighted_rows(sums[y], a[y], r, last - k < TILE ? last - k : TILE);
        }
}

static void multiply(int kind, const dls_attention_shape *s, const view *out,
                     const view *left, const view *right, double alpha)
{
    acc sums[TILE][TILE];
    int step = kind == ALONG_COLUMNS ? s->H / s->Hk : 1;
    for (int b = 0; b < s->B; b++) {
        int queries = dls_attention_queries(s, b), keys = dls_attention_keys(s, b);
        int M = kind == ALONG_COLUMNS ? keys : queries, N = kind == SCORES ? keys : s->D;
        for (int h = 0; h < s->H; h += step)
            for (int row = 0; row < M; row += TILE)
                for (int column = 0; column < N; column += TILE) {
                    if (kind == SCORES && s->causal
                        && column >= row + TILE + keys - queries)
                        break;
                    multiply_tile(sums, kind, s, left, right, b, h, row, column);
                    store_tile(out, view_at(out, b, h), sums, row, M, column, N,
                               (acc)alpha);
                }
    }
}

/* take softmax of rows on the host */
/* The end of the loops over a row: at least `seen`, a multiple of 16 where there is room.
 */
static int padded(int seen, int Tk)
{
    int end = (seen + 15) / 16 * 16;
    return end < Tk ? end : Tk;
}

static acc softmax_row(acc *row, int seen, int Tk)
{
    acc largest = -INFINITY, sum = 0;
    int end = padded(seen, Tk);
    for (int j = seen; j < end; j++)
        row[j] = -INFINITY;
    /* replace a row by exponentials */
    #pragma omp simd reduction(max : largest)
    for (int j = 0; j < end; j++)
        largest = row[j] > largest ? row[j] : largest;
    if (largest == -INFINITY)
        largest = 0;
    #pragma omp simd reduction(+ : sum)
    for (int j = 0; j < end; j++) {
        row[j] = acc_exp(row[j] - largest);
        sum += row[j];
    }
    const acc inverse = sum == 0 ? 0 : 1 / sum;
    #pragma omp simd
    for (int j = 0; j < end; j++)
        row[j] *= inverse;
    memset(row + end, 0, sizeof(acc) * (Tk - end));
    return sum == 0 ? -INFINITY : largest + acc_log(sum);
}

/* pass the gradient through softmax on the host */
static void softmax_row_backward(acc *row, const acc *weights, acc scale, int seen,
                                 int Tk)
{
    acc average = 0;
    int end = padded(seen, Tk);
    memset(row + seen, 0, sizeof(acc) * (Tk - seen));
    #pragma omp simd reduction(+ : average)
    for (int j = 0; j < end; j++)
        average += weights[j] * row[j];
    #pragma omp simd
    for (int j = 0; j < end; j++)
        row[j] = scale * weights[j] * (row[j] - average);
}

/* Softmax of every row, or with `weights` its gradient, in place. */
static void visit_rows(const dls_attention_shape *s, acc *square, acc *lse,
                       const acc *weights)
{
    for (size_t n = 0; n < (size_t)s->B * s->H * s->Tq; n++) {
        int b = (int)(n / s->Tq / s->H), h = (int)(n / s->Tq % s->H),
            i = (int)(n % s->Tq);
        int queries = dls_attention_queries(s, b), keys = dls_attention_keys(s, b);
        int seen = i < queries ? dls_attention_seen(s, i, queries, keys) : 0;
        acc *row = square + n * s->Tk;
        /* visit a row */
        if (weights) {
            dls_dropout_gate gate = dls_attention_gate(s, b, h);
            int position = dls_attention_position(s, i, queries, keys);
            for (int j = 0; j < seen && s->dropout > 0; j++)
                row[j] *= (acc)dls_attention_kept(&gate, position, j);
            softmax_row_backward(row, weights + n * s->Tk, (acc)s->scale, seen, s->Tk);
        } else {
            acc denominator = softmax_row(row, seen, s->Tk);
            if (lse)
                lse[n] = denominator;
        }
    }
}

/* attend on the host */
static view per_query(const dls_attention_shape *s, const void *x, size_t sequence,
                      size_t row)
{
    return (view){x, 0, sequence, s->D, row, 1, s->starts_q};
}

static view per_key(const dls_attention_shape *s, const void *x, size_t sequence,
                    size_t row)
{
    return (view){x, 0, sequence, s->D, row, s->H / s->Hk, s->starts_k};
}

static view as_square(const dls_attention_shape *s, const void *x)
{
    size_t square = (size_t)s->Tq * s->Tk;
    return (view){x, 1, s->H * square, square, s->Tk, 1, NULL};
}

void DLS_HOST_NAME(dls_attention_naive_forward)(dls_attention_shape s, real *out,
                                                acc *lse, acc *att, const real *q,
                                                const real *k, const real *v)
{
    dls_attention_shape plain = s;
    plain.dropout = 0;
    view queries = per_query(&s, q, s.q_sequence, s.q_row);
    view keys = per_key(&s, k, s.k_sequence, s.k_row);
    view values = per_key(&s, v, s.v_sequence, s.v_row);
    view outputs = per_query(&s, out, s.o_sequence, s.o_row),
         weights = as_square(&s, att);
    multiply(SCORES, &plain, &weights, &queries, &keys, s.scale);
    visit_rows(&s, att, lse, NULL);
    if (out)
        multiply(ALONG_ROWS, &s, &outputs, &weights, &values, 1);
}

void DLS_HOST_NAME(dls_attention_naive_backward)(dls_attention_shape s, real *dq,
                                                 real *dk, real *dv, acc *scratch,
                                                 const real *dout, const real *q,
                                                 const real *k, const real *v,
                                                 const acc *att)
{
    dls_attention_shape plain = s;
    plain.dropout = 0;
    /* view the backward arrays on the host */
    view queries = per_query(&s, q, s.q_sequence, s.q_row);
    view keys = per_key(&s, k, s.k_sequence, s.k_row);
    view values = per_key(&s, v, s.v_sequence, s.v_row);
    view doutputs = per_query(&s, dout, s.o_sequence, s.o_row);
    view dqueries = per_query(&s, dq, s.q_sequence, s.q_row);
    view dkeys = per_key(&s, dk, s.k_sequence, s.k_row);
    view dvalues = per_key(&s, dv, s.v_sequence, s.v_row);
    view weights = as_square(&s, att), dscores = as_square(&s, scratch);
    multiply(SCORES, &plain, &dscores, &doutputs, &values, 1);
    visit_rows(&s, scratch, NULL, att);
    multiply(ALONG_ROWS, &plain, &dqueries, &dscores, &keys, 1);
    multiply(ALONG_COLUMNS, &plain, &dkeys, &dscores, &queries, 1);
    multiply(ALONG_COLUMNS, &s, &dvalues, &weights, &doutputs, 1);
}

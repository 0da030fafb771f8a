/* code/kernels/attention.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Multi-head attention (Vaswani et al. 2017): what it is asked for, the entry points that
 * models call, and the materialised form that keeps the weights in memory.
 *
 * A token's row holds its heads one after the other, D elements each:
 *
 *   q ─► │ head 0 │ head 1 │ … │ head H-1 │ …  q_row elements to the next token
 *
 * so queries, keys and values may be columns of one array, (B, T, (H + 2 Hk) D). */
#ifndef DLS_KERNELS_ATTENTION_H
#define DLS_KERNELS_ATTENTION_H

#include <stdint.h>

#include "base/status.h"
#include "kernels/dropout.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the shape of an attention */
typedef struct dls_attention_shape {
    int B, Tq, Tk;       // sequences; the longest query and key length
    int H, Hk, D;        // query heads, key/value heads (Hk divides H), head size
    int causal;          // 1: query i stands at position keys - queries + i
    double scale;        // of the scores; 0: 1/sqrt(D)
    double dropout;      // probability that a weight is dropped, [0, 1)
    uint64_t seed, stream;              // of the dropout
    int first_sequence, first_head;     // global numbers of sequence 0 and head 0, for it
    const int *starts_q, *starts_k;     // device (B+1): first row of each packed
                                        // sequence; NULL: all are Tq, Tk long
    const int *lengths_k;               // device (B): keys in use; NULL: all
    size_t q_row, k_row, v_row, o_row;  // elements from a token to the next; 0: H D, Hk D
    size_t q_sequence, k_sequence, v_sequence, o_sequence;  // 0: T rows; unused if packed
    double pairs;        // visible (query, key) pairs of all sequences, for the cost
    double tokens_q, tokens_k;          // rows in use, for the cost; 0: as if all full
} dls_attention_shape;

/* find what a query sees */
/* Lengths of sequence b; a length from the device is never taken beyond the bound. */
DLS_HD int dls_attention_queries(const dls_attention_shape *s, int b)
{
    int n = s->starts_q ? s->starts_q[b + 1] - s->starts_q[b] : s->Tq;
    return n < s->Tq ? n : s->Tq;
}

DLS_HD int dls_attention_keys(const dls_attention_shape *s, int b)
{
    int n = s->lengths_k ? s->lengths_k[b]
          : s->starts_k  ? s->starts_k[b + 1] - s->starts_k[b] : s->Tk;
    return n < s->Tk ? n : s->Tk;
}

/* Query i of `queries` sees the keys 0 .. result - 1. */
DLS_HD int dls_attention_seen(const dls_attention_shape *s, int i, int queries, int keys)
{
    int n = s->causal ? keys - queries + i + 1 : keys;
    return n < 0 ? 0 : n < keys ? n : keys;
}

/* Where the first row of sequence b lies. */
DLS_HD size_t dls_attention_at(const int *starts, size_t sequence, size_t row, int b)
{
    return starts ? (size_t)starts[b] * row : (size_t)b * sequence;
}

/* Where query i of a sequence stands among its keys. */
DLS_HD int dls_attention_position(const dls_attention_shape *s, int i, int queries,
                                  int keys)
{
    return s->causal ? keys - queries + i : i;
}

DLS_HD dls_dropout_gate dls_attention_gate(const dls_attention_shape *s, int b, int h)
{
    return dls_dropout_of_head(dls_dropout_gate_of(s->dropout, s->seed, s->stream),
                               s->first_sequence + b, s->first_head + h);
}

/* The factor of a weight under dropout: 0, or 1 / (1 - p). */
DLS_HD double dls_attention_kept(const dls_dropout_gate *gate, int position, int j)
{
    return dls_dropout_keeps(gate, dls_dropout_pair(position, j)) ? gate->scale : 0;
}

/* declare the attention */
/* Fills in what zeros stand for; DLS_ERR_INPUT when the numbers do not fit together. */
dls_status dls_attention_complete(dls_attention_shape *s);

/* Visible pairs of all sequences; those of full length when s->pairs is 0. */
double dls_attention_pairs(const dls_attention_shape *s);

/* out = softmax(scale q k^T) v per head, and lse = log of the softmax's denominator. A
 * query that sees no key, or only scores of -inf: out = 0, lse = -inf. A score of +inf or
 * NaN makes its query's output NaN. v must be finite up to each sequence's length.
 * DLS_ATTENTION=naive|flash|tensor|decode chooses how (dls_attention_way). */
dls_status dls_attention_forward(dls_ctx *ctx, const dls_attention_shape *s,
                                 void *out,      // (tokens, H, D)
                                 void *lse,      // (B, H, Tq) accumulator; may be NULL
                                 const void *q,  // (tokens, H, D)
                                 const void *k,  // (tokens, Hk, D)
                                 const void *v); // (tokens, Hk, D)

/* Overwrites dq, dk, dv, laid out like q, k, v; `dout` like `out`. `temporary` has room
 * for dls_attention_temporary() bytes. */
dls_status dls_attention_backward(dls_ctx *ctx, const dls_attention_shape *s, void *dq,
                                  void *dk, void *dv, void *temporary, const void *dout,
                                  const void *q, const void *k, const void *v,
                                  const void *out, const void *lse);
size_t dls_attention_temporary(const dls_attention_shape *s, dls_dtype dtype);

/* declare the materialised attention */
/* The same with the weights in memory: att holds softmax(scale q k^T) before dropout, 0
 * where a query does not see. */
dls_status dls_attention_naive_forward(dls_ctx *ctx, const dls_attention_shape *s,
                                       void *out,  // NULL: only the weights
                                       void *lse,
                                       void *att,  // (B, H, Tq, Tk) accumulator
                                       const void *q, const void *k, const void *v);

dls_status dls_attention_naive_backward(dls_ctx *ctx, const dls_attention_shape *s,
                                        void *dq, void *dk, void *dv,
                                        void *scratch,  // (B, H, Tq, Tk) accumulator
                                        const void *dout, const void *q, const void *k,
                                        const void *v, const void *att);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/attention_traffic.c: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The formulas of the chapter: every own tile is loaded once, and per own tile every
 * other tile that it sees anything of. */
#include "kernels/attention_traffic.h"

/* count the rows that pass by */
/* Rows of the other side that one head's own tiles load, all together. */
static double rows_by_query(const dls_attention_shape *s, int R, int C)
{
    double rows = 0;
    for (int first = 0; first < s->Tq; first += R) {
        int end = first + R < s->Tq ? first + R : s->Tq;
        int last = dls_attention_seen(s, end - 1, s->Tq, s->Tk);
        int loaded = (last + C - 1) / C * C;
        rows += loaded < s->Tk ? loaded : s->Tk;
    }
    return rows;
}

static double rows_by_key(const dls_attention_shape *s, int R, int C)
{
    double rows = 0;
    int before = s->Tk - s->Tq;
    for (int first = 0; first < s->Tk; first += R) {
        int begin = s->causal && first > before ? (first - before) / C * C : 0;
        rows += begin < s->Tq ? s->Tq - begin : 0;
    }
    return rows;
}

static double share_of_pairs(const dls_attention_shape *s)
{
    dls_attention_shape full = *s;
    full.pairs = 0;
    double pairs = dls_attention_pairs(&full);
    return pairs > 0 ? s->pairs / pairs : 0;
}

/* cost the flash kernels */
dls_flash_cost dls_flash_forward_cost(const dls_attention_shape *s, dls_dtype dtype,
                                      int R, int C)
{
    double size = dls_dtype_size(dtype);
    double acc = dls_dtype_size(dls_dtype_accumulator(dtype));
    double passing = s->B * s->H * rows_by_query(s, R, C) * share_of_pairs(s);
    double own = 2 * s->tokens_q * s->H;                   // q and out
    return (dls_flash_cost){(4.0 * s->D + 5) * s->pairs * s->H,
                            (own + 2 * passing) * s->D * size
                                + (double)s->B * s->H * s->Tq * acc};
}

dls_flash_cost dls_flash_delta_cost(const dls_attention_shape *s, dls_dtype dtype)
{
    double size = dls_dtype_size(dtype);
    double acc = dls_dtype_size(dls_dtype_accumulator(dtype));
    double rows = s->tokens_q * s->H;
    return (dls_flash_cost){2 * rows * s->D, 2 * rows * s->D * size + rows * acc};
}

dls_flash_cost dls_flash_backward_cost(const dls_attention_shape *s, dls_dtype dtype,
                                       int R, int C, int by_key)
{
    double size = dls_dtype_size(dtype);
    double acc = dls_dtype_size(dls_dtype_accumulator(dtype));
    double passing = s->B * s->H * share_of_pairs(s);
    double own = by_key ? 4 * s->tokens_k * s->Hk : 3 * s->tokens_q * s->H, statistics;
    passing *= by_key ? rows_by_key(s, R, C) : rows_by_query(s, R, C);
    statistics = 2 * (by_key ? passing : s->tokens_q * s->H);
    return (dls_flash_cost){((by_key ? 8.0 : 6.0) * s->D + 8) * s->pairs * s->H,
                            (own + 2 * passing) * s->D * size + statistics * acc};
}

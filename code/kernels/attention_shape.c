/* code/kernels/attention_shape.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Completes and checks the shape of an attention, and counts what it sees. */
#include <math.h>

#include "kernels/attention.h"

/* refuse a bad shape */
static dls_status check(const dls_attention_shape *s)
{
    if (s->B < 0 || s->Tq < 0 || s->Tk < 0 || s->D <= 0)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "attention: %d sequences, %d queries, %d keys, head size %d",
                        s->B, s->Tq, s->Tk, s->D);
    if (s->H <= 0 || s->Hk <= 0 || s->H % s->Hk != 0)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "attention: %d query heads can not share %d key heads", s->H,
                        s->Hk);
    if (!(s->dropout >= 0 && s->dropout < 1))
        return DLS_FAIL(DLS_ERR_INPUT, "attention: dropout %g is not in [0, 1)",
                        s->dropout);
    return DLS_OK;
}

static dls_status check_row(const char *what, size_t row, int heads, int D)
{
    if (row < (size_t)heads * D)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "attention: %s rows of %zu elements can not hold %d heads of %d",
                        what, row, heads, D);
    return DLS_OK;
}

/* complete a shape */
static void fill(size_t *value, size_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

dls_status dls_attention_complete(dls_attention_shape *s)
{
    DLS_TRY(check(s));
    size_t heads = (size_t)s->H * s->D, shared = (size_t)s->Hk * s->D;
    fill(&s->q_row, heads);
    fill(&s->k_row, shared);
    fill(&s->v_row, shared);
    fill(&s->o_row, heads);
    fill(&s->q_sequence, s->Tq * s->q_row);
    fill(&s->k_sequence, s->Tk * s->k_row);
    fill(&s->v_sequence, s->Tk * s->v_row);
    fill(&s->o_sequence, s->Tq * s->o_row);
    /* fill in the numbers of a shape */
    if (s->scale == 0)
        s->scale = 1 / sqrt((double)s->D);
    if (s->tokens_q == 0)
        s->tokens_q = (double)s->B * s->Tq;
    if (s->tokens_k == 0)
        s->tokens_k = (double)s->B * s->Tk;
    s->pairs = dls_attention_pairs(s);
    DLS_TRY(check_row("query", s->q_row, s->H, s->D));
    DLS_TRY(check_row("key", s->k_row, s->Hk, s->D));
    DLS_TRY(check_row("value", s->v_row, s->Hk, s->D));
    DLS_TRY(check_row("output", s->o_row, s->H, s->D));
    return DLS_OK;
}

/* count the visible pairs */
double dls_attention_pairs(const dls_attention_shape *s)
{
    double q = s->Tq, k = s->Tk;
    if (s->pairs > 0)
        return s->pairs;
    if (!s->causal)
        return s->B * q * k;
    return s->B * (q <= k ? q * (k - q) + q * (q + 1) / 2 : k * (k + 1) / 2);
}

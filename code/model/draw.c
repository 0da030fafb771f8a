/* code/model/draw.c: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* The candidates are a heap that is emptied only as far as the draw needs: building it
 * is linear in the vocabulary, each rank costs its logarithm, and a nucleus is small. */
#include "model/draw.h"

#include <math.h>

#include "base/rng.h"

/* check the draw */
dls_status dls_draw_check(const dls_draw *s)
{
    if (!(s->temperature >= 0 && s->temperature < INFINITY))
        return DLS_FAIL(DLS_ERR_INPUT, "temperature: expected 0 or more, got %g",
                        s->temperature);
    if (s->top_k < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "top-k: expected 0 (all) or more, got %d",
                        s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return DLS_FAIL(DLS_ERR_INPUT, "top-p: expected more than 0 and at most 1, got "
                        "%g", s->top_p);
    if (!(s->repetition_penalty > 0 && s->repetition_penalty < INFINITY))
        return DLS_FAIL(DLS_ERR_INPUT, "repetition penalty: expected more than 0, got %g",
                        s->repetition_penalty);
    return DLS_OK;
}

/* choose the uniform number */
double dls_draw_uniform(uint64_t seed, uint32_t sequence, uint64_t index)
{
    enum { SAMPLE_STREAM = 0x73616d70 };    // "samp": streams of their own
    return dls_rng_uniform(seed, (uint64_t)SAMPLE_STREAM << 32 | sequence, index);
}

/* order the candidates */
static int likelier(dls_candidate a, dls_candidate b)
{
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

static void sink(dls_candidate *heap, int n, int i)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && likelier(heap[child + 1], heap[child]))
            child++;
        if (likelier(heap[i], heap[child]))
            return;
        dls_candidate moved = heap[i];
        heap[i] = heap[child];
        heap[child] = moved;
    }
}

/* rank lazily */
typedef struct ranking {
    dls_candidate *list;        /* heap [left], then the ranks from the back */
    int n, left;
} ranking;

static dls_candidate *ranked(ranking *r, int rank)
{
    while (r->n - r->left <= rank) {
        dls_candidate top = r->list[0];
        r->list[0] = r->list[--r->left];
        r->list[r->left] = top;
        sink(r->list, r->left, 0);
    }
    return &r->list[r->n - 1 - rank];
}

/* weigh the candidates */
static double weight(const dls_draw *s, double logit, double highest)
{
    return exp((logit - highest) / s->temperature);
}

/* The sum over the first `limit` ranks; over all without ranking them. */
static double mass(const dls_draw *s, ranking *r, int limit, double highest)
{
    double sum = 0;
    if (limit == r->n)
        for (int i = 0; i < r->n; i++)
            sum += weight(s, r->list[i].logit, highest);
    else
        for (int i = 0; i < limit; i++)
            sum += weight(s, ranked(r, i)->logit, highest);
    return sum;
}

/* cut the nucleus */
static int nucleus(const dls_draw *s, ranking *r, int limit, double highest,
                   double *sum)
{
    double enough = s->top_p * *sum, reached = 0;
    int kept = 0;
    while (kept < limit && (kept == 0 || reached < enough))
        reached += weight(s, ranked(r, kept++)->logit, highest);
    *sum = reached;
    return kept;
}

/* walk to the token */
static int draw(const dls_draw *s, ranking *r, double uniform)
{
    double highest = ranked(r, 0)->logit;
    int limit = s->top_k > 0 && s->top_k < r->n ? s->top_k : r->n;
    double sum = mass(s, r, limit, highest);
    if (s->top_p < 1)
        limit = nucleus(s, r, limit, highest, &sum);
    double left = uniform * sum;
    for (int i = 0; i + 1 < limit; i++)
        if ((left -= weight(s, ranked(r, i)->logit, highest)) < 0)
            return ranked(r, i)->token;
    return ranked(r, limit - 1)->token;
}

/* draw one token */
static void penalise(const dls_draw *s, double *logits, int V, const char *seen)
{
    for (int v = 0; v < V; v++)
        if (seen[v])
            logits[v] = logits[v] > 0 ? logits[v] / s->repetition_penalty
                                      : logits[v] * s->repetition_penalty;
}

dls_status dls_draw_token(const dls_draw *s, double uniform, double *logits, int V,
                            const char *seen, dls_candidate *room, int *token)
{
    if (s->repetition_penalty != 1 && seen)
        penalise(s, logits, V, seen);
    int best = 0;
    for (int v = 0; v < V; v++) {
        if (isnan(logits[v]) || logits[v] == INFINITY)
            return DLS_FAIL(DLS_ERR_STATE, "token %d has the score %g", v, logits[v]);
        if (logits[v] > logits[best])
            best = v;
        room[v] = (dls_candidate){logits[v], v};
    }
    if (logits[best] == -INFINITY)
        return DLS_FAIL(DLS_ERR_STATE, "every token has the score -inf");
    *token = best;
    if (s->temperature == 0)
        return DLS_OK;
    ranking r = {room, V, V};
    for (int i = V / 2 - 1; i >= 0; i--)
        sink(room, V, i);
    *token = draw(s, &r, uniform);
    return DLS_OK;
}

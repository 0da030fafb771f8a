/* code/parallel/pipeline/search_bound.c: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* What no completion can beat. */
#include "parallel/pipeline/search.h"

/* count what must come before */
static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Micro-batches that must be through I (and W, when nothing is freed before) for the
 * last forward to find room. */
static int64_t must_be_done(const dls_search *s)
{
    const dls_schedule_options *o = s->now.o;
    int64_t over = o->microbatches * o->memory.hold - s->now.limit;
    return over <= 0 ? 0 : (over + o->memory.hold - 1) / o->memory.hold;
}

static int64_t missing(int64_t needed, int placed)
{
    return needed > placed ? needed - placed : 0;
}

/* bound the last forward */
static void bound_last_forward(dls_search *s)
{
    const dls_auto *a = &s->now;
    int m = a->o->microbatches;
    int64_t done = must_be_done(s), before = 0;
    int64_t freed = a->o->memory.keep == a->o->memory.hold ? done : 0;
    for (int r = 0; r < a->o->ranks; r++) {
        const dls_auto_rank *k = &a->rank[r];
        int64_t F = dls_auto_ticks(a, r, DLS_DO_F);
        int64_t own = k->free_at + (m - k->n[DLS_DO_F]) * F;
        if (k->n[DLS_DO_F] < m)
            own += missing(done, k->n[DLS_DO_I]) * dls_auto_ticks(a, r, DLS_DO_I) +
                   missing(freed, k->n[DLS_DO_W]) * dls_auto_ticks(a, r, DLS_DO_W);
        before = k->n[DLS_DO_F] == m ? dls_auto_end(a, r, DLS_DO_F, m - 1)
                                     : later(own, r ? before + a->o->cost.hop + F : 0);
        s->last_f[r] = before;
    }
}

/* bound the last gradient */
static void bound_last_gradient(dls_search *s)
{
    const dls_auto *a = &s->now;
    int p = a->o->ranks, m = a->o->microbatches;
    for (int r = p - 1; r >= 0; r--) {
        const dls_auto_rank *k = &a->rank[r];
        int64_t F = dls_auto_ticks(a, r, DLS_DO_F), I = dls_auto_ticks(a, r, DLS_DO_I);
        int64_t own = k->free_at + (m - k->n[DLS_DO_F]) * F + (m - k->n[DLS_DO_I]) * I;
        own = later(own, s->last_f[r] + I);
        if (r < p - 1)
            own = later(own, s->last_i[r + 1] + a->o->cost.hop + I);
        s->last_i[r] = k->n[DLS_DO_I] == m ? dls_auto_end(a, r, DLS_DO_I, m - 1) : own;
    }
}

/* bound the span */
int64_t dls_search_bound(dls_search *s)
{
    const dls_auto *a = &s->now;
    int64_t span = 0, first = 0;
    int m = a->o->microbatches;
    bound_last_forward(s);
    bound_last_gradient(s);
    for (int r = 0; r < a->o->ranks; r++) {
        int64_t end = a->rank[r].free_at, tail = 0;
        for (int kind = DLS_DO_F; kind <= DLS_DO_W; kind++)
            end += (m - a->rank[r].n[kind]) * dls_auto_ticks(a, r, (dls_action_kind)kind);
        if (a->rank[r].n[DLS_DO_W] < m)
            tail = s->last_i[r] + dls_auto_ticks(a, r, DLS_DO_W);
        span = later(span, later(end, tail) - first);
        first += dls_auto_ticks(a, r, DLS_DO_F) + a->o->cost.hop;
    }
    return span;
}

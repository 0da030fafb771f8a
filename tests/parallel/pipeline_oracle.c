/* tests/parallel/pipeline_oracle.c: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Sweeps over the ranks, each going on as long as it can, until all are done or stuck. */
#include "pipeline_oracle.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* remember what is done */
typedef struct cell {
    int64_t end[4];  // of F, I, W, B; -1: not done
    int rank[4];     // where; -1: nowhere
} cell;

typedef struct sim {
    const dls_schedule *s;
    const dls_pipeline_costs *cost;
    cell *cells;  // [stages][micro-batches]
    size_t next[ORACLE_RANKS];
    int held[ORACLE_RANKS];
    int64_t clock[ORACLE_RANKS], begun[ORACLE_RANKS], busy[ORACLE_RANKS];
} sim;

static cell *at(const sim *x, int stage, int microbatch)
{
    return &x->cells[(size_t)stage * (size_t)x->s->options.microbatches +
                     (size_t)microbatch];
}

/* count every action once */
static int expected_rank(const dls_schedule *s, const dls_action *a)
{
    int p = s->options.ranks, down = a->stage % p, up = p - 1 - down;
    if (s->placement == DLS_PLACE_V)
        return a->stage / p % 2 ? up : down;
    if (s->placement == DLS_PLACE_BOTH)
        return a->microbatch % 2 ? up : down;
    return down;
}

/* What runs together is one forward and one backward pass. */
static int pairs_well(const dls_actions *list, size_t i)
{
    const dls_action *a = &list->list[i];
    if (!a->paired)
        return 1;
    if (i + 1 == list->n || a[1].paired)
        return 0;
    int one = a->kind == DLS_DO_F ? a[1].kind : a->kind;
    int forward = (a->kind == DLS_DO_F) + (a[1].kind == DLS_DO_F);
    return forward == 1 && one != DLS_DO_W;
}

/* 1 if every stage and micro-batch has its F and one B, or one I and one W; or, if there
 * is no backward at all, just its F; all on the right rank. */
static int complete(sim *x)
{
    const dls_schedule *s = x->s;
    int cells = s->stages * s->options.microbatches, backward = 0;
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            const dls_action *a = &s->order[r].list[i];
            if (a->stage >= s->stages || a->microbatch >= s->options.microbatches ||
                a->kind > DLS_DO_B || expected_rank(s, a) != r ||
                !pairs_well(&s->order[r], i))
                return 0;
            int *rank = &at(x, a->stage, a->microbatch)->rank[a->kind];
            if (*rank >= 0)
                return 0;
            *rank = r;
            backward |= a->kind != DLS_DO_F;
        }
    for (int i = 0; i < cells; i++) {
        const int *rank = x->cells[i].rank;
        int halves = (rank[DLS_DO_I] >= 0) + (rank[DLS_DO_W] >= 0);
        if (rank[DLS_DO_F] < 0 || halves + 2 * (rank[DLS_DO_B] >= 0) != 2 * backward)
            return 0;
    }
    return 1;
}

/* ask when an action can start */
/* When `kind` of that cell has reached `rank`; -1 if it is not done. */
static int64_t arrival(const sim *x, const cell *c, int kind, int rank)
{
    if (c->end[kind] < 0)
        return -1;
    return c->end[kind] + (c->rank[kind] == rank ? 0 : x->cost->hop);
}

static int64_t ready(const sim *x, const dls_action *a, int rank)
{
    const cell *own = at(x, a->stage, a->microbatch);
    if (a->kind == DLS_DO_W)
        return arrival(x, own, DLS_DO_I, rank);
    if (a->kind == DLS_DO_F)
        return a->stage ? arrival(x, at(x, a->stage - 1, a->microbatch), DLS_DO_F, rank)
                        : 0;
    int64_t forward = arrival(x, own, DLS_DO_F, rank), later = 0;
    if (a->stage + 1 < x->s->stages) {
        const cell *next = at(x, a->stage + 1, a->microbatch);
        later = arrival(x, next, next->rank[DLS_DO_B] < 0 ? DLS_DO_I : DLS_DO_B, rank);
    }
    return forward < 0 || later < 0 ? -1 : forward > later ? forward : later;
}

/* run one rank as far as it goes */
static int64_t duration(const sim *x, const dls_action *a)
{
    const dls_pipeline_costs *c = x->cost;
    int64_t three[3] = {c->F, c->I, c->W};
    if (c->of_stage)
        memcpy(three, c->of_stage + 3 * a->stage, sizeof three);
    return a->kind == DLS_DO_B ? three[1] + three[2] : three[a->kind];
}

/* How many run together from list[i] on. */
static size_t together(const dls_actions *list, size_t i)
{
    return list->list[i].paired ? 2 : 1;
}

/* When the actions from list[i] on, n of them, can start; -1: not yet. */
static int64_t all_ready(const sim *x, int rank, const dls_action *a, size_t n)
{
    int64_t start = x->clock[rank];
    for (size_t k = 0; k < n; k++) {
        int64_t one = ready(x, a + k, rank);
        if (one < 0)
            return -1;
        start = one > start ? one : start;
    }
    return start;
}
/* How many actions it did. */
static int advance(sim *x, int rank, oracle *out)
{
    const dls_actions *list = &x->s->order[rank];
    int done = 0;
    for (size_t n; x->next[rank] < list->n; done += (int)n) {
        const dls_action *a = &list->list[x->next[rank]];
        n = together(list, x->next[rank]);
        int64_t start = all_ready(x, rank, a, n), takes = duration(x, a);
        if (start < 0)
            break;
        if (n == 2)
            takes = x->cost->overlapped ? x->cost->overlapped
                                        : takes + duration(x, a + 1);
        if (x->next[rank] == 0)
            x->begun[rank] = start;
        x->next[rank] += n;
        x->clock[rank] = start + takes;
        x->busy[rank] += takes;
        for (size_t k = 0; k < n; k++) {
            at(x, a[k].stage, a[k].microbatch)->end[a[k].kind] = start + takes;
            x->held[rank] += a[k].kind == DLS_DO_F;
        }
        if (x->held[rank] > out->peak[rank])
            out->peak[rank] = x->held[rank];
        for (size_t k = 0; k < n; k++)
            x->held[rank] -= a[k].kind == DLS_DO_W || a[k].kind == DLS_DO_B;
    }
    return done;
}

/* run the oracle */
static void sum_up(sim *x, oracle *out)
{
    int p = x->s->options.ranks;
    for (int r = 0; r < p; r++) {
        out->latest[r] = x->clock[r];
        if (x->next[r] < x->s->order[r].n)
            out->verdict = ORACLE_STUCK;
        if (x->clock[r] > out->makespan)
            out->makespan = x->clock[r];
        if (x->clock[r] - x->begun[r] > out->span)
            out->span = x->clock[r] - x->begun[r];
    }
    for (int r = 0; r < p; r++)
        out->idle[r] = out->makespan - x->busy[r];
}

oracle oracle_run_costs(const dls_schedule *s, const dls_pipeline_costs *cost)
{
    oracle out = {ORACLE_RUNS};
    size_t bytes = (size_t)s->stages * (size_t)s->options.microbatches * sizeof(cell);
    sim x = {.s = s, .cost = cost, .cells = malloc(bytes)};
    memset(x.cells, 0xff, bytes); // -1 everywhere
    if (!complete(&x))
        out.verdict = ORACLE_WRONG;
    else {
        for (int more = 1; more;) {
            more = 0;
            for (int r = 0; r < s->options.ranks; r++)
                more += advance(&x, r, &out);
        }
        sum_up(&x, &out);
    }
    free(x.cells);
    return out;
}

oracle oracle_run(const dls_schedule *s, int64_t F, int64_t I, int64_t W, int64_t hop)
{
    dls_pipeline_costs cost = {.F = F, .I = I, .W = W, .hop = hop};
    return oracle_run_costs(s, &cost);
}

oracle oracle_of(const dls_schedule_options *o, int64_t F, int64_t I, int64_t W,
                 int64_t hop)
{
    dls_schedule s;
    cr_assert_eq(dls_schedule_make(o, &s), DLS_OK, "%s p%d m%d v%d: %s", o->name,
                 o->ranks, o->microbatches, o->chunks, dls_status_message());
    oracle x = oracle_run(&s, F, I, W, hop);
    cr_assert_eq(x.verdict, ORACLE_RUNS, "%s p%d m%d v%d g%d", o->name, o->ranks,
                 o->microbatches, o->chunks, o->group);
    dls_schedule_free(&s);
    return x;
}

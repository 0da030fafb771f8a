/* code/parallel/pipeline/auto_place.c: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* Placing passes: times, memory and waiting of a plan that grows. */
#include "parallel/pipeline/auto.h"

/* look up a time */
int64_t dls_auto_ticks(const dls_auto *a, int rank, dls_action_kind kind)
{
    const dls_pipeline_costs *c = &a->o->cost;
    const int64_t same[3] = {c->F, c->I, c->W};
    return (c->of_stage ? c->of_stage + 3 * rank : same)[kind];
}

/* wait for the neighbour */
static size_t cell(const dls_auto *a, int rank, dls_action_kind kind, int microbatch)
{
    size_t row = (size_t)kind * (size_t)a->o->ranks + (size_t)rank;
    return row * (size_t)a->o->microbatches + (size_t)microbatch;
}

int64_t dls_auto_end(const dls_auto *a, int rank, dls_action_kind kind, int microbatch)
{
    return a->end[cell(a, rank, kind, microbatch)];
}

int64_t dls_auto_arrival(const dls_auto *a, int rank, dls_action_kind kind)
{
    int i = a->rank[rank].n[kind];
    if (kind == DLS_DO_F && rank > 0)
        return dls_auto_end(a, rank - 1, DLS_DO_F, i) + a->o->cost.hop;
    if (kind == DLS_DO_I && rank < a->o->ranks - 1)
        return dls_auto_end(a, rank + 1, DLS_DO_I, i) + a->o->cost.hop;
    return kind == DLS_DO_I ? dls_auto_end(a, rank, DLS_DO_F, i) : 0;
}

/* place a pass */
dls_status dls_auto_place(dls_auto *a, int rank, dls_action_kind kind)
{
    dls_auto_rank *r = &a->rank[rank];
    const dls_pipeline_memory *m = &a->o->memory;
    int64_t start = dls_auto_arrival(a, rank, kind);
    start = start > r->free_at ? start : r->free_at;
    if (r->n[DLS_DO_F] == 0)
        r->first = start;
    else
        r->idle += start - r->free_at;
    r->free_at = start + dls_auto_ticks(a, rank, kind);
    r->held += kind == DLS_DO_F ? m->hold : kind == DLS_DO_I ? m->keep - m->hold
                                                             : -m->keep;
    int i = r->n[kind]++;
    if (kind != DLS_DO_W)
        a->end[cell(a, rank, kind, i)] = r->free_at;
    return dls_actions_add(&a->order[rank], kind, rank, i);
}

/* measure the waiting */
int dls_auto_pending(const dls_auto *a, int rank)
{
    return a->rank[rank].n[DLS_DO_I] - a->rank[rank].n[DLS_DO_W];
}

int64_t dls_auto_idle(const dls_auto *a)
{
    int64_t most = 0;
    for (int r = 0; r < a->o->ranks; r++)
        most = a->rank[r].idle > most ? a->rank[r].idle : most;
    return most;
}

/* code/parallel/pipeline/auto_warm_up.c: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* The warm-up of the automatic scheduler: how many forwards before the first I. */
#include <stdlib.h>

#include "parallel/pipeline/auto.h"

/* count the forwards that fit */
/* More forwards of this rank, from its first on, until the gradient arrives. */
static int forwards_until(const dls_auto *a, int rank, int64_t arrival, int64_t *now)
{
    int64_t F = dls_auto_ticks(a, rank, DLS_DO_F), hold = a->o->memory.hold;
    int n = 1;
    *now = a->rank[rank].free_at;
    while (n < a->o->microbatches && (n + 1) * hold <= a->limit &&
           (a->greedy_warm_up ? *now < arrival : *now + F <= arrival)) {
        *now += F;
        n++;
    }
    return n;
}

/* leave one less to the next */
static void plan_forwards(const dls_auto *a, int *n)
{
    int p = a->o->ranks;
    int64_t now, arrival = INT64_MIN;
    n[p - 1] = 1;
    for (int r = p - 1; r >= 0; r--) {
        now = a->rank[r].free_at;
        if (r < p - 1)
            n[r] = forwards_until(a, r, arrival, &now);
        now = now > arrival ? now : arrival;
        arrival = now + dls_auto_ticks(a, r, DLS_DO_I) + a->o->cost.hop;
    }
    for (int r = 1; r < p; r++)
        if (n[r] < a->o->microbatches && n[r] >= n[r - 1])
            n[r] = n[r - 1] > 1 ? n[r - 1] - 1 : 1;
}

/* warm up */
dls_status dls_auto_warm_up(dls_auto *a)
{
    int p = a->o->ranks, *n = calloc((size_t)p, sizeof *n);
    dls_status status = n ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a warm-up");
    for (int r = 0; status == DLS_OK && r < p; r++)
        status = dls_auto_place(a, r, DLS_DO_F);
    if (status == DLS_OK)
        plan_forwards(a, n);
    for (int r = 0; r < p; r++)
        for (int i = 1; status == DLS_OK && i < n[r]; i++)
            status = dls_auto_place(a, r, DLS_DO_F);
    for (int r = p - 1; status == DLS_OK && r >= 0; r--)
        status = dls_auto_place(a, r, DLS_DO_I);
    free(n);
    return status;
}

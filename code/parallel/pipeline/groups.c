/* code/parallel/pipeline/groups.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* The order of Megatron-LM's schedule table, for any number of micro-batches. */
#include "parallel/pipeline/groups.h"

/* cut into groups */
dls_groups dls_groups_of(int microbatches, int ranks, int group)
{
    int n = microbatches / group, left = microbatches % group;
    if (n == 0)
        return (dls_groups){1, microbatches, 0};
    if (left == 0 || left >= ranks)
        return (dls_groups){n, group, left};
    int least = microbatches / n, larger = microbatches % n;
    return larger ? (dls_groups){larger, least + 1, least}
                  : (dls_groups){n, least, 0};
}

/* find a pass */
void dls_groups_pass(const dls_groups *g, int chunks, int k, int *chunk,
                     int *microbatch)
{
    int passes = g->n * g->size * chunks, size = g->size, before = 0;
    if (k >= passes) {
        k -= passes;
        size = g->rest;
        before = g->n * g->size;
    }
    *chunk = k / size % chunks;
    *microbatch = before + k / (size * chunks) * size + k % size;
}

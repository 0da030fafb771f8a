/* code/parallel/pipeline/groups.h: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* Micro-batches in groups that go round the ranks together, chunk after chunk. */
#ifndef DLS_PARALLEL_PIPELINE_GROUPS_H
#define DLS_PARALLEL_PIPELINE_GROUPS_H

/* First `n` groups of `size` micro-batches, then all others of `rest`. */
typedef struct dls_groups {
    int n, size, rest;
} dls_groups;

/* Groups of `group` >= ranks. What is left over is a group of its own if it has `ranks`
 * or more micro-batches, and else dealt out to the others. `size` is the largest. */
dls_groups dls_groups_of(int microbatches, int ranks, int group);

/* The k-th pass of microbatches * chunks: of which chunk (in the order of the forward
 * passes), of which micro-batch. */
void dls_groups_pass(const dls_groups *g, int chunks, int k, int *chunk,
                     int *microbatch);

#endif

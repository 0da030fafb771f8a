/* code/parallel/expert/dispatch_bench.h: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* The rows of one expert layer on every rank of a job, to be sent there and back. */
#ifndef DLS_PARALLEL_EXPERT_DISPATCH_BENCH_H
#define DLS_PARALLEL_EXPERT_DISPATCH_BENCH_H

#include "layers/dispatch_nodes.h"

/* describe a measured dispatch */
typedef struct dls_dispatch_options {
    int64_t tokens, channels, experts, chosen;
    const char *pattern;        /* "even", "random" or "one" */
    dls_dtype dtype;
    dls_row_type wire;
    dls_dispatch_way way;
} dls_dispatch_options;

/* What can be sent. */
typedef enum dls_movement {
    DLS_MOVE_PIPELINE, DLS_MOVE_COUNTS, DLS_MOVE_DISPATCH, DLS_MOVE_COMBINE, DLS_MOVEMENTS
} dls_movement;

typedef struct dls_dispatch_bench {
    const dls_dispatch_options *o;
    dls_comm *comm;             /* the caller's */
    int n, rank;
    dls_ctx ctx;
    dls_axes axes;
    dls_dispatch d;
    dls_node_dispatch nodes;
    dls_plan plan;
    dls_pass pass;
    int *counts, *index, *place;    /* (E), (tokens, k) twice; device, host writes */
    int *all;                   /* (n, E) host: counts of every rank */
    char *rows, *arrived, *activations, *host;
} dls_dispatch_bench;

/* declare the measured dispatch */
/* Makes groups, plan and rows over comm, on all its ranks. DLS_ERR_INPUT: sizes that do
 * not go together. */
dls_status dls_dispatch_bench_open(dls_dispatch_bench *b, const dls_dispatch_options *o,
                                   dls_comm *comm);
void dls_dispatch_bench_close(dls_dispatch_bench *b);

/* Enqueues a movement, and lets the context's stream wait for it. */
dls_status dls_dispatch_bench_move(dls_dispatch_bench *b, dls_movement w);

/* Bytes that movements like this have sent so far, to ranks of the node and of others; if
 * the two can not be told apart, -1 and their sum. */
void dls_dispatch_bench_sent(const dls_dispatch_bench *b, dls_movement w,
                             double bytes[2]);

/* Bytes between two ranks by the formula: of the flat way, and of a pipeline. */
double dls_dispatch_bench_between(const dls_dispatch_bench *b, dls_movement w, int from,
                                  int to);

/* Rows that leave this rank and come to it, its own among them. */
void dls_dispatch_bench_rows(const dls_dispatch_bench *b, dls_movement w, int rows[2]);
int dls_dispatch_bench_node(const dls_dispatch_bench *b, int rank);
#endif

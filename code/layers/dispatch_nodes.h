/* code/layers/dispatch_nodes.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Dispatch and combine over nodes: a token's row crosses the slow link once for each node
 * that has experts for it.
 *
 *   dispatch   token -> my place on each node -> ranks with experts -> rows by expert
 *   combine    token <- sum over nodes        <- sum over ranks     <- weighted sum
 *
 * Unlike in dispatch.h, rows are given and returned by token, and weights are applied
 * where the experts are: only sums come back. */
#ifndef DLS_LAYERS_DISPATCH_NODES_H
#define DLS_LAYERS_DISPATCH_NODES_H
#include "layers/dispatch.h"
#include "layers/nodes_plan.h"
#ifdef __cplusplus
extern "C" {
#endif
/* describe a dispatch over nodes */
/* What an expert layer knows of its dispatch over nodes; a plain structure. */
typedef struct dls_node_dispatch {
    dls_node_grid grid;
    dls_moe moe;
    int rank;                   /* of the expert group */
    int columns;                /* C */
    int tokens, room;           /* the most tokens of a rank; rows that can arrive */
    size_t host, tables;        /* slots: on the host; of the stash */
    size_t buffer[2];           /* of the scratch */
} dls_node_dispatch;

/* The routes of a pass. The first member is what experts read of any dispatch. */
typedef struct dls_node_routes {
    dls_routes routes;          /* a segment for each expert with rows */
    int tokens;                 /* of this rank in the pass */
    dls_leg leg[DLS_LEGS];
    int *begin[DLS_LEGS];       /* device (ranges) */
    int *list[DLS_LEGS];        /* device (copies): rows before the leg */
    int *place[DLS_LEGS];       /* device (rows, width): copies, -1 behind the last */
    int *entry;                 /* device (arrived): row of leg 2 * k + choice */
    int *kept;                  /* device (tokens, k): the choices, -1: dropped */
    int *censuses;              /* (ranks, N + R + E) */
} dls_node_routes;

/* declare the dispatch over nodes */
/* Splits node and across from the axes' expert group, by the nodes of the cluster.
 * Collective over it. DLS_ERR_INPUT: not as many ranks on every node, in order. */
dls_status dls_axes_add_nodes(dls_axes *axes);

/* DLS_ERR_INPUT: what this way can not do. */
dls_status dls_node_dispatch_check(const dls_sharding *s, const dls_moe *m);

/* Describes the dispatch of up to `tokens` rows (., columns) of each rank: device stash
 * and scratch, until the caller's mark, and host memory. The buffer of arrived rows
 * (room, C) is the caller's. per_node: ranks of the expert group on a node. */
void dls_node_dispatch_plan(dls_node_dispatch *out, dls_plan *plan, const dls_sharding *s,
                            const dls_moe *m, int per_node, int tokens, int columns);

/* Fills the pass's routes from the choices of its tokens: index and place (tokens, k)
 * device int32, place -1: dropped. known (tokens, k), if the choice is made without a
 * look at the scores: index once more, on the host; else NULL. Waits for the context's
 * stream. Collective over the expert group. */
dls_status dls_node_dispatch_count(const dls_pass *p, const dls_node_dispatch *d,
                                   const int *index, const int *place, int tokens,
                                   const int *known);

const dls_node_routes *dls_node_dispatch_routes(const dls_pass *p,
                                                const dls_node_dispatch *d);

/* arrived (routes.arrived, C) := the tokens' rows (tokens, C), for each expert. Enqueued
 * on axes->stream, behind what the context's stream has now. Collective. */
dls_status dls_node_dispatch_rows(const dls_pass *p, const dls_node_dispatch *d,
                                  void *arrived, const void *rows);

/* rows (tokens, C) := sum over a token's arrived rows, each times its weight
 * (routes.arrived) of the accumulator type; NULL: 1. */
dls_status dls_node_combine_rows(const dls_pass *p, const dls_node_dispatch *d, void *rows,
                                 const void *arrived, const void *weight);

/* The same with numbers of the accumulator type, one for each choice: weight (tokens, k)
 * to arrived (routes.arrived), and back; where a choice was dropped, a zero comes. */
dls_status dls_node_dispatch_weights(const dls_pass *p, const dls_node_dispatch *d,
                                     void *arrived, const void *weight);
dls_status dls_node_combine_weights(const dls_pass *p, const dls_node_dispatch *d,
                                    void *weight, const void *arrived);
#ifdef __cplusplus
}
#endif
#endif

/* code/layers/dispatch_nodes.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Dispatch and combine over nodes: a token's row crosses the slow link once for each node
 * that has experts for it.
 *
 *   dispatch   token -> my place on each node -> ranks with experts   (landed)
 *   combine    token <- sum over nodes        <- sum over ranks       <- landed
 *
 * Unlike in dispatch.h, rows are given and returned by token, and land once for each token
 * and rank. There they are treated like tokens: permuted by routes.place, and added up
 * with the weights that landed beside them. */
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
    dls_moe moe;
    int ranks, rank;            /* of the expert group */
    int columns;                /* C */
    int tokens, landed, room;   /* the most tokens of a rank; rows that land; that these
                                   become, by expert */
    size_t host, tables;        /* slots: on the host; of the stash */
    size_t buffer[2];           /* of the scratch */
} dls_node_dispatch;

/* The routes of a pass. The first member is what experts read of any dispatch. */
typedef struct dls_node_routes {
    dls_routes routes;          /* a segment for each expert with rows */
    dls_node_grid grid;         /* as the axes are */
    int tokens, landed;         /* of this rank in the pass; leg[2].rows */
    dls_leg leg[DLS_LEGS];
    int *begin[DLS_LEGS];       /* device (ranges) */
    int *list[DLS_LEGS];        /* device (copies): rows before the leg; none of leg 2 */
    int *place[DLS_LEGS];       /* device (rows, width): copies, -1 behind the last; of leg
                                   2 (landed, k): arrived row of each choice, or -1 */
    int *kept;                  /* device (tokens, k): the choices, -1: dropped */
    int *censuses;              /* (ranks, N + R + E) */
} dls_node_routes;

/* What a router found: device. number: of the first token in the pass. */
typedef struct dls_node_choice {
    const int *index, *place;   /* (tokens, k); place -1: dropped */
    const int *counts;          /* (E): kept rows of each expert; negative: a bad score */
    int tokens, number;
} dls_node_choice;

/* declare the dispatch over nodes */
/* Splits node and across from the axes' expert group, by the nodes of the cluster.
 * Collective over it. DLS_ERR_INPUT: not as many ranks on every node, in order. */
dls_status dls_axes_add_nodes(dls_axes *axes);

/* 1: rows go over the nodes. 0: nobody asked for it, or it can not be: experts are cut
 * (etp), rows change their type on the wire, or some belong to no token (padding). */
int dls_dispatch_over_nodes(const dls_sharding *s, const dls_moe *m);

/* Describes the dispatch of up to `tokens` rows (., columns) of each rank, of which up to
 * `room` are for experts of a rank: device stash and scratch, until the caller's mark,
 * and host memory, whatever the number of nodes. Buffers of landed rows are the caller's. */
void dls_node_dispatch_plan(dls_node_dispatch *out, dls_plan *plan, const dls_sharding *s,
                            const dls_moe *m, int tokens, int room, int columns);

/* Fills the pass's routes from what the router found. known: it is balanced, and so known
 * without a look. Waits for the context's stream. Collective over the expert group. */
dls_status dls_node_dispatch_count(const dls_pass *p, const dls_node_dispatch *d,
                                   const dls_node_choice *choice, int known);

const dls_node_routes *dls_node_dispatch_routes(const dls_pass *p,
                                                const dls_node_dispatch *d);

/* landed (r->landed, columns) := rows (tokens, columns) of the tokens with experts here.
 * columns: up to the plan's, or k of accumulators. On axes->stream, behind what the
 * context's stream has now. Collective. */
dls_status dls_node_dispatch_rows(const dls_pass *p, const dls_node_dispatch *d,
                                  void *landed, const void *rows, int columns,
                                  dls_dtype dtype);

/* The way back: rows (tokens, columns) := the sum of a token's landed rows. */
dls_status dls_node_combine_rows(const dls_pass *p, const dls_node_dispatch *d, void *rows,
                                 const void *landed, int columns, dls_dtype dtype);
#ifdef __cplusplus
}
#endif
#endif

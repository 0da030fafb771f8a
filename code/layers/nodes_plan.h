/* code/layers/nodes_plan.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* The way of rows over nodes, ranks and experts, as pure functions of what was chosen. */
#ifndef DLS_LAYERS_NODES_PLAN_H
#define DLS_LAYERS_NODES_PLAN_H
#include <stddef.h>
#include "base/status.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define a leg */
/* A group of ranks that lies evenly over nodes: rank = node * places + place. */
typedef struct dls_node_grid {
    int nodes, places;          /* N, P; R = N P ranks */
    int experts, chosen;        /* E, k */
} dls_node_grid;

enum { DLS_LEGS = 3 };          /* over the nodes, the ranks of a node, the experts */

/* Rows go on to each range in which they have a choice. */
typedef struct dls_leg {
    int ranges, first, per;     /* range r: experts first + r per ... + per - 1 */
    int rows, copies;           /* rows before the leg; copies that leave */
    int width;                  /* the most copies of one row: min(ranges, k) */
    int *go, *come;             /* [ranges]: copies for each; rows from each, but on the
                                   last leg, where nobody sends */
} dls_leg;

/* declare the plan of nodes */
/* How many ints a rank's census and the arrays of its legs take. */
int dls_node_census_ints(const dls_node_grid *g);
int dls_node_leg_ints(const dls_node_grid *g);

/* Rows of index (rows, k), -1: dropped, that have a choice in each of `ranges` ranges of
 * `per` experts from `first` on. copies (ranges). */
void dls_node_count(const int *index, int rows, int k, int first, int per, int ranges,
                    int *copies);

/* What a rank tells the others: census (N + R + E) := its rows that have a choice on each
 * node, on each rank, and of each expert. */
void dls_node_census(const dls_node_grid *g, const int *index, int rows, int *census);

/* The same where token i of the pass, choice j, has expert (i k + j) mod E, for `rows`
 * tokens from number `first` on. */
void dls_node_census_balanced(const dls_node_grid *g, int rows, int first, int *census);

/* The legs of a rank that has `rows` rows, from the censuses (R, N + R + E) of all. Their
 * arrays lie in room (dls_node_leg_ints). */
void dls_node_legs(const dls_node_grid *g, int rank, int rows, const int *censuses,
                   int *room, dls_leg leg[DLS_LEGS]);

/* The most rows of each leg, and copies, if all ranks have up to `rows`. */
void dls_node_most(const dls_node_grid *g, int rows, dls_leg leg[DLS_LEGS]);

/* Rows that leave a rank for other nodes, and for other ranks of its own: the flat way,
 * and this one. */
typedef struct dls_node_traffic { long slow, fast; } dls_node_traffic;
dls_node_traffic dls_node_flat(const dls_node_grid *g, int rank, const int *censuses);
dls_node_traffic dls_node_nested(const dls_node_grid *g, int rank, const int *censuses);

/* How many nodes a token is expected to have experts on, if all k of E are alike likely
 * and it uses at most `limit` nodes (0: N), themselves chosen with equal chances. */
double dls_nodes_expected(const dls_node_grid *g, int limit);
#ifdef __cplusplus
}
#endif
#endif

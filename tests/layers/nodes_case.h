/* tests/layers/nodes_case.h: from chapters/08-dispatch-nodes-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Tokens with choices that every rank can compute, and rows that carry their origin. */
#ifndef DLS_TESTS_LAYERS_NODES_CASE_H
#define DLS_TESTS_LAYERS_NODES_CASE_H

#include "layers/dispatch_nodes.h"

/* define a case over nodes */
typedef enum nodes_pattern {
    NODES_RANDOM, NODES_FIRST, NODES_LAST, NODES_EMPTY, NODES_DROPPED, NODES_PATTERNS
} nodes_pattern;

typedef struct nodes_case {
    int nodes, places, per_rank, k;     // E = nodes * places * per_rank
    nodes_pattern pattern;
    int columns;
    dls_dtype dtype;
} nodes_case;

enum { NODES_MOST = 9 };                // tokens of a rank

dls_node_grid nodes_grid(const nodes_case *c);
int nodes_tokens(const nodes_case *c, int rank);

/* index (tokens, k): what the router says; place: -1 where a choice is dropped. */
void nodes_choose(const nodes_case *c, int rank, int *index, int *place);
void nodes_kept(const nodes_case *c, int rank, int *index); // with -1 in it
#endif

/* code/layers/dispatch_nodes_internal.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows of any width on their way over the legs. Private to the dispatch over nodes. */
#ifndef DLS_LAYERS_DISPATCH_NODES_INTERNAL_H
#define DLS_LAYERS_DISPATCH_NODES_INTERNAL_H
#include "layers/dispatch_nodes.h"

/* define a way */
typedef struct dls_node_way {
    const dls_pass *pass;
    const dls_node_routes *routes;
    dls_ctx ctx;                /* on the communication stream, of the rows' type */
    int columns;
    char *buffer[2];
    const char *at;             /* where the rows are now */
} dls_node_way;

/* Rows of `columns` elements are at `at`; the communication stream waits for the
 * context's. */
dls_status dls_node_way_begin(dls_node_way *way, const dls_pass *p,
                              const dls_node_dispatch *d, const void *at, int columns,
                              dls_dtype dtype);

/* Leg 0 or 1, to where its ranges are; out: the rows then are there, not in a buffer. */
dls_status dls_node_way_go(dls_node_way *way, int leg, void *out);

/* The same back, and the sums. */
dls_status dls_node_way_back(dls_node_way *way, int leg, void *out);
#endif

/* tests/layers/route_rig.h: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A router over ranks: its rows are those of a whole, of which any rank knows all. */
#ifndef DLS_TESTS_LAYERS_ROUTE_RIG_H
#define DLS_TESTS_LAYERS_ROUTE_RIG_H

#include "../comm/world.h"

#include "base/rng.h"
#include "layers/router.h"

enum { ROUTE_T = 6, ROUTE_C = 4, ROUTE_E = 5, ROUTE_K = 2, ROUTE_ROWS = 64 };

/* losses_only: the scale of the losses; the weights then have no gradient. */
typedef struct route_layout {
    int tp, cp, dp;
    dls_moe moe;
    double losses_only;
} route_layout;

/* What a router found for rows of numbers row[0 ... n - 1] in the whole. */
typedef struct routed_rows {
    int n, row[ROUTE_ROWS], index[ROUTE_ROWS * ROUTE_K], kept[ROUTE_ROWS * ROUTE_K];
    double weight[ROUTE_ROWS * ROUTE_K], dx[ROUTE_ROWS * ROUTE_C];
    double dweight[ROUTE_E * ROUTE_C];      // of the router's matrix
    double tally[2 * ROUTE_E + DLS_TALLY_SUMS];
} routed_rows;

/* Runs the rows of this rank, or all (axes NULL) of `sequences`. */
dls_status route_rows(const route_layout *l, const dls_axes *axes, int rank,
                      int sequences, routed_rows *out);

#endif

/* tests/layers/dispatch_rig.h: from chapters/08-dispatch-proof.md. Edit the chapter, or edit here and run "make untangle". */
/* A dispatch whose rows carry their origin. */
#ifndef DLS_TESTS_LAYERS_DISPATCH_RIG_H
#define DLS_TESTS_LAYERS_DISPATCH_RIG_H

#include "../comm/world.h"

#include "layers/dispatch.h"

/* describe a dispatch case */
/* Who sends how much where. */
typedef enum dispatch_pattern {
    AT_RANDOM, ALL_TO_ONE, ODD_RANKS_EMPTY, LAST_RANK_ONLY, NOBODY, FIRST_EXPERTS,
    DISPATCH_PATTERNS
} dispatch_pattern;

typedef struct dispatch_case {
    int ep, etp, experts, chosen, tokens, columns;
    dispatch_pattern pattern;
    dls_dtype dtype;
    dls_row_type wire;
    dls_dispatch_way way;
} dispatch_case;

/* hold a dispatch */

enum { ORIGIN_COLUMNS = 4 };    // rank, token, choice, expert; then other numbers

/* The groups of a layout: etp nearest, rank = ep rank * etp + etp rank. */
typedef struct dispatch_groups {
    dls_comm *world, *expert, *expert_tensor;
    dls_axes axes;
} dispatch_groups;

dls_status dispatch_open(dispatch_groups *g, int ep, int etp, dls_comm *world);
void dispatch_close(dispatch_groups *g);

/* One rank's part of a case. */
typedef struct dispatch_rig {
    const dispatch_case *c;
    int rank;
    dls_ctx ctx;
    dls_axes *axes;
    dls_dispatch d;
    dls_plan plan;
    dls_pass pass;
    int *counts;                // (E)
    char *sent, *arrived, *back;
    void *activations, *host;
    void (*spoil)(struct dispatch_rig *r);  // after the count; NULL: nothing is wrong
} dispatch_rig;


/* Makes the plan and the buffers, over groups of the case's layout. */
dls_status dispatch_begin(dispatch_rig *r, const dispatch_case *c, dispatch_groups *g);
void dispatch_end(dispatch_rig *r);

/* The way there, into arrived; what came; experts and the way back; what came back. */
dls_status dispatch_go(dispatch_rig *r);
dls_status dispatch_expect_arrived(const dispatch_rig *r);
dls_status dispatch_return(dispatch_rig *r);
dls_status dispatch_expect_back(const dispatch_rig *r);

/* Rows of a rank for an expert, by the pattern. The token's choices are distinct. */
int dispatch_tokens(const dispatch_case *c, int rank);
int dispatch_choice(const dispatch_case *c, int rank, int token, int choice);
void dispatch_counts(const dispatch_case *c, int rank, int *counts);

/* Element of a row that is number i of an expert's from a rank, in order. */
double dispatch_element(const dispatch_case *c, int rank, int expert, int i, int column);

/* Element i of an array of the case's type. */
double dispatch_get(const dispatch_case *c, const void *x, size_t i);
void dispatch_set(const dispatch_case *c, void *x, size_t i, double value);
#endif

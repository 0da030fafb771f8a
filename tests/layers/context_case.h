/* tests/layers/context_case.h: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* An attention over ranks beside its definition. */
#ifndef DLS_TESTS_LAYERS_CONTEXT_CASE_H
#define DLS_TESTS_LAYERS_CONTEXT_CASE_H

#include "layers/context.h"

/* define a context case */
typedef struct context_case {
    dls_context_way way;
    dls_token_order order;
    int ulysses, causal, exact;
    int B, T, H, Hk, D;
    dls_dtype dtype;
    const int *lengths;         // (B): packed documents; NULL: B sequences of T
    double dropout;
    int flat;                   // all scores 0, and values that round away
    double allowed;             // of the largest value of an array
} context_case;

extern const dls_context_functions exact_functions;

/* Whole rows and this rank's; the row in the whole of a rank's row. */
int case_whole_rows(const context_case *c);
int case_rows(const context_case *c, int n, int rank);
int case_row(const context_case *c, int n, int rank, int row);

/* Element of q | k | v of a whole row, and of the outputs' gradient. */
double case_input(const context_case *c, int row, int column);
double case_gradient(const context_case *c, int row, int column);

/* By definition: out (rows, H D), and the gradients of q | k | v beside each other. */
void case_reference(const context_case *c, double *out, double *gradients);

/* Forward and backward on this rank, compared. `axes` for n ranks, this one its rank. */
dls_status case_compare(const context_case *c, dls_axes *axes, double *worst);
#endif

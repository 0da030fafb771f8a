/* tests/kernels/router_case.h: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A router under test, and its reference. */
#ifndef DLS_TESTS_KERNELS_ROUTER_CASE_H
#define DLS_TESTS_KERNELS_ROUTER_CASE_H

#include "kernels/router.h"
#include "support.h"

/* What a router has on the device, and what was read from there. */
typedef struct rcase {
    dls_router r;
    void *scores, *bias, *weight;       // device
    int *index, *place, *counts, *chosen, *before, earlier;
    int *index_of, *place_of, *counts_of, *chosen_of;   // host
    double *weight_of, *s, *b;          // host: what was put
} rcase;

/* Makes the device arrays for scores s (N, E) and bias b (E) or NULL. */
rcase rcase_make(kcase *k, dls_router r, const double *s, const double *b);

/* Chooses and places, and reads everything. */
void rcase_route(kcase *k, rcase *c);

int *kcase_get_ints(kcase *k, const int *device, size_t n);

/* The reference: p (E) of a row; the chosen of a row; a row's weights. */
void refer_gate(const dls_router *r, const double *s, double *p);
void refer_choice(const dls_router *r, const double *s, const double *b, int *index);
void refer_weights(const dls_router *r, const double *s, const int *index, double *w);

/* ds (E): from the gradient dp of a row's probabilities, by the gate's matrix. */
void refer_gate_back(const dls_router *r, const double *s, const double *dp, double *ds);

#endif

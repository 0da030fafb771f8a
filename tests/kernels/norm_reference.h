/* tests/kernels/norm_reference.h: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* One row of a norm and its gradients in double, with bounds for the type under test. */
#ifndef DLS_TESTS_KERNELS_NORM_REFERENCE_H
#define DLS_TESTS_KERNELS_NORM_REFERENCE_H

#include "support.h"

/* describe a row of a norm */
typedef struct norm_row {
    int C, centred;
    double epsilon;
    const double *h, *w, *b, *dout;  // (C) inputs; b NULL: no bias
    double mean, rstd, rstd_e;       // expected; rstd_e is relative
    double *out, *out_e;             // (C)
    double *dh, *dh_e;               // (C) gradient of h
    double *dw, *dw_e;               // (C) added to: gradient of w
} norm_row;

void refer_to_norm(const kcase *k, norm_row *r, int rows);

#endif

/* tests/kernels/cross_entropy_reference.h: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Cross-entropy in double, with bounds for the errors of the arithmetic under test. */
#ifndef DLS_TESTS_KERNELS_CROSS_ENTROPY_REFERENCE_H
#define DLS_TESTS_KERNELS_CROSS_ENTROPY_REFERENCE_H

#include "support.h"

/* refer to cross entropy */
static inline void refer_row(const kcase *k, const double *z, int V, int y, double scale,
                             double *loss, double *loss_e, double *dz, double *dz_e)
{
    double most = -INFINITY, sum = 0, exponents = 0, one = rounding(k, 1);
    for (int v = 0; v < V; v++)
        most = fmax(most, z[v]);
    for (int v = 0; v < V; v++) {
        sum += exp(z[v] - most);
        exponents += exp(z[v] - most) * (most - z[v]);
    }
    double error = rounding(k, 4 * V + 6) + one * (2 * exponents / sum + 3 * log(sum));
    *loss = y < 0 ? 0 : log(sum) + most - z[y];
    *loss_e = y < 0 ? 0 : error + 2 * one * (most - z[y]);
    for (int v = 0; v < V; v++) {
        double p = exp(z[v] - most) / sum, hit = v == y;
        double p_e = error + one * (fabs(most - z[v]) + 2 * fabs(most + log(sum)) + 4);
        dz[v] = y < 0 ? 0 : scale * (p - hit);
        dz_e[v] = y < 0 ? 0 : scale * (p * p_e + 3 * one * (p + hit)) + 1e-37;
    }
}

#endif

/* code/parallel/tensor/laws_2d.c: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* The accounts of a grid. */
#include "parallel/tensor/laws_2d.h"

/* compute the laws of a grid */
dls_mlp_law dls_mlp_law_1d(double M, double h, double f, int p)
{
    return (dls_mlp_law){.weights = (2 * h * f + f) / p + h,
                         .activations = M * h + 2 * M * f / p,
                         .narrow = 4.0 * (p - 1) / p * M * h};
}

dls_mlp_law dls_mlp_law_2d(double M, double h, double f, int q, int d, int turned)
{
    double p = (double)q * q * d, b = f + h;    // of biases
    double moved = h + (turned ? h : f);        // per row of the batch, three times
    return (dls_mlp_law){
        .weights = 2 * h * f / (q * q) + b / q,
        .activations = (M * h + 2 * M * f) / p,
        .narrow = (q - 1) * (3 * M * moved + 4.0 * d * h * f) / p,
        .wide = ((q - 1) * d * (2 * h * f + 2 * b)
                 + 2.0 * (d - 1) * (2 * h * f + q * b)) / p};
}

/* code/parallel/tensor/laws_2d.h: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* What an MLP of (channels, hidden) costs on p ranks, cut in one, two or two and a half
 * dimensions: formulas, in numbers of elements. Matrices whose sides divide; bytes on the
 * wire hold for all. */
#ifndef DLS_PARALLEL_TENSOR_LAWS_2D_H
#define DLS_PARALLEL_TENSOR_LAWS_2D_H

#ifdef __cplusplus
extern "C" {
#endif

/* declare the laws of a grid */
typedef struct dls_mlp_law {
    double weights;         // of a rank, biases included
    double activations;     // kept from forward to backward: x, u, a
    double narrow, wide;    // sent by a rank on average, forward and backward: values,
                            // and gradients of the accumulator type
} dls_mlp_law;

/* Megatron's: one all-reduce forward, one backward. */
dls_mlp_law dls_mlp_law_1d(double rows, double channels, double hidden, int p);

/* On q x q x d ranks. turned: the second layer's weights are. */
dls_mlp_law dls_mlp_law_2d(double rows, double channels, double hidden, int q, int d,
                           int turned);

#ifdef __cplusplus
}
#endif
#endif

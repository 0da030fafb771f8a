/* code/parallel/tensor/mlp_2d.h: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* A linear layer and an MLP whose weights and activations lie in blocks on a grid. With
 * d > 1 (Tesseract: Wang and others 2022) each layer of the grid has its own rows of the
 * activations and the same weights; their gradients are summed over the layers. */
#ifndef DLS_PARALLEL_TENSOR_MLP_2D_H
#define DLS_PARALLEL_TENSOR_MLP_2D_H

#include "parallel/tensor/summa.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a linear layer on a grid */
typedef struct dls_linear_2d {
    int K, N;                   // of the whole layer
    int turned;                 // 1: the weight lies as (N, K), and the input stays put
    void *weight, *bias;        // block (K_i, N_j) or (N_i, K_j); part (N_j)
    void *dweight, *dbias;      // the same, of the accumulator type
} dls_linear_2d;

/* s.K and s.N are set here; y, x, dy, dx: blocks. backward_weight adds to dweight its sum
 * over this layer of the grid, and to dbias this rank's rows alone: dls_mlp_2d_finish. */
dls_status dls_linear_2d_forward(const dls_linear_2d *l, dls_summa s, void *y,
                                 const void *x);
dls_status dls_linear_2d_backward_input(const dls_linear_2d *l, dls_summa s, void *dx,
                                        const void *dy);
dls_status dls_linear_2d_backward_weight(const dls_linear_2d *l, dls_summa s,
                                         const void *x, const void *dy);

/* define an mlp on a grid */
typedef struct dls_mlp_2d {
    dls_ctx *ctx;
    dls_grid *grid;
    int M;                      // rows of this layer of the grid
    dls_linear_2d fc, proj;     // (channels, hidden), (hidden, channels)
    void *values, *grads;       // fc's weight and bias, then proj's
    size_t elements;            // of each
    void *u, *a, *da;           // (M_i, hidden_j): before and behind the GELU; a gradient
    void *room;                 // for communication
} dls_mlp_2d;

/* Takes memory; values undefined, gradients zero. `rows`: of the whole batch, of which
 * the grid's layers get rows / d each, more or less. turned: of the second layer. */
dls_status dls_mlp_2d_open(dls_mlp_2d *m, dls_ctx *ctx, dls_grid *grid, int rows,
                           int channels, int hidden, int turned);
void dls_mlp_2d_close(dls_mlp_2d *m);

/* y, x, dx, dy: (M_i, channels_j), from dls_flat_buffer. backward: after forward, with
 * the same x; adds to the gradients. */
dls_status dls_mlp_2d_forward(dls_mlp_2d *m, void *y, const void *x);
dls_status dls_mlp_2d_backward(dls_mlp_2d *m, void *dx, const void *dy, const void *x);

/* Once per step: sums the biases' gradients over columns, and all over the depth. */
dls_status dls_mlp_2d_finish(dls_mlp_2d *m);

#ifdef __cplusplus
}
#endif
#endif

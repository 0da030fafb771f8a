/* code/parallel/tensor/summa.h: from chapters/06-tensor-2d.md. Edit the chapter, or edit here and run "make untangle". */
/* SUMMA: the three products of a linear layer on a grid. X (M, K), W (K, N), Y (M, N) and
 * their gradients are cut into q x q blocks, row-major and packed; every argument is this
 * rank's block. M: the rows of this layer of the grid.
 *
 * van de Geijn and Watts 1997, "SUMMA: scalable universal matrix multiplication
 * algorithm"; Xu and others 2021, "An efficient 2D method for training super-large deep
 * learning models" (Optimus), algorithms 1 to 3. */
#ifndef DLS_PARALLEL_TENSOR_SUMMA_H
#define DLS_PARALLEL_TENSOR_SUMMA_H

#include "parallel/tensor/grid.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare summa */
typedef struct dls_summa {
    dls_ctx *ctx;           // the compute stream, and the type of X, W and Y
    const dls_grid *grid;
    int M, K, N;            // of the whole matrices
    void *room;             // (dls_summa_room bytes), from dls_flat_buffer
} dls_summa;

/* Bytes for products of up to these sizes. */
size_t dls_summa_room(const dls_grid *grid, int M, int K, int N, dls_dtype dtype);

/* Y = X W. All three enqueue on the context's and the grid's stream, and what follows on
 * the context's finds the result. Collective over the layer. */
dls_status dls_summa_forward(const dls_summa *s, void *Y, const void *X, const void *W);

/* dX = dY W^T. */
dls_status dls_summa_input(const dls_summa *s, void *dX, const void *dY, const void *W);

/* dW += X^T dY. dW is of the accumulator type. */
dls_status dls_summa_weight(const dls_summa *s, void *dW, const void *X, const void *dY);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/tensor/mlp_1d.h: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Megatron's MLP as plain calls, to be measured beside the grid's: columns of the first
 * matrix and rows of the second on each rank, activations whole.
 * Shoeybi and others 2019, "Megatron-LM", section 3. */
#ifndef DLS_PARALLEL_TENSOR_MLP_1D_H
#define DLS_PARALLEL_TENSOR_MLP_1D_H

#include "comm/comm.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define an mlp in one dimension */
typedef struct dls_mlp_1d {
    dls_ctx *ctx;
    dls_comm *comm;             // NULL: one rank
    int M, h, f;                // rows, channels, this rank's part of hidden
    char *values, *grads;       // (h, f) and (f), then (f, h) and (h)
    size_t at[4];               // of each of these, in elements
    void *u, *a, *da;           // (M, f)
    cudaStream_t stream;
    cudaEvent_t made, summed;
} dls_mlp_1d;

dls_status dls_mlp_1d_open(dls_mlp_1d *m, dls_ctx *ctx, dls_comm *comm, int rows,
                           int channels, int hidden);
void dls_mlp_1d_close(dls_mlp_1d *m);

/* x, y, dx, dy: (M, h) on every rank, from dls_flat_buffer. Gradients are added to. */
dls_status dls_mlp_1d_forward(dls_mlp_1d *m, void *y, const void *x);
dls_status dls_mlp_1d_backward(dls_mlp_1d *m, void *dx, const void *dy, const void *x);

#ifdef __cplusplus
}
#endif
#endif

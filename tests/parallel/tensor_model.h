/* tests/parallel/tensor_model.h: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A transformer cut over a tensor axis against the same on one device. */
#ifndef DLS_TESTS_PARALLEL_TENSOR_MODEL_H
#define DLS_TESTS_PARALLEL_TENSOR_MODEL_H

#include "../comm/world.h"

#include "model/transformer.h"

/* define a tensor case */
enum { TM_V = 23, TM_B = 3, TM_T = 4, TM_N = TM_B * TM_T };

typedef struct tensor_case {
    int llama, untied, sequence, chunks;
    int layers;                     // 0: 2
    int heads, kv_heads, hidden;    // 0: 6, 6, the family's
    int split;                      // 1: backward in two halves
    dls_recompute recompute;
    double dropout;
    dls_dtype dtype;
} tensor_case;

/* define a tensor side */
typedef struct tensor_side {
    dls_ctx ctx;
    dls_transformer *model;
    dls_axes axes;
    int *ids;                       // tokens, then targets: device
    double losses[TM_N];
} tensor_side;

dls_transformer_config tensor_config(const tensor_case *c);

/* Over comm's ranks (NULL: whole); values from the seed 7. */
dls_status tensor_open(tensor_side *s, const tensor_case *c, dls_comm *comm);
dls_status tensor_forward(tensor_side *s, const tensor_case *c);    // and the losses
dls_status tensor_backward(tensor_side *s, const tensor_case *c);   // gradients: complete
void tensor_close(tensor_side *s);

/* The largest error of a gradient, relative to the largest element of its parameter. */
dls_status tensor_distance(const tensor_side *s, const tensor_side *truth,
                           double *distance);

/* Losses and every gradient against the truth: |a - b| <= relative |b| + absolute. */
dls_status tensor_compare(const tensor_side *cut, const tensor_side *whole,
                          double relative, double absolute);

/* A rank's part, for dls_run_ranks: two passes of a float64 case over all ranks against
 * the same on one device. */
dls_status tensor_prove(int rank, void *tensor_case);

#endif

/* code/layers/tensor_ends.h: from chapters/06-tensor-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* The ends of a cut product that stands alone. */
#ifndef DLS_LAYERS_TENSOR_ENDS_H
#define DLS_LAYERS_TENSOR_ENDS_H
#include "layers/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif
/* declare the ends */
/* (N, this rank's part of n columns) -> (N, n), the same on all ranks, and the other way;
 * the parts are those of a section of n units of width 1. For a pass with communicators,
 * also of a single rank. NULL after a failure. */
dls_layer *dls_gather_columns(dls_build *b, int n);
dls_layer *dls_split_columns(dls_build *b, int n);
#ifdef __cplusplus
}
#endif
#endif

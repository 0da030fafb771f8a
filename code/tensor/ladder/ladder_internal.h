/* code/tensor/ladder/ladder_internal.h: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to the ladder: the launchers of the nine steps. */
#ifndef DLS_TENSOR_LADDER_INTERNAL_H
#define DLS_TENSOR_LADDER_INTERNAL_H

#include "tensor/ladder/ladder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the steps */
typedef dls_status dls_ladder_launch(cudaStream_t stream, const dls_ladder_product *p);
dls_ladder_launch dls_ladder_naive, dls_ladder_coalesced, dls_ladder_shared;
dls_ladder_launch dls_ladder_column, dls_ladder_square, dls_ladder_vector;
dls_ladder_launch dls_ladder_pipeline, dls_ladder_warp, dls_ladder_tensor_core;

#ifdef __cplusplus
}
#endif
#endif

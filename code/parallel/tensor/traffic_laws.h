/* code/parallel/tensor/traffic_laws.h: from chapters/06-sequence-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* What a rank sends over the tensor axis, in closed form. */
#ifndef DLS_PARALLEL_TENSOR_TRAFFIC_LAWS_H
#define DLS_PARALLEL_TENSOR_TRAFFIC_LAWS_H

#include "parallel/tensor/activation_laws.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of one forward and backward pass; a block's is for each of them. */
typedef struct dls_tensor_traffic {
    uint64_t embedding, block, head, losses;
} dls_tensor_traffic;

/* By rings whose blocks are even: t divides B T. As c->sharding, c->recompute and
 * c->split_backward say; without tensor ranks all is 0. */
dls_tensor_traffic dls_law_tensor_traffic(const dls_transformer_config *c,
                                          const dls_kept_case *at);

#ifdef __cplusplus
}
#endif
#endif

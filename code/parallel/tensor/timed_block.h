/* code/parallel/tensor/timed_block.h: from chapters/06-tensor-parallelism-cost.md. Edit the chapter, or edit here and run "make untangle". */
/* One block of a transformer, cut over a tensor axis, on the clock. */
#ifndef DLS_PARALLEL_TENSOR_TIMED_BLOCK_H
#define DLS_PARALLEL_TENSOR_TIMED_BLOCK_H

#include "comm/comm.h"
#include "model/config.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the timed block */
/* Of one pass: seconds on the device's clock, of those with a collective under way, and
 * what this rank sent. */
typedef struct dls_block_pass { double seconds, sums; uint64_t operations, bytes; }
    dls_block_pass;

/* Runs a block of the model (c->sharding says how it is cut; comm: its tensor axis, NULL
 * for one rank) forward and backward on B sequences of T tokens, twice, and tells of the
 * second time, which is traced if `traced`. Weights and inputs are left as they lie. */
dls_status dls_time_block(dls_ctx *ctx, const dls_transformer_config *c, int B, int T,
                          dls_comm *comm, int traced, dls_block_pass *forward,
                          dls_block_pass *backward);

#ifdef __cplusplus
}
#endif
#endif

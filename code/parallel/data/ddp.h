/* code/parallel/data/ddp.h: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Distributed data parallel: gradients summed over ranks while the backward pass runs.
 *
 *   compute  ... | bwd 5 | bwd 4 | bwd 3 | bwd 2 | bwd 1 |wait| optimizer
 *   gradients            | bucket 0 |  bucket 1  | bucket 2 |
 *
 * A step: zero gradients; for each micro-batch forward and backward, the hook given to
 * the last one only; dls_ddp_finish; optimizer. Gradients are SUMMED: divide the loss by
 * the global batch. Li and others 2020, "PyTorch Distributed", section 3.2. */
#ifndef DLS_PARALLEL_DATA_DDP_H
#define DLS_PARALLEL_DATA_DDP_H

#include "comm/comm.h"
#include "layers/param.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare ddp */
typedef struct dls_ddp dls_ddp;

typedef struct dls_ddp_times { // virtual seconds, of one step on this rank
    double busy;     // the sum of the all-reduces' durations
    double exposed;  // how long the compute stream waited for them at the end
    double hidden;   // the share 1 - exposed / busy; 1 when there was none
} dls_ddp_times;

/* Collective. params (n) in registration order; flat_grads holds their gradients, of
 * the accumulator type, in memory from dls_gpu_alloc_shared. All must outlive the ddp.
 * bucket sizes in bytes. DLS_ERR_COMM: the ranks disagree about the parameters or the
 * buckets. */
dls_status dls_ddp_create(dls_ddp **out, dls_ctx *ctx, const dls_param *params, int n,
                          void *flat_grads, dls_comm *comm, size_t bucket_bytes,
                          size_t first_bucket_bytes);
void dls_ddp_destroy(dls_ddp *ddp); // after the streams are synchronised; NULL is fine

/* Collective. flat, with the parameters' offsets, := rank 0's. Enqueued on
 * ctx->stream. */
dls_status dls_ddp_broadcast(dls_ddp *ddp, void *flat, dls_dtype dtype);

/* The hook: the last addition to this gradient is on ctx->stream. DLS_ERR_STATE: reported
 * twice in a step. */
dls_status dls_ddp_grad_ready(void *ddp, int param_index);

/* From here on ctx->stream has the summed gradients. DLS_ERR_STATE when a gradient was
 * not reported; the message names it. */
dls_status dls_ddp_finish(dls_ddp *ddp);

/* The last finished step; ctx->stream must have been synchronised since. */
dls_status dls_ddp_timing(const dls_ddp *ddp, dls_ddp_times *out);

int dls_ddp_buckets(const dls_ddp *ddp);

#ifdef __cplusplus
}
#endif
#endif

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
#include "layers/sharding.h"
#include "parallel/data/hooks.h"
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

typedef struct dls_ddp_options {
    size_t bucket_bytes, first_bucket_bytes;
    dls_hook_options hook; // how a bucket is summed; zeroed: an all-reduce
    int narrow_grads;      // 1: gradients have the context's type, not its accumulator's
    int find_unused;       // 1: a gradient that nobody reports counts as it is
    int reorder;           // 1: from step 2 on, buckets leave as rank 0 completed them
    int count_examples;    // 1: divide by the examples that the ranks report
    int rows_of;           // 1: parameter 0 is summed in two parts (dls_ddp_touch)
    const dls_axes *axes;  // of a model that is cut: gradients are finished over them,
                           // and those of experts summed over their own copies
} dls_ddp_options;

/* Collective. params (n) in registration order; flat_grads holds their gradients, of
 * the accumulator type, in memory from dls_gpu_alloc_shared. All must outlive the ddp.
 * DLS_ERR_COMM: the ranks disagree about the parameters or the buckets. DLS_ERR_INPUT:
 * options of the hook out of range. */
dls_status dls_ddp_create(dls_ddp **out, dls_ctx *ctx, const dls_param *params, int n,
                          void *flat_grads, dls_comm *comm,
                          const dls_ddp_options *options);
void dls_ddp_destroy(dls_ddp *ddp); // after the streams are synchronised; NULL is fine

/* Collective. flat, with the parameters' offsets, := rank 0's (of experts: what the first
 * copy has). Enqueued on ctx->stream. */
dls_status dls_ddp_broadcast(dls_ddp *ddp, void *flat, dls_dtype dtype);

/* The hook: the last addition to this gradient is on ctx->stream. DLS_ERR_STATE: reported
 * twice in a step. */
dls_status dls_ddp_grad_ready(void *ddp, int param_index);

/* From here on ctx->stream has the summed gradients. DLS_ERR_STATE when a gradient was
 * not reported; the message names it. */
dls_status dls_ddp_finish(dls_ddp *ddp);

/* The last finished step; ctx->stream must have been synchronised since. */
dls_status dls_ddp_timing(const dls_ddp *ddp, dls_ddp_times *out);

/* What dls_ddp_create will take, on a communicator that may be imagined: its buffers,
 * and scratch memory on its own stream and on ctx->stream. dtype: of the context. */
dls_status dls_ddp_predict(const dls_param *params, int n, dls_dtype dtype,
                           dls_comm *comm, const dls_ddp_options *options,
                           dls_hook_memory *out);

int dls_ddp_buckets(const dls_ddp *ddp);
dls_hook *dls_ddp_hook(dls_ddp *ddp); // for what a loop must ask its hook

/* declare the hard cases */
/* While on, gradients that are reported are only noted as used; nothing is sent. For all
 * micro-batches of a step but the last. */
void dls_ddp_no_sync(dls_ddp *ddp, int on);

/* With find_unused, of the last finished step: 1 when any rank reported it. */
int dls_ddp_used(const dls_ddp *ddp, int param_index);

/* With count_examples: this rank's examples of the step, before dls_ddp_finish, and all
 * ranks' after it. Gradients are then the sum divided by that total. */
void dls_ddp_examples(dls_ddp *ddp, int64_t count);
int64_t dls_ddp_total(const dls_ddp *ddp);

/* A whole step of a rank that has no examples left. *more: some rank still had some.
 * Collective with the other ranks' steps; call until *more is 0. */
dls_status dls_ddp_join(dls_ddp *ddp, int *more);

/* buf (count), such as running means: := rank 0's at every dls_ddp_begin. At most 8. */
dls_status dls_ddp_add_buffer(dls_ddp *ddp, void *buf, size_t count, int dtype);
dls_status dls_ddp_begin(dls_ddp *ddp); // collective; before the forward pass

/* With options.rows_of: the rows (n, host) that the last addition to that parameter will
 * touch on this rank in the coming pass; collective. And the hook for additions that are
 * not the last (dls_pass.partial). */
dls_status dls_ddp_touch(dls_ddp *ddp, const int *rows, size_t n);
dls_status dls_ddp_grad_partial(void *ddp, int param_index);

#ifdef __cplusplus
}
#endif
#endif

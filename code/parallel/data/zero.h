/* code/parallel/data/zero.h: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* ZeRO and fully sharded data parallelism: stages 0 (all on every rank) to 3 (nothing
 * whole), over groups of ranks that share one copy of the training state.
 *
 *   rank 0 1 2 3 | 4 5 6 7      shard_size 4: two copies, in four slices each;
 *        reduce-scatter, all-gather -> within a group;  all-reduce of a slice -> 0 and 4
 *
 * The model is made `unplaced`, and announces its units to dls_zero_units. A step:
 * dls_zero_begin; for each micro-batch dls_zero_begin_pass, then forward and backward
 * with dls_zero_hook, or dls_zero_idle_pass; dls_zero_step. Gradients are SUMMED over all
 * ranks. Rajbhandari and others 2020, "ZeRO"; Zhao and others 2023, "PyTorch FSDP". */
#ifndef DLS_PARALLEL_DATA_ZERO_H
#define DLS_PARALLEL_DATA_ZERO_H

#include "comm/comm.h"
#include "kernels/adamw.h"
#include "layers/param.h"
#include "layers/sharding.h"
#include "parallel/data/ddp.h"
#include "parallel/data/shards.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the zero options */
typedef struct dls_zero dls_zero;

typedef struct dls_zero_options {
    int stage;            // cut: 0 nothing, 1 the optimizer, 2 gradients, 3 parameters
    int shard_size;       // ranks that share a copy; 0: all. A divisor of the world size
    int narrow_gradients; // bf16 only: gradients are sent and kept in bf16, not in f32
    int offload;          // 1: the optimizer's state and its work are the host's
    int prefetch;         // stage 3: units that are fetched ahead, 0 or more
    int keep_forward;     // stage 3: 1: units stay from the forward pass to the backward
    int lent;             // 1: stages 2, 3 make nothing whole by themselves: zero_lent.h
    dls_adamw_options adamw;
    const dls_axes *axes; // of a model that is cut: gradients are finished over them,
                          // and experts cut over the ranks that have copies of them
} dls_zero_options;

/* declare the memory of zero */
/* Device bytes of one rank, and what it sends. `buffers`: units while they are whole. */
typedef struct dls_zero_sizes {
    size_t parameters, gradients, optimizer, buffers;
    size_t host;        // the optimizer's, with offload
    double sent_bytes;  // in a step of one micro-batch, by ring algorithms
} dls_zero_sizes;

/* For `world` ranks. DLS_ERR_INPUT: options that contradict themselves. */
dls_status dls_zero_predict(const dls_param *params, int n, dls_dtype dtype, int world,
                            const dls_zero_options *options, dls_zero_sizes *out);

/* Device bytes that the collectives of a rank take besides: in the group that shares a
 * copy and among the copies, on the communication stream; for the norm, on the compute
 * stream. whole: 1: the first group is the world. */
typedef struct dls_zero_scratch {
    size_t shard, copies, norm;
    size_t tensor, kv;          // of finished gradients, on the communication stream
    size_t experts;             // in the group that shares a copy of experts, there, too
    int whole;
} dls_zero_scratch;

dls_status dls_zero_predict_scratch(const dls_param *params, int n, dls_dtype dtype,
                                    dls_comm *comm, const dls_zero_options *options,
                                    dls_zero_scratch *out); // comm may be imagined

/* declare zero */
/* Collective. Takes the memory of params (an unplaced set) and of the optimizer, all
 * zero. params and ctx must outlive it. DLS_ERR_COMM: the ranks disagree. */
dls_status dls_zero_create(dls_zero **out, dls_ctx *ctx, dls_params *params,
                           dls_comm *comm, const dls_zero_options *options);
void dls_zero_destroy(dls_zero *zero); // after the streams are synchronised; NULL is fine

const dls_unit_hook *dls_zero_units(const dls_zero *zero); // for dls_transformer_announce
const dls_grad_hook *dls_zero_hook(const dls_zero *zero);  // for every backward pass

/* Clears the gradients. */
dls_status dls_zero_begin(dls_zero *zero);

/* Before each pass of a step; last: 1 for the last of them, on every rank. */
dls_status dls_zero_begin_pass(dls_zero *zero, int last);

/* In place of forward and backward, for a rank that has no rows left: it takes part in
 * every collective of the pass with what it has. */
dls_status dls_zero_idle_pass(dls_zero *zero);

/* The same where the others only evaluate. */
dls_status dls_zero_idle_forward(dls_zero *zero);

/* Clips by the norm over all ranks, updates, and sends the new parameters. step counts
 * from 1. DLS_ERR_STATE when a gradient was not reported; the message names it. */
dls_status dls_zero_step(dls_zero *zero, double lr, int64_t step);

/* A step in two halves, where these parameters are a part of a model: the compute stream
 * waits for the gradients; an update with the gradient times *coefficient, device. */
dls_status dls_zero_finish(dls_zero *zero);
dls_status dls_zero_apply(dls_zero *zero, double lr, int64_t step,
                          const double *coefficient);

/* The norm of the last step's gradient before clipping: a double on the device. */
const double *dls_zero_norm(const dls_zero *zero);

/* The last step: its collectives, and how long the compute stream waited for them.
 * Values that stages 1 and 2 send at the end of a step are waited for in the next. */
dls_status dls_zero_timing(const dls_zero *zero, dls_ddp_times *out);

/* Waits for everything that was enqueued. */
dls_status dls_zero_sync(dls_zero *zero);

/* declare the state of zero */
/* The state of a rank: `count` slices of the flat model, elements first ... of it, which
 * lie at `at` in arrays of dls_zero_elements. With several copies of the state, those of
 * the first `shard_size` ranks are a whole one. */
typedef struct dls_zero_slice { size_t first, count, at; } dls_zero_slice;

int dls_zero_slices(const dls_zero *zero); // how many
dls_zero_slice dls_zero_slice_at(const dls_zero *zero, int i);
size_t dls_zero_elements(const dls_zero *zero);
int dls_zero_copy(const dls_zero *zero);   // which copy this rank belongs to: 0, ...

/* Values (unrounded), first and second moments: (elements) host, accumulator type. NULL:
 * not wanted; put takes NULL moments for zero. Both wait; put is collective. */
dls_status dls_zero_fetch(dls_zero *zero, void *values, void *m, void *v);
dls_status dls_zero_put(dls_zero *zero, const void *values, const void *m, const void *v);

/* Sets this rank's values from those of the whole model (elements of the flat model)
 * host, accumulator type, and the moments to zero. Collective. */
dls_status dls_zero_start(dls_zero *zero, const void *values);

/* The summed gradients of slice i, (count) device, of *dtype; of the last finished
 * step. */
const void *dls_zero_gradient(const dls_zero *zero, int i, dls_dtype *dtype);

#ifdef __cplusplus
}
#endif
#endif

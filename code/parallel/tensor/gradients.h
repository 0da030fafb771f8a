/* code/parallel/tensor/gradients.h: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* What the tensor axis adds to a gradient before the data axis does, and which elements
 * of a cut model a rank counts.
 */
#ifndef DLS_PARALLEL_TENSOR_GRADIENTS_H
#define DLS_PARALLEL_TENSOR_GRADIENTS_H

#include "layers/param.h"
#include "layers/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the stretches */
/* A stretch of the flat buffers of a parameter set, elements first ... first + count - 1.
 * Zeroed before the first call, then handed back as it is. */
typedef struct dls_stretch {
    size_t first, count;
    int owed;                   /* to which group: one of the next */
    int param, part;            /* where the walk stands */
} dls_stretch;

enum { DLS_OWED_NOTHING, DLS_OWED_TENSOR, DLS_OWED_KV };

/* The next stretch of params (n) whose gradients are only a share of a sum over ranks of
 * the tensor axis. 0: no more. */
int dls_owed_next(const dls_param *params, int n, dls_stretch *s);

/* A rank's number among those that have the same elements: along the axis that cuts them
 * and among the copies; and the same for experts. Zeroed: one device. */
typedef struct dls_counter {
    int tensor_rank, copy, expert_tensor_rank, expert_copy;
} dls_counter;

/* The next stretch that this rank counts, in a norm or a checkpoint: over the ranks each
 * element once. Leaves out `skip` (NULL: nobody) and, with learning 1, what is frozen.
 * 0: no more. */
int dls_counted_next(const dls_param *params, int n, const dls_counter *who,
                     const dls_param *skip, int learning, dls_stretch *s);

/* declare finishing */
/* Enqueues the sums that the gradients of params (n, side by side in the flat buffer) are
 * still owed. dtype: of the gradients. Once between the last addition to them and the sum
 * over the data axis; in the same order on all ranks of the tensor axis. axes may be
 * NULL: one device, which owes nothing. */
dls_status dls_tensor_finish(const dls_axes *axes, const dls_param *params, int n,
                             int dtype, cudaStream_t stream);

/* The elements of a parameter on the rank of the tensor axis (t ranks) that has most. */
size_t dls_tensor_most(const dls_param *p, int t);

/* Bytes of scratch memory of these sums, over groups that may be imagined: *tensor and
 * *kv grow to as much. axes may be NULL. */
dls_status dls_tensor_finish_scratch(const dls_axes *axes, const dls_param *params, int n,
                                     int dtype, size_t *tensor, size_t *kv);

#ifdef __cplusplus
}
#endif
#endif

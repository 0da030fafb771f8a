/* code/parallel/expert/copies.h: from chapters/08-expert-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* Who has copies of an expert, and who of everything else: two groups, and all that is
 * summed, spread or counted over copies goes by one or the other.
 */
#ifndef DLS_PARALLEL_EXPERT_COPIES_H
#define DLS_PARALLEL_EXPERT_COPIES_H

#include "layers/param.h"
#include "layers/sharding.h"
#include "parallel/tensor/gradients.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the groups of copies */
/* Tells the axes who has copies: data over dp x cp, expert_data over edp, both numbered
 * along them. One communicator for both: the same ranks. The caller's. */
void dls_axes_add_copies(dls_axes *axes, dls_comm *data, dls_comm *expert_data);

/* The group with copies of a parameter. data: of all but experts; axes may be NULL. */
dls_comm *dls_copies_of(const dls_axes *axes, dls_comm *data, const dls_param *p);

/* Ranks over which ZeRO cuts experts; 0: as everything else. */
int dls_copies_expert_ways(const dls_axes *axes);

/* declare what goes over copies */
/* The next stretch of params (n) whose copies are in one group, s->owed 2 if that is
 * edp, else 1. 0: no more. */
int dls_copies_next(const dls_axes *axes, const dls_param *params, int n, dls_stretch *s);

/* Sums the gradients of params (n, side by side at `flat`) over their copies; or sets
 * flat to what the first copy has. Enqueued; collective over both groups. */
dls_status dls_copies_sum(const dls_axes *axes, dls_comm *data, const dls_param *params,
                          int n, void *flat, int dtype, cudaStream_t stream);
dls_status dls_copies_broadcast(const dls_axes *axes, dls_comm *data,
                                const dls_param *params, int n, void *flat, int dtype,
                                cudaStream_t stream);

/* Bytes of scratch memory of the sum, in the two groups, which may be imagined:
 * *of_data and *of_experts grow to as much. */
dls_status dls_copies_scratch(const dls_axes *axes, dls_comm *data,
                              const dls_param *params, int n, int dtype, size_t *of_data,
                              size_t *of_experts);

/* declare who counts */
/* What this rank counts of a norm, and the group over which the parts are added; NULL:
 * there is no other part. sliced 1: ZeRO has cut the copies, so that no two ranks of a
 * group have the same elements. axes may be NULL. */
dls_counter dls_copies_counter(const dls_axes *axes, int sliced);
dls_comm *dls_copies_counted_over(const dls_axes *axes);

#ifdef __cplusplus
}
#endif
#endif

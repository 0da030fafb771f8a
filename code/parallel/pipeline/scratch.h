/* code/parallel/pipeline/scratch.h: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Scratch memory of a pipeline's collectives, of groups that are real or imagined. */
#ifndef DLS_PARALLEL_PIPELINE_SCRATCH_H
#define DLS_PARALLEL_PIPELINE_SCRATCH_H

#include "layers/param.h"
#include "layers/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* list the groups of a pipeline */
/* NULL: not there. table: elements of a tied table, which `tied` sums; 0: none. */
typedef struct dls_pipeline_groups {
    dls_comm *pipe, *data, *mirror, *tied;
    const dls_axes *axes;
    size_t table;
    size_t tally;               /* numbers that `mirror` sums for experts; 0: none */
} dls_pipeline_groups;

/* declare the scratch of a pipeline */
/* Bytes: on the stream of the reduction, and on that of the computation. */
typedef struct dls_pipeline_scratch {
    size_t data, experts, mirror, tensor, kv;
    size_t tied, pipe, tally;
} dls_pipeline_scratch;

/* A pipeline without stages yet; and what a stage's parameters add. zero: ZeRO sums them
 * over data, in scratch memory of its own. */
dls_status dls_pipeline_scratch_begin(const dls_pipeline_groups *g,
                                      dls_pipeline_scratch *out);
dls_status dls_pipeline_scratch_add(const dls_pipeline_groups *g, const dls_param *params,
                                    int n, int dtype, int zero,
                                    dls_pipeline_scratch *out);

size_t dls_pipeline_scratch_sum(const dls_pipeline_scratch *s);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/pipeline/interpreter_private.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* What the sources of the interpreter share, and nobody else. */
#ifndef DLS_PARALLEL_PIPELINE_INTERPRETER_PRIVATE_H
#define DLS_PARALLEL_PIPELINE_INTERPRETER_PRIVATE_H

#include "parallel/pipeline/interpreter.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sums a stage's gradients over the replicas, beside the computation. Once per step. */
dls_status dls_pipeline_reduce(dls_pipeline *p, int stage);

/* The optimizer's step of a stage. The first of a step brings all gradients together. */
dls_status dls_pipeline_update(dls_pipeline *p, int stage);

/* The same where steps come while others are under way, and the version of the weights
 * for an F, I or B; NULL: the only one. */
dls_status dls_pipeline_step_alone(dls_pipeline *p, int stage);
dls_status dls_pipeline_version(dls_pipeline *p, const dls_action *a, dls_params **out);

/* declare the sum of parts */
/* *sum (device) over the tensor axis: the squares of a stage whose parameters are cut. */
dls_status dls_pipeline_sum_parts(dls_pipeline *p, double *sum);

/* declare steps on trust */
/* With validation: hands this rank's square sum on and steps on trust; may action i run
 * before the verdict; the verdict, after which *again says to begin the list again. */
dls_status dls_pipeline_open_validation(dls_pipeline *p);
void dls_pipeline_close_validation(dls_pipeline *p);
dls_status dls_pipeline_trust(dls_pipeline *p);
int dls_pipeline_may_trust(const dls_pipeline *p, size_t i);
dls_status dls_pipeline_verdict(dls_pipeline *p, int *again);

/* An F, I, W or B, between its buffers. */
dls_status dls_pipeline_pass(dls_pipeline *p, const dls_action *a);

/* Once, when the stages are there; both passes of a pair, in turns; at the end. */
dls_status dls_pairs_open(dls_pipeline *p);
dls_status dls_pairs_run(dls_pipeline *p, const dls_action *pair);
void dls_pairs_close(dls_pipeline *p);

/* Elements of a micro-batch's rows: 0 if the batch has none for it. */
size_t dls_pipeline_count(const dls_pipeline *p, int microbatch);

/* Marks the compute stream: before (2 i) and behind (2 i + 1) action i; and the start. */
dls_status dls_pipeline_mark(dls_pipeline *p, size_t i);
dls_status dls_pipeline_mark_base(dls_pipeline *p);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/pipeline/check.h: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The static proof of a schedule, with or without its messages: it names the offending
 * action, and the cycle when ranks would wait for each other. */
#ifndef DLS_PARALLEL_PIPELINE_CHECK_H
#define DLS_PARALLEL_PIPELINE_CHECK_H

#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the checker */
/* Proves that every pass is done once, on its own rank, after what it needs on that
 * rank; that no ranks wait for each other in a cycle; and that no rank's memory passes
 * s->options.limit (0: none). Where there is no backward at all, s->backward says whether
 * one was to be expected.
 *
 * With messages in it, also that each goes out after it was computed and comes in before
 * it is used, in the same order at both ends, and that sends which wait until they are
 * received (the strictest of all transports) form no cycle; that a stage computes only
 * while its shards are gathered; that it is reduced after its last gradient.
 *
 * Errors: DLS_ERR_INPUT "rank R: ACTION ...". *rank, unless NULL, is R; -1 if none. */
dls_status dls_schedule_check(const dls_schedule *s, int *rank);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/pipeline/check_internal.h: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Between the files of the checker. */
#ifndef DLS_PARALLEL_PIPELINE_CHECK_INTERNAL_H
#define DLS_PARALLEL_PIPELINE_CHECK_INTERNAL_H

#include "parallel/pipeline/walk.h"

/* What a check knows: where each pass stands in its rank's list, from 1 on; 0: nowhere.
 * A B stands for both of its passes. */
typedef struct dls_check {
    const dls_schedule *s;
    uint32_t *place;  // [DLS_PASSES * stages * microbatches]
    int rank;         // of the fault
} dls_check;

/* Fails with "rank R: ACTION " and `why`. */
dls_status dls_check_fail(dls_check *c, int rank, const dls_action *a, const char *why);

/* The messages of a lowered schedule, and what belongs to stages as a whole. */
dls_status dls_check_messages(dls_check *c);
dls_status dls_check_stages(dls_check *c);

#endif

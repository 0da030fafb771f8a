/* code/parallel/pipeline/report_json.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* An evaluation as JSON, from integers. */
#ifndef DLS_PARALLEL_PIPELINE_REPORT_JSON_H
#define DLS_PARALLEL_PIPELINE_REPORT_JSON_H

#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/request.h"
#include "parallel/pipeline/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One object: schedule, stages, microbatches, chunks, makespan, span, ideal, idle and
 * peak per rank, the bubble by three conventions, the order, how many copies of the
 * parameters there are, and what the peak counts activations of. `name` is UTF-8. */
dls_status dls_report_json(const char *name, const dls_schedule *s,
                           const dls_evaluation *e, dls_units u, dls_text *out);

/* The actions of a rank, `quote` around each and `between` two. */
void dls_report_order(const dls_actions *a, const char *quote, const char *between,
                      dls_text *out);

#ifdef __cplusplus
}
#endif
#endif

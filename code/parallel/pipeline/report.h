/* code/parallel/pipeline/report.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* An evaluation as text and as a row of a table. */
#ifndef DLS_PARALLEL_PIPELINE_REPORT_H
#define DLS_PARALLEL_PIPELINE_REPORT_H

#include <stdio.h>

#include "base/table.h"
#include "parallel/pipeline/report_json.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the reports */
/* Two tables, and with `order` every rank's actions. */
dls_status dls_report_text(const char *name, const dls_schedule *s,
                           const dls_evaluation *e, dls_units u, int order, FILE *out);

/* What a table has no column for: parameters held twice, peaks that count chunks. */
void dls_report_notes(const char *name, const dls_schedule *s, dls_text *out);

/* A table for several, and a row of it. */
dls_status dls_report_table(dls_table **out);
void dls_report_row(const char *name, const dls_schedule *s, const dls_evaluation *e,
                    dls_units u, dls_table *t);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/pipeline/csv.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Schedules as CSV: a line per rank, a cell per action; empty cells mean nothing.
 *
 *   0F0,0F1,,,0B0,0B1
 *   ,1F0,1B0,1F1,1B1
 *
 * A pair that runs together is (1F1;0B0)OVERLAP_F_B; sends and receives that are posted
 * together are (1SEND_F0;1RECV_B0)BATCH.
 */
#ifndef DLS_PARALLEL_PIPELINE_CSV_H
#define DLS_PARALLEL_PIPELINE_CSV_H

#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare csv */
/* *text is malloc'ed and the caller's to free. */
dls_status dls_schedule_to_csv(const dls_schedule *s, char **text, size_t *size);

/* Ranks are the lines, micro-batches and stages what the actions name; the placement is
 * the one that fits best. Costs and memory are the defaults. `file` stands in messages.
 * Errors: DLS_ERR_INPUT "FILE:LINE: cell 3: ...". Not checked for validity. */
dls_status dls_schedule_from_csv(const char *file, const char *text, size_t size,
                                 dls_schedule *out);

/* The text of a unit, "2F0" or "(2F0;1B3)OVERLAP_F_B", without room for more than n
 * characters: the length it has, as snprintf. */
size_t dls_unit_text(const dls_action *list, size_t count, char *out, size_t n);

/* declare the text of a unit */
/* What closes it: ")OVERLAP_F_B" or ")BATCH". */
const char *dls_unit_tail(const dls_action *first);

#ifdef __cplusplus
}
#endif
#endif

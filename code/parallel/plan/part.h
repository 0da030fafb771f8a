/* code/parallel/plan/part.h: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* What a stretch of operations costs: three numbers that can be put one after another.
 *
 *   host    |launch|launch|launch|                 host: its time
 *   device          |  op  |   op   |     op   |   device: its time when never waiting
 *           <----------- late ---------------->    late: from the host's first launch on
 */
#ifndef DLS_PARALLEL_PLAN_PART_H
#define DLS_PARALLEL_PLAN_PART_H

#include "vgpu/record.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a part */
typedef struct dls_part {
    double device, host, late;  // s
    double talk;                // of device: s in which its stream waited for others
    double flops;
} dls_part;

/* declare the parts */
/* Nothing at all; one after the other; n times the same. */
dls_part dls_part_nothing(void);
dls_part dls_part_then(dls_part a, dls_part b);
dls_part dls_part_times(dls_part a, int n);

/* Of recorded operations, whose last and only lasting stream is `stream`. latency: from a
 * launch to a start (s). DLS_ERR_MEMORY. */
dls_status dls_part_fold(const dls_gpu_note *notes, int n, double host, int stream,
                         double latency, dls_part *out);

/* When the host is at *host and the device free at *free, runs the part: moves both. */
void dls_part_run(const dls_part *part, double *host, double *free);

#ifdef __cplusplus
}
#endif
#endif

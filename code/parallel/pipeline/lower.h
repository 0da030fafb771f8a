/* code/parallel/pipeline/lower.h: from chapters/05-pipeline-evaluate-lower.md. Edit the chapter, or edit here and run "make untangle". */
/* Lowering: what a schedule of computations leaves unsaid is put in, pass by pass. Each
 * pass is a pure function from one schedule to another.
 *
 *   0F0 0F1 0B0 0B1
 *   updates    0F0 0F1 0B0 0B1 0REDUCE_GRAD 0STEP
 *   shards     0UNSHARD 0F0 ... 0B1 0REDUCE_GRAD 0RESHARD 0STEP
 *   messages   0UNSHARD 0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 ...
 *   batches    ... (0SEND_F1;0RECV_B0)BATCH 0B0 ...
 */
#ifndef DLS_PARALLEL_PIPELINE_LOWER_H
#define DLS_PARALLEL_PIPELINE_LOWER_H

#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the passes */
/* A REDUCE_GRAD behind a stage's last gradient of a step, and a STEP: at the end of the
 * list, or where s->step_every says that steps come more often. Nothing for inference. */
dls_status dls_lower_updates(const dls_schedule *in, dls_schedule *out);

/* An UNSHARD before and a RESHARD behind each time that a stage is used, so that at most
 * `most` stages of a rank are gathered; the next ones are gathered ahead. For a stage
 * whose parameters are sharded between uses. */
dls_status dls_lower_shards(const dls_schedule *in, int most, dls_schedule *out);

/* How many stages of a rank are gathered at the same time, at most. */
int dls_schedule_gathered(const dls_schedule *s, int rank);

/* A SEND behind every result that another rank waits for, and a RECV there, in an order
 * in which even sends that wait for their receiver never form a cycle. The places of the
 * receives follow the costs of in->options. */
dls_status dls_lower_messages(const dls_schedule *in, dls_schedule *out);

/* Neighbouring sends and receives with the same peer become one batch. */
dls_status dls_lower_batches(const dls_schedule *in, dls_schedule *out);

/* All of them; shards only when most > 0. Errors: DLS_ERR_INPUT for a schedule that has
 * messages already, or can not be evaluated. */
dls_status dls_lower(const dls_schedule *in, int most, dls_schedule *out);

#ifdef __cplusplus
}
#endif
#endif

/* code/parallel/pipeline/auto.h: from chapters/05-pipeline-zero-bubble-auto.md. Edit the chapter, or edit here and run "make untangle". */
/* A zero bubble schedule for given times, unequal ones too, in a given memory. */
#ifndef DLS_PARALLEL_PIPELINE_AUTO_H
#define DLS_PARALLEL_PIPELINE_AUTO_H

#include "parallel/pipeline/schedule.h"

/* define the clock of a rank */
typedef struct dls_auto_rank {
    int n[3];               // placed: F, I, W
    int64_t first, free_at;  // start of its first pass, end of its last one
    int64_t held, idle;     // idle: waited since its first pass
} dls_auto_rank;

/* define the state of a plan */
typedef struct dls_auto {
    const dls_schedule_options *o;
    int64_t limit;        // of a rank's memory
    int greedy_warm_up;   // a forward before I 0 even where it delays it
    int skip_forwards;    // leave a forward out where the next rank has enough
    int greedy_w;         // W into a gap that is too short for it
    dls_auto_rank *rank;  // [ranks]
    int64_t *end;         // [2][ranks][microbatches]: of F and I
    dls_actions *order;   // [ranks]
} dls_auto;

/* declare placing */
/* Ticks of an F, I or W on a rank. */
int64_t dls_auto_ticks(const dls_auto *a, int rank, dls_action_kind kind);

/* When an F or I that is placed ends. */
int64_t dls_auto_end(const dls_auto *a, int rank, dls_action_kind kind, int microbatch);

/* When what the rank's next pass of this kind needs arrives; that must be placed. */
int64_t dls_auto_arrival(const dls_auto *a, int rank, dls_action_kind kind);

/* Places the rank's next pass of this kind, as early as it can run. */
dls_status dls_auto_place(dls_auto *a, int rank, dls_action_kind kind);

/* The gradients of weights that may run now, and the longest wait of any rank. */
int dls_auto_pending(const dls_auto *a, int rank);
int64_t dls_auto_idle(const dls_auto *a);

/* The heuristic's best schedule, and its span: the longest of the ranks' last end less
 * own first start. Errors: DLS_ERR_INPUT for a limit below one forward. */
dls_status dls_auto_make(const dls_schedule_options *o, dls_actions *out, int64_t *span);

/* F of the first micro-batches, up to I 0 of every rank; then a round, does[ranks]. */
dls_status dls_auto_warm_up(dls_auto *a);
dls_status dls_auto_round(dls_auto *a, uint8_t *does);

#endif

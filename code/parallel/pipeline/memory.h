/* code/parallel/pipeline/memory.h: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* What the micro-batches of a rank take while a schedule runs: a replay on the host of
 * the interpreter's takes and gives.
 */
#ifndef DLS_PARALLEL_PIPELINE_MEMORY_H
#define DLS_PARALLEL_PIPELINE_MEMORY_H

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/stage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the replay */
typedef struct dls_replay {
    const dls_schedule *schedule;   /* lowered */
    const dls_stage_bytes *bytes;   /* [stages]; used: those of the rank */
    int rank, cut;                  /* cut 1: blocks go round, see stage.c */
    int rows, micro;                /* of a step: micro-batch i has rows i * micro ... */
    int together;                   /* 1: those without rows as well */
    int steps, evaluates;           /* 1: with an evaluation of one micro-batch behind */
} dls_replay;

typedef struct dls_replayed {
    size_t activations;         /* bytes of slots and working memory at their peak */
    int messages;               /* buffers for rows on their way */
} dls_replayed;

/* DLS_ERR_MEMORY. */
dls_status dls_pipeline_replay(const dls_replay *r, dls_replayed *out);

#ifdef __cplusplus
}
#endif
#endif

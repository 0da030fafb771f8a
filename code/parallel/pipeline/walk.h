/* code/parallel/pipeline/walk.h: from chapters/05-pipeline-evaluate.md. Edit the chapter, or edit here and run "make untangle". */
/* One walk over a schedule's actions in an order in which they can happen; the evaluator,
 * the checker and the lowering all go along it. Linear in the number of actions.
 *
 *   dls_walk w;
 *   DLS_TRY(dls_walk_open(s, &w));
 *   while (dls_walk_next(&w, &unit)) ...
 *   dls_walk_close(&w);
 */
#ifndef DLS_PARALLEL_PIPELINE_WALK_H
#define DLS_PARALLEL_PIPELINE_WALK_H

#include "parallel/pipeline/schedule.h"

/* define what waits for what */
/* A pass: one stage, one micro-batch, one of three directions. I and B are the same
 * pass, for whoever waits for a gradient; B is also the third. */
enum { DLS_PASS_F, DLS_PASS_I, DLS_PASS_W, DLS_PASSES };

/* declare what waits for what */
/* Its place in a table of DLS_PASSES * stages * microbatches. */
size_t dls_pass_index(const dls_schedule *s, int pass, int stage, int microbatch);

/* The passes that `a` waits for, as actions F or I; how many: 0, 1 or 2. */
int dls_action_needs(const dls_schedule *s, const dls_action *a, dls_action needs[2]);

/* The rank that waits for a result of `a`, or -1. It may be the same rank. */
int dls_action_feeds(const dls_schedule *s, const dls_action *a);

/* How many actions from list[at] on run together. */
size_t dls_actions_unit(const dls_actions *a, size_t at);

/* define a walk */
typedef struct dls_unit { int rank; size_t first, count; } dls_unit;

/* How many results of the unit, before that of its i-th action, go to the same other
 * rank. 0 for one that stays. */
size_t dls_unit_ahead(const dls_schedule *s, const dls_unit *u, size_t i);

typedef struct dls_walk {
    const dls_schedule *s;
    size_t *at;       // [ranks]: the next of its list
    uint8_t *done;    // [DLS_PASSES * stages * microbatches]
    int *queue;       // [ranks]: a ring of those that may go on
    uint8_t *queued;  // [ranks]
    int head, count;
} dls_walk;

/* declare a walk */
/* Errors: DLS_ERR_INPUT for an action whose stage or micro-batch is out of range. */
dls_status dls_walk_open(const dls_schedule *s, dls_walk *w);

/* The next unit that can happen; 0 at the end, or when no rank can go on. */
int dls_walk_next(dls_walk *w, dls_unit *unit);

/* A rank that has not come to its end, or -1. */
int dls_walk_stuck(const dls_walk *w);

/* The pass that the rank's next unit lacks: waiting action and what it waits for. */
int dls_walk_blocked(const dls_walk *w, int rank, dls_action *waits, dls_action *for_it);
void dls_walk_close(dls_walk *w);

#endif

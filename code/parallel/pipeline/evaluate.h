/* code/parallel/pipeline/evaluate.h: from chapters/05-pipeline-evaluate.md. Edit the chapter, or edit here and run "make untangle". */
/* What a schedule costs: when each action runs, how long ranks idle, what they hold. */
#ifndef DLS_PARALLEL_PIPELINE_EVALUATE_H
#define DLS_PARALLEL_PIPELINE_EVALUATE_H

#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define an evaluation */
/* Times in ticks, memory in the units of the schedule's options. */
typedef struct dls_evaluation {
    int ranks;
    int64_t makespan;  // the end of the last action
    int64_t span;      // the longest of the ranks' last end - own first start
    int64_t ideal;     // the busiest rank's work, were it never to wait or overlap
    int64_t *busy;     // [ranks]: time in actions; idle is makespan - busy
    int64_t *peak;     // [ranks]
    int64_t **start;   // [ranks][actions], in the order of the lists
    int64_t **end;
} dls_evaluation;

/* declare the evaluator */
/* Every action starts as soon as its rank is free and what it waits for has arrived: a
 * hop after its end, from another rank. Sends and receives take no time of a rank, nor
 * does what belongs to a stage as a whole. Exact, and linear in the number of actions.
 * Errors: DLS_ERR_INPUT for costs that are negative or too large for 64-bit ticks, and
 * for an order in which no rank can go on. */
dls_status dls_evaluate(const dls_schedule *s, dls_evaluation *out);
void dls_evaluation_free(dls_evaluation *e);

/* declare the parts of an evaluation */
/* One with room for the times of all actions, zero. */
dls_status dls_evaluation_empty(const dls_schedule *s, dls_evaluation *out);

/* Fills makespan, span and busy from start and end: for times that were measured, too. */
void dls_evaluation_sum(const dls_schedule *s, dls_evaluation *e);

/* Ticks of F, I, W or B of a stage; 0 for the rest. */
int64_t dls_action_ticks(const dls_schedule *s, const dls_action *a);

/* What an action adds to its rank's memory when it starts, and frees when it ends. */
int64_t dls_action_takes(const dls_pipeline_memory *m, const dls_action *a);
int64_t dls_action_frees(const dls_pipeline_memory *m, const dls_action *a);

#ifdef __cplusplus
}
#endif
#endif

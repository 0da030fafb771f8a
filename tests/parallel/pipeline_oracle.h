/* tests/parallel/pipeline_oracle.h: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A second opinion on schedules: a simulator that shares nothing with the evaluator. */
#ifndef PIPELINE_ORACLE_H
#define PIPELINE_ORACLE_H

#include "parallel/pipeline/schedule.h"

enum { ORACLE_RANKS = 64 };

typedef enum oracle_verdict {
    ORACLE_RUNS,
    ORACLE_STUCK,  // ranks wait for each other
    ORACLE_WRONG   // an action is missing, there twice, or on the wrong rank
} oracle_verdict;

typedef struct oracle {
    oracle_verdict verdict;         // what follows holds if it runs
    int64_t makespan, span;         // span: the longest rank, first start to last end
    int64_t idle[ORACLE_RANKS];     // of the makespan
    int peak[ORACLE_RANKS];         // micro-batches held, of all chunks together
    int64_t latest[ORACLE_RANKS];   // the end of the rank's last action
} oracle;

/* Runs the lists with these times; of_stage as in dls_pipeline_costs, or NULL. */
oracle oracle_run(const dls_schedule *s, int64_t F, int64_t I, int64_t W, int64_t hop);
oracle oracle_run_costs(const dls_schedule *s, const dls_pipeline_costs *cost);

/* Makes, runs and frees; asserts that it can be made and that it runs. */
oracle oracle_of(const dls_schedule_options *o, int64_t F, int64_t I, int64_t W,
                 int64_t hop);

#endif

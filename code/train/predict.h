/* code/train/predict.h: from chapters/07-planner-time.md. Edit the chapter, or edit here and run "make untangle". */
/* What a run will take, before it is started: seconds of a step, by cause.
 *
 *   dls_predict_costs     records the stages of a layout once          (predict_costs.c)
 *   dls_predict_play      plays a step of all pipeline ranks with them (predict_play.c)
 *   dls_predict_step      plays it again and again, each time without one of the causes
 */
#ifndef DLS_TRAIN_PREDICT_H
#define DLS_TRAIN_PREDICT_H

#include "parallel/pipeline/schedule.h"
#include "parallel/plan/unit.h"
#include "train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the costs of a step */
/* How the data axis sums gradients: in pieces, of which each waits for a unit's backward
 * pass, or for the whole one of the stage. */
typedef struct dls_grad_sum {
    int unit;               // whose backward pass completes it
    double seconds;         // of the sum
    double back;            // ZeRO: of the new values on their way back
    int held;               // ZeRO: another unit uses it, so that it stays
    int stretches;          // ZeRO: launches of the optimizer for a slice
} dls_grad_sum;

/* Of one stage. `rest`: for the last micro-batch of a step, if it is smaller. */
typedef struct dls_stage_costs {
    dls_planned_unit full, rest;
    dls_grad_sum *sum;           // [sums]
    int sums;
} dls_stage_costs;

typedef struct dls_step_costs {
    const dls_train_config *c;
    dls_planner *planner;
    dls_device_spec device;
    dls_mesh mesh;
    dls_schedule schedule;
    int *first;             // [stages + 1]: the units of each
    int ways;               // ranks of the data axis
    int replicas;           // that differ in their links; 1: none does
    int *sharers;           // [ways]: who sums gradients together, of the stage asked for
    size_t scratch, tied_scratch;   // bytes of the data axis' communicator; of the pair's
    int rows, microbatches; // sequences of a replica; passes that have any
    int T;                  // tokens of a sequence on one rank
    dls_stage_costs *stage; // [stages]
    dls_link_spec *hop;     // [replicas][pp * pp]
    double row_bytes;       // of a message, per sequence
    double norm, tied;      // s: of the sums of squares; of a tied table's gradients
    int tied_stages;        // 1: the table is on two ranks
    dls_part before, pass, behind;  // the trainer's own: per step, per pass, per step
    dls_planned_unit *unit; // [layers + 2]: where sums wait for units; else NULL
    dls_planned_unit *unit_rest;
} dls_step_costs;

/* define what is left out */
/* Bits: what takes no time. */
enum {
    DLS_WITHOUT_LAUNCHES = 1,   // the host is always ahead
    DLS_WITHOUT_DATA = 2,       // sums over the data axis
    DLS_WITHOUT_TALK = 4,       // communication inside of a unit
    DLS_WITHOUT_HOPS = 8        // messages between stages
};

/* define a prediction */
/* Seconds of a step and their causes, which add up to them. */
typedef enum dls_cause {
    DLS_CAUSE_COMPUTE, DLS_CAUSE_RECOMPUTE, DLS_CAUSE_UPDATE, DLS_CAUSE_BUBBLE,
    DLS_CAUSE_TENSOR, DLS_CAUSE_DATA, DLS_CAUSE_HOPS, DLS_CAUSE_LAUNCH, DLS_CAUSES
} dls_cause;

typedef struct dls_predicted {
    double seconds, cause[DLS_CAUSES];
    double flops;               // of all ranks, as they will be executed
    double model_flops;         // without what is computed again
    double mfu;                 // of the latter, and the peak of all devices
} dls_predicted;

/* declare the predictions */
/* The costs of a step of `world` ranks. DLS_ERR_INPUT: an impossible layout, or one whose
 * time is not predicted (asynchronous schedules, Chimera, hooks, offload).
 * DLS_ERR_MEMORY: a stage does not fit. */
dls_status dls_predict_costs(dls_planner *planner, const dls_train_config *c, int world,
                             dls_step_costs *out);
void dls_predict_costs_free(dls_step_costs *k);

/* Seconds between the ends of two steps, `without` some causes. */
dls_status dls_predict_play(const dls_step_costs *k, int without, double *seconds);

/* Device bytes of a rank of the pipeline by purpose; and of the one that has most. */
void dls_predict_memory(const dls_step_costs *k, int rank,
                        size_t bytes[DLS_MEM_PURPOSES]);
size_t dls_predict_most(const dls_step_costs *k, size_t bytes[DLS_MEM_PURPOSES]);

/* The same to the byte, by the program's own lists: slower, and for up to 64 ranks. */
dls_status dls_predict_exactly(const dls_step_costs *k, int rank,
                               size_t bytes[DLS_MEM_PURPOSES]);

/* All of it. */
dls_status dls_predict_step(dls_planner *planner, const dls_train_config *c, int world,
                            dls_predicted *out);

const char *dls_cause_name(dls_cause cause);

#ifdef __cplusplus
}
#endif
#endif

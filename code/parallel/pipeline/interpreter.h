/* code/parallel/pipeline/interpreter.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* Runs a lowered schedule over the stages of a model: one step of training.
 *
 *   world = data x pipe:  rank = replica * ranks of the schedule + rank in the schedule
 */
#ifndef DLS_PARALLEL_PIPELINE_INTERPRETER_H
#define DLS_PARALLEL_PIPELINE_INTERPRETER_H

#include "kernels/adamw.h"
#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/p2p.h"
#include "parallel/pipeline/pairs.h"
#include "parallel/pipeline/stage.h"
#include "parallel/pipeline/update.h"
#include "parallel/pipeline/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the options of a pipeline */
typedef struct dls_pipeline_options {
    const dls_transformer_config *model;    /* the whole; split_backward is set here */
    const dls_schedule *schedule;   /* lowered; kept by pointer */
    const int *partition;           /* [stages + 1], partition.h */
    dls_model_maker *make;          /* NULL: dls_transformer_create */
    int max_B, T;                   /* of a micro-batch; T: this rank's tokens */
    const dls_axes *axes;           /* of model->sharding; NULL: not cut */
    const int *positions;           /* (max_B, T) device: of these tokens in their
                                       sequences of T_whole; NULL: 0 ... T-1 */
    int T_whole;
    dls_adamw_options adamw;
    const dls_zero_options *zero;   /* cut over the replicas, adamw is the one above;
                                       stages 2 and 3: the schedule says when a stage is
                                       gathered. NULL: whole */
    const char *pair_order;         /* whose turn it is in a pair: pairs.h; NULL: "b f" */
    int measured;                   /* 1: keep the times of the actions */
    int validate;                   /* 1: step on trust, see dls_pipeline_settle */
    /* Of an asynchronous schedule: told which version an F or backward uses. Or NULL. */
    void (*observe)(void *observer, const dls_action *a, int version);
    void *observer;
} dls_pipeline_options;

/* A step's rows: the same on all ranks of a pipeline. */
typedef struct dls_pipeline_batch {
    const int *tokens, *targets;    /* (rows, T) device */
    int rows, micro;                /* micro-batch i has rows i * micro ... */
    double loss_scale;
    void *losses;                   /* (rows, T) device, accumulator type: written by the
                                       rank that has the last stage */
    int drops;                      /* 1: dropout */
    uint64_t seed, first_row;       /* first_row: of these in the whole batch */
} dls_pipeline_batch;

/* define a pipeline */
/* A step on trust that waits for its verdict: update_validate.c. */
typedef struct dls_validation {
    int pending, due;       /* 1: a verdict is on its way; on the step before this one */
    int again;              /* how often it was to begin again */
    double lr;
    int64_t step;
    double *state, *host;   /* the numbers that travel */
    void **kept;            /* [stages]: what the step changed */
    dls_comm *comm;
    cudaStream_t stream;
    cudaEvent_t arrived;
} dls_validation;

typedef struct dls_pipeline {
    dls_pipeline_options o;
    dls_transformer_config model;   /* the whole, with split_backward */
    dls_ctx *ctx;
    dls_comm *pipe, *data;
    dls_comm *mirror;               /* Chimera: who has the same stages; else NULL */
    dls_comm *tied;                 /* who has the first or the last stage; else NULL */
    int rank, stages, microbatches;
    dls_stage **stage;              /* [stages]; NULL: not on this rank */
    dls_stage_update *update;       /* [stages] */
    dls_weights *weights;           /* [stages]: of asynchronous schedules */
    dls_stage_pool values, grads;   /* whole ones of ZeRO's stages 2 and 3 */
    dls_p2p p2p;
    dls_p2p_buffer **in[2], **out[2];   /* [stages * microbatches]: forward, backward */
    const dls_pipeline_batch *batch;    /* of the step that is being enqueued */
    double lr;
    int64_t step;
    double *scalars;                /* device: square sum, norm, coefficient */
    cudaStream_t reduction;         /* gradients between replicas */
    cudaEvent_t computed, reduced;
    int updating;                   /* 1: the step's coefficient is known */
    int evaluating;                 /* 1: forward passes alone, with the newest weights */
    dls_pairs pairs;                /* passes that run together */
    dls_validation validation;
    cudaEvent_t base, *mark;        /* measured: [2 * actions], around each */
    double base_time;
} dls_pipeline;

/* declare the pipeline calls */
/* 1: it has I and W apart. */
int dls_schedule_splits(const dls_schedule *s);

/* Makes this rank's stages. Collective over pipe, which has the schedule's ranks, and
 * over data, which has the replicas. DLS_ERR_INPUT: they do not fit. */
dls_status dls_pipeline_create(dls_pipeline **out, dls_ctx *ctx, dls_comm *pipe,
                               dls_comm *data, const dls_pipeline_options *o);
void dls_pipeline_free(dls_pipeline *p);

/* Sets the parameters of a stage of this rank: host, accumulator type, in the order of
 * its model's parameter set. */
dls_status dls_pipeline_put(dls_pipeline *p, int stage, const void *values);

/* Enqueues one step. The gradients of the whole batch, before clipping, stay in the
 * stages until the next. step counts from 1. Collective. */
dls_status dls_pipeline_step(dls_pipeline *p, const dls_pipeline_batch *batch, double lr,
                             int64_t step);

/* Of a pipeline that validates: waits for the verdict on the last step, and makes the
 * weights what they must be. Before anybody else reads them. Collective. */
dls_status dls_pipeline_settle(dls_pipeline *p);

/* Device bytes of validation: the copy of a stage's values, moments and master; and what
 * a rank has once. */
size_t dls_pipeline_validation_bytes(const dls_params *set);
size_t dls_pipeline_validation_state(void);

/* Enqueues the forward passes of a batch alone, for its losses; the schedule's order does
 * not matter. Collective. */
dls_status dls_pipeline_forward(dls_pipeline *p, const dls_pipeline_batch *batch);

/* The norm of the whole gradient before clipping: a double on the device. Of a pipeline
 * that validates: of the last step that was settled, by dls_pipeline_settle or in the
 * step after it. */
const double *dls_pipeline_norm(const dls_pipeline *p);

/* 1: this rank has the stage whose y are the losses. */
int dls_pipeline_has_losses(const dls_pipeline *p);

/* Of a pipeline that is `measured`: waits for the step, and gives the times of its
 * actions on all ranks, in ns from the first start on. Collective over its ranks. */
dls_status dls_pipeline_times(dls_pipeline *p, dls_evaluation *out);

/* What the evaluator needs, from measured times: the mean F, I, W and B of each stage,
 * the mean of each kind of pair, the shortest way between two ranks, and by how much the
 * second of two results is later that leave together. The costs point into `room`, of
 * stages * (stages + 4) numbers. */
void dls_pipeline_mean_costs(const dls_schedule *s, const dls_evaluation *measured,
                             int64_t *room, dls_pipeline_costs *out);

#ifdef __cplusplus
}
#endif
#endif

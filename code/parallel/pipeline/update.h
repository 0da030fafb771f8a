/* code/parallel/pipeline/update.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW over one stage's parameters, its parts apart: square sum, step. */
#ifndef DLS_PARALLEL_PIPELINE_UPDATE_H
#define DLS_PARALLEL_PIPELINE_UPDATE_H

#include "kernels/adamw.h"
#include "parallel/data/zero.h"
#include "parallel/pipeline/stage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a stage update */
typedef struct dls_stage_update {
    dls_stage *stage;
    dls_zero *zero;         /* has all the state, in slices; NULL: this rank, whole: */
    void *master;           /* (elements) device: unrounded values; NULL: not needed */
    void *m, *v;            /* (elements) device, of the accumulator type */
    int counted;            /* 1: this rank counts the stage in the norm */
    int copy;               /* a parameter that another stage counts; -1: none */
    int reduced, stepped;   /* in this step */
} dls_stage_update;

/* declare the stage updates */
/* Moments at zero. With `zero` (stage 1; of an unplaced model) the state is cut over the
 * ranks of data, and all calls are collective there. After an error, close as well. */
dls_status dls_stage_update_open(dls_stage_update *u, dls_stage *stage, dls_comm *data,
                                 const dls_zero_options *zero);
void dls_stage_update_close(dls_stage_update *u);

/* Sets parameters and master: (elements) host, accumulator type. */
dls_status dls_stage_update_put(dls_stage_update *u, const void *values);

/* Cut over ranks, in this order: clears the gradients, for the next of which the compute
 * stream waits until the last step's values are there; cuts the sums of the replicas;
 * waits for them. */
dls_status dls_stage_shard_begin(dls_stage_update *u);
dls_status dls_stage_shard_values(dls_stage_update *u);
dls_status dls_stage_shard_reduce(dls_stage_update *u);

/* Counts a part of a model's units from 0, as ZeRO does. */
void dls_stage_count_units(dls_params *set, int from);

/* *sum += the square of the gradient, as far as it is counted here. *sum: device. */
dls_status dls_stage_update_square(const dls_stage_update *u, double *sum);

/* One step with the gradient times *coefficient, device; 0: nothing changes. */
dls_status dls_stage_update_apply(dls_stage_update *u, const dls_adamw_options *w,
                                  double lr, int64_t step, const double *coefficient);

/* The unrounded values, (elements) device, of the accumulator type. */
void *dls_stage_update_values(const dls_stage_update *u);

#ifdef __cplusplus
}
#endif
#endif

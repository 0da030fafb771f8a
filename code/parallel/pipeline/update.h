/* code/parallel/pipeline/update.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW over one stage's parameters, its parts apart: square sum, step. */
#ifndef DLS_PARALLEL_PIPELINE_UPDATE_H
#define DLS_PARALLEL_PIPELINE_UPDATE_H

#include "kernels/adamw.h"
#include "parallel/pipeline/stage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a stage update */
typedef struct dls_stage_update {
    dls_stage *stage;
    void *master;           /* (elements) device: unrounded values; NULL: not needed */
    void *m, *v;            /* (elements) device, of the accumulator type */
    int counted;            /* 1: this rank counts the stage in the norm */
    int copy;               /* a parameter that another stage counts; -1: none */
    int reduced, stepped;   /* in this step */
} dls_stage_update;

/* declare the stage updates */
/* Moments at zero. After an error, close as well. */
dls_status dls_stage_update_open(dls_stage_update *u, dls_stage *stage);
void dls_stage_update_close(dls_stage_update *u);

/* Sets parameters and master: (elements) host, accumulator type. */
dls_status dls_stage_update_put(dls_stage_update *u, const void *values);

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

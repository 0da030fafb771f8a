/* code/train/optimizer.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * AdamW [Loshchilov and Hutter 2019] over flat buffers, clipping by the global
 * norm on the device, and the learning-rate schedule.
 */
#ifndef DLS_TRAIN_OPTIMIZER_H
#define DLS_TRAIN_OPTIMIZER_H
#include "kernels/adamw.h"
#include "layers/param.h"
#include "layers/sharding.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the optimizer */
/* AdamW over the flat buffers of a parameter set. */
typedef struct dls_optimizer {
    dls_ctx *ctx;
    dls_params *params;
    dls_adamw_options options;
    void *master;              /* (elements) device: unrounded values; NULL: not needed */
    void *m, *v;               /* (elements) device, of the accumulator type */
    double *scalars;           /* device: square sum, norm, coefficient */
    const dls_axes *axes;      /* of parameters that are cut; NULL: they are not */
    int64_t frozen;            /* 1-bit Adam: v stays as after this step; 0: no */
} dls_optimizer;

/* declare the optimizer calls */
/* The moments start at zero. Takes dls_optimizer_predict_memory bytes. */
dls_status dls_optimizer_create(dls_optimizer **out, dls_ctx *ctx, dls_params *params,
                                const dls_adamw_options *options);
void dls_optimizer_free(dls_optimizer *o);

/* Clips and updates, all on the stream; step counts from 1. The norm before
   clipping is left in scalars[1]. */
dls_status dls_optimizer_step(dls_optimizer *o, double lr, int64_t step);

/* Sets the parameters, and their master where there is one, to `values` (elements) of the
   accumulator type, host. */
dls_status dls_optimizer_put(dls_optimizer *o, const void *values);

/* The unrounded values, (elements) device, of the accumulator type. */
void *dls_optimizer_values(const dls_optimizer *o);

size_t dls_optimizer_predict_memory(size_t elements, dls_dtype dtype);

/* define the schedule */
typedef struct dls_lr_schedule {
    double maximum, minimum;
    int64_t warmup, steps;      /* steps of warm-up; steps in all */
} dls_lr_schedule;

/* The learning rate of a step, counted from 1. */
double dls_lr_schedule_at(const dls_lr_schedule *s, int64_t step);
#ifdef __cplusplus
}
#endif
#endif

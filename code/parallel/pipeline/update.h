/* code/parallel/pipeline/update.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW over one stage's parameters, its parts apart: square sum, step. */
#ifndef DLS_PARALLEL_PIPELINE_UPDATE_H
#define DLS_PARALLEL_PIPELINE_UPDATE_H

#include "kernels/adamw.h"
#include "parallel/data/zero_lent.h"
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
    int table;              /* the tied table, of which another stage has a copy; or -1 */
    dls_loan *values, *grads;   /* ZeRO's stages 2 and 3: while they are whole */
    int reduced, stepped;   /* in this step */
} dls_stage_update;

/* declare the stage updates */
/* Moments at zero. With `zero` (of an unplaced model) the state is cut over the ranks of
 * data, and all calls are collective there. After an error, close as well. */
dls_status dls_stage_update_open(dls_stage_update *u, dls_stage *stage, dls_comm *data,
                                 const dls_zero_options *zero);
void dls_stage_update_close(dls_stage_update *u);

/* Sets parameters and master: (elements) host, accumulator type. */
dls_status dls_stage_update_put(dls_stage_update *u, const void *values);

/* Cut over ranks: clears the gradients; the compute stream waits until the last step's
 * values are there (stages 1 and 2); sums the gradients over the replicas, in slices. */
dls_status dls_stage_shard_begin(dls_stage_update *u);
dls_status dls_stage_shard_values(dls_stage_update *u);
dls_status dls_stage_shard_reduce(dls_stage_update *u);

/* Counts the units of a part of a model from 0, as ZeRO does. A tied table is one of its
 * own, and so is cut in the same places wherever there is a copy of it; experts are one
 * of their own, as their copies may be elsewhere. */
void dls_stage_count_units(dls_params *set, const dls_transformer_config *part);

/* Memory that a rank's stages lend to each other while they are whole. */
typedef struct dls_stage_pool { dls_loan *loans; int n; } dls_stage_pool;

/* n loans of so many bytes. Close after an error as well. */
dls_status dls_stage_pool_open(dls_stage_pool *pool, int n, size_t bytes,
                               dls_memory_purpose purpose);
void dls_stage_pool_close(dls_stage_pool *pool);

/* What UNSHARD, an F (backward: 0), an I, B or W, and RESHARD ask for; nothing where
 * ZeRO has not cut it. DLS_ERR_STATE: more at the same time than the pool has loans. */
dls_status dls_stage_unshard(dls_stage_update *u, dls_stage_pool *values);
dls_status dls_stage_use(dls_stage_update *u, dls_stage_pool *grads, int backward);
dls_status dls_stage_reshard(dls_stage_update *u);

/* The gradient of the tied table, as far as this rank has it; *count elements. */
void *dls_stage_table(const dls_stage_update *u, size_t *count);

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

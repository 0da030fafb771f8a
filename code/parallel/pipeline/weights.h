/* code/parallel/pipeline/weights.h: from chapters/05-pipeline-runtime-versions.md. Edit the chapter, or edit here and run "make untangle". */
/* The versions of a stage's weights that passes under way may still ask for.
 *
 *   newest      the model's own parameters, which the optimizer changes in place
 *   old[i]      copies of the held - 1 versions before, version v at v % (held - 1)
 */
#ifndef DLS_PARALLEL_PIPELINE_WEIGHTS_H
#define DLS_PARALLEL_PIPELINE_WEIGHTS_H

#include "parallel/pipeline/stage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the weights */
typedef struct dls_weight_version {
    int number;             /* steps behind it; -1: empty */
    dls_params set;         /* items are its own; grads are the model's */
    void *values;           /* (elements) device */
} dls_weight_version;

typedef struct dls_weights {
    dls_stage *stage;
    int newest, held;       /* its number; how many there may be, the newest included */
    dls_weight_version *old;    /* [held - 1] */
} dls_weights;

/* declare the weights */
/* Takes room for held - 1 copies. After an error, close as well. */
dls_status dls_weights_open(dls_weights *w, dls_stage *stage, int held);
void dls_weights_close(dls_weights *w);

/* Counts from version 0 again, with nothing under way. */
void dls_weights_restart(dls_weights *w);

/* The version's parameters, for a pass. DLS_ERR_STATE: it does not exist (any more). */
dls_status dls_weights_find(const dls_weights *w, int version, dls_params **out);

/* Before the optimizer's step: keeps the newest as an old one. */
dls_status dls_weights_advance(dls_weights *w);

#ifdef __cplusplus
}
#endif
#endif

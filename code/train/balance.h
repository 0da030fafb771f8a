/* code/train/balance.h: from chapters/08-router-run.md. Edit the chapter, or edit here and run "make untangle". */
/* The expert layers of a run: tallies and biases by step, and their report. */
#ifndef DLS_TRAIN_BALANCE_H
#define DLS_TRAIN_BALANCE_H
#include <stdio.h>

#include "train/trainer.h"
#ifdef __cplusplus
extern "C" {
#endif
/* declare the balance of a run */
/* Before the first pass of a step, and after the last. Collective. */
dls_status dls_train_balance_begin(dls_trainer *t);
dls_status dls_train_balance_end(dls_trainer *t);

/* The end of a step for one model: its tally over all rows of the batch, and its bias.
 * mirror: who has the same layers in a pipeline that goes both ways; NULL: nobody. */
dls_status dls_train_balance_settle(dls_transformer *m, dls_comm *mirror);

/* What the last step's tallies say, on every rank. */
typedef struct dls_train_loads {
    int layers, experts;        /* layers: of the whole model, that have experts */
    dls_load *load;             /* [layers] */
    double *chosen, *dropped;   /* (layers, experts) */
} dls_train_loads;

/* Waits. Collective. Free with dls_train_loads_free, also after a failure. */
dls_status dls_train_balance_read(dls_trainer *t, dls_train_loads *out);
void dls_train_loads_free(dls_train_loads *l);

/* {"step":S,"experts":[...]}, a line of metrics: an object for each layer. */
void dls_train_loads_write(const dls_train_loads *l, int64_t step, FILE *metrics);

/* "experts 0.71 ... 1.52 of their mean, 3.1 % dropped", of the layer with the fullest
 * expert. */
void dls_train_loads_tell(const dls_train_loads *l, char *text, size_t size);
#ifdef __cplusplus
}
#endif
#endif

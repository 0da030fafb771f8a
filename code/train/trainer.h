/* code/train/trainer.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The trainer: what a run owns, and its single steps. dls_train_run is built on
 * this; a program with a loop of its own may use it directly.
 */
#ifndef DLS_TRAIN_TRAINER_H
#define DLS_TRAIN_TRAINER_H
#include "data/corpus.h"
#include "data/sampler.h"
#include "parallel/data/ddp.h"
#include "train/batch.h"
#include "train/meter.h"
#include "train/place.h"
#include "train/train.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the trainer */
typedef struct dls_pipelined dls_pipelined;

typedef struct dls_trainer {
    const dls_train_config *config;
    dls_comm *comm;
    int rank, world;
    dls_train_place place;      /* in the layout */
    dls_train_groups groups;
    int rows;                   /* this rank's sequences of a step */
    int first_row;              /* the number of the first of them in the step */
    dls_ctx ctx;
    dls_corpus *corpus;
    dls_sampler training, validation;
    dls_params whole;           /* of the uncut model: names and places, no memory */
    dls_transformer *model;     /* this rank's part */
    dls_optimizer *optimizer;
    dls_ddp *ddp;               /* NULL, as the optimizer: the state is cut */
    dls_zero *zero;             /* NULL: it is not */
    struct dls_pipelined *pipelined;    /* NULL: no pipeline; else instead of all four */
    dls_batch batch;
    dls_meter meter;
    uint64_t *offsets;          /* windows of a step or of an evaluation */
    char *settings, *layout;    /* texts for the checkpoint */
    int64_t step;               /* steps done */
} dls_trainer;

/* declare the trainer calls */
/* Opens the data, makes the model, resumes if asked to. Collective. */
dls_status dls_trainer_create(dls_trainer **out, const dls_train_config *config,
                              dls_comm *comm);
void dls_trainer_free(dls_trainer *t);

/* Enqueues one step; the meter holds its results. Collective. */
dls_status dls_trainer_step(dls_trainer *t);

/* The mean loss over the validation windows. Waits. Collective. */
dls_status dls_trainer_evaluate(dls_trainer *t, double *loss);

/* Rows of the pass that begins at this rank's row `row`: 0 behind the last. */
int dls_trainer_rows_from(const dls_trainer *t, int row);

/* What the losses are multiplied with: one over the tokens of the whole batch. */
double dls_trainer_loss_scale(const dls_trainer *t);

/* Adds losses (N, device) of a pass to the meter, each token's on one rank only: where
   ranks share layers, all of them have the same. */
dls_status dls_trainer_count(dls_trainer *t, const void *losses, size_t N);
dls_status dls_trainer_count_evaluation(dls_trainer *t, const void *losses, size_t N);

/* Writes a checkpoint, on rank 0; the others return at once. */
dls_status dls_trainer_save(dls_trainer *t);
#ifdef __cplusplus
}
#endif
#endif

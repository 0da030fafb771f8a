/* code/train/pipelined.h: from chapters/05-pipeline-runtime-trainer.md. Edit the chapter, or edit here and run "make untangle". */
/* What the trainer does differently when its model is cut into stages. */
#ifndef DLS_TRAIN_PIPELINED_H
#define DLS_TRAIN_PIPELINED_H
#include "parallel/pipeline/interpreter.h"
#include "train/memory.h"
#include "train/sharded.h"
#include "train/slices.h"

/* Reads the section `pipeline`. */
dls_status dls_train_read_pipeline(dls_config *cfg, dls_train_config *c);

/* The lowered schedule of a pipeline among so many replicas, and where its stages begin:
 * first[stages + 1]. DLS_ERR_INPUT. */
dls_status dls_pipelined_schedule(const dls_train_config *c, int replicas,
                                  dls_schedule *out);
dls_status dls_pipelined_partition(const dls_train_config *c, int stages, int *first);

/* The same steps as the trainer's own, for t->pipelined. Collective. */
dls_status dls_pipelined_create(dls_trainer *t);
void dls_pipelined_free(dls_pipelined *p);
dls_status dls_pipelined_step(dls_trainer *t, int64_t step);
const double *dls_pipelined_norm(const dls_trainer *t);

/* With post-validation: waits until the last step is what it must be, norm included.
 * Before anybody reads the state or the meter. */
dls_status dls_pipelined_settle(dls_trainer *t);

/* Enters what the stages of a rank take, their micro-batches and messages included. */
dls_status dls_pipelined_predict_memory(const dls_train_config *c,
                                        const dls_train_place *p,
                                        const dls_train_imagined *g,
                                        size_t bytes[DLS_MEM_PURPOSES]);

/* The losses of the B rows that are loaded, for the meter. */
dls_status dls_pipelined_evaluate(dls_trainer *t, int B);

/* The model of this rank's i-th stage; NULL: it has fewer. And who has the same stages,
 * where each is there twice; else NULL. */
dls_transformer *dls_pipelined_model(const dls_trainer *t, int i);
dls_comm *dls_pipelined_mirror(const dls_trainer *t);

/* declare the state of stages */
/* As dls_trainer_slices. */
dls_status dls_pipelined_slices(const dls_trainer *t, int saved, dls_slices *out,
                                size_t *elements);

/* Elements of a rank's arrays; 1: this rank counts its i-th stage. */
size_t dls_pipelined_elements(const dls_trainer *t);
int dls_pipelined_counts(const dls_trainer *t, int i);

/* The slices' values, first and second moments, to or from the host. */
dls_status dls_pipelined_fetch(dls_trainer *t, const dls_shard_state *s);
dls_status dls_pipelined_put(dls_trainer *t, const dls_shard_state *s);
#endif

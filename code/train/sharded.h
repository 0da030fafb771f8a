/* code/train/sharded.h: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* What the trainer does differently when the training state is cut among ranks. */
#ifndef DLS_TRAIN_SHARDED_H
#define DLS_TRAIN_SHARDED_H
#include "train/shards.h"
#include "train/trainer.h"

/* Reads `data_parallel` and the section `zero`. */
dls_status dls_train_read_sharding(dls_config *cfg, dls_train_config *c);

/* The options as they are for so many ranks: hybrid's groups are the nodes. */
dls_zero_options dls_train_zero_options(const dls_train_config *c, int ranks);

/* Enters what a rank takes for parameters, gradients, optimizer and buffers. */
dls_status dls_sharded_predict_memory(const dls_train_config *c,
                                      const dls_train_place *p, const dls_axes *axes,
                                      size_t bytes[DLS_MEM_PURPOSES]);

/* The scratch memory of its collectives. data may be imagined. */
dls_status dls_sharded_predict_communication(const dls_train_config *c,
                                             const dls_train_place *p, dls_comm *data,
                                             const dls_axes *axes,
                                             dls_zero_scratch *out);

/* The same steps as the trainer's own, for t->zero. Collective. */
dls_status dls_sharded_create(dls_trainer *t);
dls_status dls_sharded_step(dls_trainer *t, int64_t step);
dls_status dls_sharded_save(dls_trainer *t);

/* From the checkpoint of one file that is in memory, or from a sharded one; the latter
 * also into a trainer that is not sharded. *damaged := 1 on all ranks: not restored, a
 * file is damaged. */
dls_status dls_sharded_restore_whole(dls_trainer *t, const dls_checkpoint *c);
dls_status dls_sharded_restore(dls_trainer *t, dls_shards *s, int *damaged);
#endif

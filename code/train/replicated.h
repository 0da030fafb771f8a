/* code/train/replicated.h: from chapters/04-data-parallelism-ddp-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* What the trainer does differently when every rank has the whole training state. */
#ifndef DLS_TRAIN_REPLICATED_H
#define DLS_TRAIN_REPLICATED_H
#include "train/shards.h"
#include "train/trainer.h"

/* The options for a rank: what only the trainer knows is filled in. */
dls_ddp_options dls_replicated_options(const dls_train_config *c,
                                       const dls_train_place *p);

/* Device bytes for communication over the data axis: buffers; and scratch memory on its
 * own stream and on the compute stream. data and axes (NULL: not cut) may be imagined. */
dls_status dls_replicated_predict_communication(const dls_train_config *c,
                                                const dls_train_place *p, dls_comm *data,
                                                const dls_axes *axes,
                                                dls_hook_memory *out);

/* Before the passes of a step: which rows of a tied embedding the last will touch. */
dls_status dls_replicated_announce(dls_trainer *t);

/* A sharded checkpoint, for a hook that keeps something; and its part of one. */
dls_status dls_replicated_save(dls_trainer *t);
dls_status dls_replicated_restore_hook(dls_trainer *t, dls_shards *s);
#endif

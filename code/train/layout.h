/* code/train/layout.h: from chapters/07-mesh-settings.md. Edit the chapter, or edit here and run "make untangle". */
/* The layout of a run: the section `parallel`, and whether it can work. */
#ifndef DLS_TRAIN_LAYOUT_H
#define DLS_TRAIN_LAYOUT_H
#include "train/train.h"
#ifdef __cplusplus
extern "C" {
#endif

/* declare the layout of a run */
/* Reads the section `parallel` into c->mesh and c->sharding; after the model. */
dls_status dls_train_read_layout(dls_config *cfg, dls_train_config *c);

/* Micro-batches of a step, when the batch is dealt out to so many replicas. */
int dls_train_microbatches(const dls_train_config *c, int replicas);

/* Whether `world` ranks can train so, found before anything is made: the mesh, what it
 * cuts, the batch, the schedule. DLS_ERR_INPUT: "parallel.tp: expected a divisor of
 * model.heads 12, got 8; the nearest that works is 6". */
dls_status dls_train_check_shape(const dls_train_config *c, int world);

/* The part of that which concerns a model with experts. DLS_ERR_INPUT. */
dls_status dls_train_check_experts(const dls_train_config *c, const dls_mesh *mesh);

/* Whether the predicted bytes of every rank fit into `capacity`. DLS_ERR_INPUT with the
 * largest micro-batch that does. */
dls_status dls_train_check_memory(const dls_train_config *c, int world, double capacity);

/* Both, on the devices of this process's cluster. */
dls_status dls_train_check_layout(const dls_train_config *c, int world);

#ifdef __cplusplus
}
#endif
#endif

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

#ifdef __cplusplus
}
#endif
#endif

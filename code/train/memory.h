/* code/train/memory.h: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The device bytes of a rank before the run, for any layout. */
#ifndef DLS_TRAIN_MEMORY_H
#define DLS_TRAIN_MEMORY_H
#include "train/place.h"
#ifdef __cplusplus
extern "C" {
#endif

/* The communicators of a place, imagined: they answer questions and send nothing. Those
 * of a group of one are NULL, except data, which always is one. */
typedef struct dls_train_imagined {
    dls_comm *world, *data, *tensor, *kv, *pipe;
    dls_comm *context, *ring, *ulysses;
} dls_train_imagined;

dls_status dls_train_imagine(const dls_train_place *p, dls_train_imagined *out);
void dls_train_forget(dls_train_imagined *g);

/* Bytes for the tokens of a step, where they are, and for the meter. */
size_t dls_train_batch_bytes(const dls_train_config *c, const dls_train_place *p);
#ifdef __cplusplus
}
#endif
#endif

/* code/train/memory.h: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The device bytes of a rank before the run, for any layout. */
#ifndef DLS_TRAIN_MEMORY_H
#define DLS_TRAIN_MEMORY_H
#include "train/place.h"
#ifdef __cplusplus
extern "C" {
#endif

/* declare imagined groups */
/* The communicators of a place, imagined: they answer questions and send nothing. Those
 * of a group of one are NULL, except data, which always is one. */
typedef struct dls_train_imagined {
    dls_comm *world, *data, *tensor, *kv, *pipe;
    dls_comm *context, *ring, *ulysses;
    dls_comm *expert, *expert_tensor, *rows;
    dls_comm *expert_data;      /* NULL: data */
} dls_train_imagined;

dls_status dls_train_imagine(const dls_train_place *p, dls_train_imagined *out);
void dls_train_forget(dls_train_imagined *g);

/* The axes that a rank would have of them; returns 0 if it would have none. */
int dls_train_imagined_axes(const dls_train_place *p, const dls_train_imagined *g,
                            dls_axes *out);

/* declare the parts of a prediction */
/* Scratch memory of what the layers send, and of the norm over the tensor axis. */
typedef struct dls_layer_scratch {
    size_t tensor;              /* on the compute stream */
    size_t ring;                /* on that of the axes */
    size_t context, rows, counts, shares;   /* of experts: on the compute stream */
} dls_layer_scratch;

/* axes: real or imagined. */
dls_status dls_train_layer_scratch(const dls_train_config *c, const dls_train_place *p,
                                   const dls_axes *axes, dls_layer_scratch *out);

/* Of the window of one-sided dispatch, where there are expert layers; else 0. */
size_t dls_train_window_bytes(const dls_train_config *c, const dls_train_place *p);

/* Bytes for the tokens of a step, where they are, and for the meter. */
size_t dls_train_batch_bytes(const dls_train_config *c, const dls_train_place *p);
#ifdef __cplusplus
}
#endif
#endif

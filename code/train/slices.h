/* code/train/slices.h: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* Where a rank's state lies in the flat whole model: what a checkpoint is keyed by. */
#ifndef DLS_TRAIN_SLICES_H
#define DLS_TRAIN_SLICES_H
#include "parallel/tensor/gradients.h"
#include "train/shards.h"
#include "train/trainer.h"
#ifdef __cplusplus
extern "C" {
#endif

/* declare lists of slices */
/* Slices, some more of which may come. Zeroed before the first. */
typedef struct dls_slices {
    dls_zero_slice *items;
    int n, room;
} dls_slices;

/* State arrays of a parameter set: whole, or as ZeRO has cut them; from element `at` of a
 * rank's arrays on. */
typedef struct dls_holding {
    const dls_params *set;
    const dls_zero *zero;       /* NULL: whole */
    size_t at;
    int saved;                  /* 1: only what this rank counts, without skip */
    dls_counter who;
    const dls_param *skip;      /* NULL: nobody */
} dls_holding;

/* Adds what the holding has of the whole model, run by run. DLS_ERR_STATE: a parameter
 * that the whole model has not. */
dls_status dls_slices_add(dls_slices *s, const dls_params *whole, const dls_holding *h);
void dls_slices_free(dls_slices *s);

/* Adds elements first ... of the whole, which lie at `at` here; lengthens the last slice
 * if it can. */
dls_status dls_slices_add_run(dls_slices *s, size_t first, size_t count, size_t at);

/* A rank's state on the host, and where it lies in the whole model. */
typedef struct dls_held_state {
    dls_shard_state state;
    dls_slices slices;
    char *memory;
} dls_held_state;

/* Room for it; saved 1: as much as this rank saves. Then fetch fills it. Collective. */
dls_status dls_trainer_hold(const dls_trainer *t, dls_held_state *h, int saved);
void dls_trainer_drop(dls_held_state *h);
dls_status dls_trainer_fetch(dls_trainer *t, const dls_shard_state *s);

/* Elements of a rank's arrays that are parameters'. */
size_t dls_trainer_elements(const dls_trainer *t);

/* What a rank saves: over all ranks each element once. zero: how its state is cut. */
dls_counter dls_trainer_counter(const dls_trainer *t, const dls_zero *zero);

/* The slices of a trainer's state, and the elements of its arrays. saved 1: over all
 * ranks each element of the model once. */
dls_status dls_trainer_slices(const dls_trainer *t, int saved, dls_slices *out,
                              size_t *elements);
#ifdef __cplusplus
}
#endif
#endif

/* code/train/checkpoint.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Checkpoints: one file per saved step, each byte covered by a checksum, written
 * beside and renamed, the last two kept. The format is described in the source.
 */
#ifndef DLS_TRAIN_CHECKPOINT_H
#define DLS_TRAIN_CHECKPOINT_H
#include "model/transformer.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define a checkpoint */
/* The state between two steps, in host memory. */
typedef struct dls_checkpoint {
    int64_t step;               /* steps done */
    dls_dtype dtype;            /* of the run */
    dls_transformer_config model;   /* read from the settings */
    size_t elements;
    const char *settings;       /* "key=value\n" per setting that shapes the run */
    const char *layout;         /* "name 256x128\n" per parameter */
    const void *values, *m, *v; /* (elements) each, of the accumulator type */
    char *file;                 /* what the pointers point into; NULL: the caller's */
} dls_checkpoint;

/* declare the checkpoint calls */
/* Writes DIRECTORY/checkpoint-STEP.dls, whole or not at all, and keeps two. */
dls_status dls_checkpoint_save(const char *directory, const dls_checkpoint *c);

/* Removes all but the newest `keep`. */
dls_status dls_checkpoint_prune(const char *directory, int keep);

/* Reads and verifies one file. Any byte missing, added or changed: DLS_ERR_INPUT
   with one line. Free it with dls_checkpoint_free. */
dls_status dls_checkpoint_load(const char *path, dls_checkpoint *out);

/* The newest good checkpoint of a directory; a bad one is reported in the log and
   passed over. out->file is NULL when there are none, all bad is an error. */
dls_status dls_checkpoint_find(const char *directory, dls_checkpoint *out);

void dls_checkpoint_free(dls_checkpoint *c);

/* The text for `layout`, one line per parameter; NULL: no memory. */
char *dls_checkpoint_layout(const dls_params *set);
dls_status dls_checkpoint_check_layout(const dls_checkpoint *c, const dls_params *set);

/* Compares two texts line by line; the first difference is quoted in the error. */
dls_status dls_checkpoint_same(const char *what, const char *stored, const char *now);

/* The steps of a directory's checkpoint-STEP.SUFFIX, newest first; the caller frees. */
dls_status dls_checkpoint_steps(const char *directory, const char *suffix,
                                int64_t **steps, int *n);

/* The path of a step's file. */
void dls_checkpoint_path(char *path, size_t size, const char *directory, int64_t step);
#ifdef __cplusplus
}
#endif
#endif

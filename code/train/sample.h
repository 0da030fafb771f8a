/* code/train/sample.h: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Text from a checkpoint or from a Hugging Face directory, one rank, seeded.
 */
#ifndef DLS_TRAIN_SAMPLE_H
#define DLS_TRAIN_SAMPLE_H
#include "model/draw.h"
#include "tensor/dtype.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the sample options */
typedef struct dls_sample_options {
    const char *checkpoint;     /* a file, or a run's directory: its newest good one */
    const char *model;          /* or a Hugging Face directory */
    dls_dtype dtype;            /* of the latter's computation */
    const char *prompt;         /* NULL or "": a newline */
    int ids;                    /* 1: the prompt is token numbers, not bytes */
    int tokens;                 /* how many to draw */
    dls_draw draw;
    uint64_t seed;
    dls_status (*emit)(void *self, int token);  /* called for each, in order */
    void *self;
} dls_sample_options;

/* Loads the model and draws. A full context slides. Errors: DLS_ERR_INPUT for a bad
   checkpoint, directory, prompt or option, DLS_ERR_STATE for scores that are not
   numbers, and emit's own. */
dls_status dls_sample_run(const dls_sample_options *o);
#ifdef __cplusplus
}
#endif
#endif

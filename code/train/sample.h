/* code/train/sample.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Generating text from a checkpoint, one rank, seeded.
 */
#ifndef DLS_TRAIN_SAMPLE_H
#define DLS_TRAIN_SAMPLE_H
#include <stdint.h>

#include "base/status.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the sample options */
typedef struct dls_sample_options {
    const char *checkpoint;     /* a file, or a directory: its newest good one */
    const char *prompt;         /* bytes; NULL or "": a newline */
    int tokens;                 /* how many to draw */
    double temperature;         /* 0: always the likeliest */
    int top_k;                  /* 0: all */
    uint64_t seed;
    dls_status (*emit)(void *self, int token);  /* called for each, in order */
    void *self;
} dls_sample_options;

/* Loads the model and draws. Errors: DLS_ERR_INPUT for a bad checkpoint, prompt or
   option, DLS_ERR_STATE for scores that are not finite, and emit's own. */
dls_status dls_sample_run(const dls_sample_options *o);

/* One draw from logits (V) on the host, given a uniform number in (0, 1). V is at
   most some thousands: the candidates are sorted on the stack. */
int dls_sample_token(const double *logits, int V, double temperature, int top_k,
                     double uniform);
#ifdef __cplusplus
}
#endif
#endif

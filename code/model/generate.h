/* code/model/generate.h: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Generation: prompts through the model with a cache of keys and values, then one token
 * at a time for all of them together.
 */
#ifndef DLS_MODEL_GENERATE_H
#define DLS_MODEL_GENERATE_H

#include "model/draw.h"
#include "model/transformer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the generator */
/* One text to be continued. */
typedef struct dls_prompt {
    const int *tokens;          /* [n], at least one */
    int n;
    uint32_t id;                /* names its random numbers, in whatever batch it is */
} dls_prompt;

typedef struct dls_generate_options {
    dls_draw draw;
    uint64_t seed;
    int tokens;                 /* draw at most so many for each */
    const int *stops;           /* [nstops] tokens that end a sequence */
    int nstops;
    int slides;                 /* 1: a full context loses its older half */
    /* Called for each token drawn, a stop token included; `sequence` counts prompts. */
    dls_status (*emit)(void *self, int sequence, int token);
    void *self;
} dls_generate_options;

typedef struct dls_generator dls_generator;

/* declare the generator calls */
/* A generator for up to `sequences` prompts at once, on a model made for micro-batches of
 * at least that many and for prefill in pieces of its max_T. The model stays yours. */
dls_status dls_generator_create(dls_generator **out, dls_transformer *model,
                                int sequences);
void dls_generator_free(dls_generator *g);  // NULL is allowed

/* Continues n prompts. What is drawn for one depends on its tokens, its id and the seed;
 * other prompts touch it only through the rounding of matrix products of another height.
 * Errors: DLS_ERR_INPUT for a prompt that is empty, has a token out of the vocabulary, or
 * does not fit the context together with what is to be drawn, unless it slides. */
dls_status dls_generator_run(dls_generator *g, const dls_prompt *prompts, int n,
                             const dls_generate_options *o);

#ifdef __cplusplus
}
#endif
#endif

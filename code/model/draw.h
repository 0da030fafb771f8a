/* code/model/draw.h: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* Choosing the next token: penalty, temperature, top-k, top-p, one uniform number. */
#ifndef DLS_MODEL_DRAW_H
#define DLS_MODEL_DRAW_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the draw */
/* How a token is chosen. {1, 0, 1, 1} is the model's own distribution. */
typedef struct dls_draw {
    double temperature;         /* 0: always the likeliest */
    int top_k;                  /* 0: all */
    double top_p;               /* 1: all */
    double repetition_penalty;  /* 1: none */
} dls_draw;

typedef struct dls_candidate { double logit; int token; } dls_candidate;

/* declare the draw calls */
dls_status dls_draw_check(const dls_draw *s);

/* The number in (0, 1) for token `index` of a sequence: a function of its arguments. */
double dls_draw_uniform(uint64_t seed, uint32_t sequence, uint64_t index);

/* One draw. logits (V), changed by the penalty; seen (V): 1 for a token that occurred, or
 * NULL; room (V) is for the work. Errors: DLS_ERR_STATE for scores that are not numbers.
 * Sources: Keskar et al. 2019 (section 4.1), Holtzman et al. 2020 (section 3.1). */
dls_status dls_draw_token(const dls_draw *s, double uniform, double *logits, int V,
                            const char *seen, dls_candidate *room, int *token);

#ifdef __cplusplus
}
#endif
#endif

/* code/layers/moe.h: from chapters/08-mixture-of-experts.md. Edit the chapter, or edit here and run "make untangle". */
/* What an expert layer is: sizes and choices. A plain structure. */
#ifndef DLS_LAYERS_MOE_H
#define DLS_LAYERS_MOE_H
#include "kernels/router.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the experts */
typedef struct dls_moe {
    int experts;                /* E; 0: there are none, the MLP is dense */
    int chosen;                 /* k: experts of a token */
    int hidden;                 /* F: columns inside an expert */
    int shared;                 /* experts that every token passes, as one MLP */
    int dense_layers;           /* the first so many blocks keep their MLP */
    dls_gate gate;
    int normalised;             /* 1: a token's weights are divided by their sum */
    double scale;               /* a factor of all weights; 0 counts as 1 */
    int groups, group_limit;    /* experts in so many equal groups, of which a token may
                                   use so many; 0: no limit */
    double capacity;            /* an expert takes ceil(capacity k T / E) tokens of a
                                   sequence of T, the first; 0: all (dropless) */
    int padded;                 /* 1: and always as many, with rows of zeros */
    double aux_batch, aux_sequence, z_loss; /* coefficients of the losses; 0: none */
    double bias_rate;           /* a step of the bias of the choice; 0: there is none */
    int balanced;               /* 1: token i, choice j goes to expert (i k + j) mod E,
                                   whatever the scores: for timing */
} dls_moe;
#ifdef __cplusplus
}
#endif
#endif

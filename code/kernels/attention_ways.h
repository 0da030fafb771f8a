/* code/kernels/attention_ways.h: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The ways to compute an attention, behind dls_attention_forward and _backward. A way
 * takes a completed shape (dls_attention_complete). */
#ifndef DLS_KERNELS_ATTENTION_WAYS_H
#define DLS_KERNELS_ATTENTION_WAYS_H

#include "kernels/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name the ways */
typedef enum dls_attention_way {
    DLS_ATTENTION_NAIVE, DLS_ATTENTION_FLASH, DLS_ATTENTION_TENSOR, DLS_ATTENTION_WAYS
} dls_attention_way;

/* What DLS_ATTENTION says; the best that applies when it is not set. DLS_ERR_INPUT: it
 * names no way. */
dls_status dls_attention_choose(const dls_attention_shape *s, dls_dtype dtype,
                                dls_attention_way *way);

#ifdef __cplusplus
}
#endif
#endif

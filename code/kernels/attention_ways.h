/* code/kernels/attention_ways.h: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The ways to compute an attention, behind dls_attention_forward and _backward. A way
 * takes a completed shape (dls_attention_complete). */
#ifndef DLS_KERNELS_ATTENTION_WAYS_H
#define DLS_KERNELS_ATTENTION_WAYS_H

#include "kernels/attention.h"
#include "kernels/attention_traffic.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name the ways */
typedef enum dls_attention_way {
    DLS_ATTENTION_NAIVE, DLS_ATTENTION_FLASH, DLS_ATTENTION_TENSOR, DLS_ATTENTION_DECODE,
    DLS_ATTENTION_WAYS
} dls_attention_way;

/* What DLS_ATTENTION says, if it can do this shape; else the best that can.
 * DLS_ERR_INPUT: it names no way. */
dls_status dls_attention_choose(const dls_attention_shape *s, dls_dtype dtype,
                                dls_attention_way *way);

/* declare the flash way */
enum { DLS_FLASH_LARGEST_HEAD = 256 };

/* As dls_attention_forward and _backward. */
dls_status dls_attention_flash_forward(dls_ctx *ctx, const dls_attention_shape *s,
                                       void *out, void *lse, const void *q, const void *k,
                                       const void *v);
dls_status dls_attention_flash_backward(dls_ctx *ctx, const dls_attention_shape *s,
                                        void *dq, void *dk, void *dv, void *temporary,
                                        const void *dout, const void *q, const void *k,
                                        const void *v, const void *out, const void *lse);

#ifdef __cplusplus
}
#endif
#endif

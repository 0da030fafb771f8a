/* code/kernels/attention_traffic.h: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* What flash attention computes and moves, from the shape and the tiles. */
#ifndef DLS_KERNELS_ATTENTION_TRAFFIC_H
#define DLS_KERNELS_ATTENTION_TRAFFIC_H

#include "kernels/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the traffic */
typedef struct dls_flash_cost { double flops, bytes; } dls_flash_cost;

/* Own tiles of R rows, other tiles of C. The shape is complete. */
dls_flash_cost dls_flash_forward_cost(const dls_attention_shape *s, dls_dtype dtype,
                                      int R, int C);
dls_flash_cost dls_flash_backward_cost(const dls_attention_shape *s, dls_dtype dtype,
                                       int R, int C, int by_key);
dls_flash_cost dls_flash_delta_cost(const dls_attention_shape *s, dls_dtype dtype);

/* R and C of the kernels for an element type and a head size. */
void dls_flash_tiles(dls_dtype dtype, int D, int *R, int *C);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/attention_hopper.h: from chapters/10-flash-attention-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash Attention for devices of compute capability 9.0. */
#ifndef DLS_KERNELS_ATTENTION_HOPPER_H
#define DLS_KERNELS_ATTENTION_HOPPER_H

#include "kernels/attention_tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 1 when the current device is of compute capability 9.0, D is at most 128, all sequences
 * have full length, and dls_attention_tensor_applies. */
int dls_attention_hopper_applies(const dls_attention_shape *s, const void *out,
                                 const void *q, const void *k, const void *v);

/* As dls_attention_tensor_forward. Errors: DLS_ERR_STATE for a shape that does not apply,
 * with the reason; DLS_ERR_DEVICE when the driver knows no tensor maps; a launch's. */
dls_status dls_attention_hopper_forward(cudaStream_t stream, dls_attention_format format,
                                        const dls_attention_shape *s, void *out,
                                        float *lse, const void *q, const void *k,
                                        const void *v);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/attention_tensor.h: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash Attention on tensor cores: bf16 or fp16 in and out, sums in f32. */
#ifndef DLS_KERNELS_ATTENTION_TENSOR_H
#define DLS_KERNELS_ATTENTION_TENSOR_H

#include <cuda_runtime.h>

#include "base/status.h"
#include "kernels/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the tensor attention */
typedef enum dls_attention_format {
    DLS_ATTENTION_BF16, DLS_ATTENTION_FP16
} dls_attention_format;

/* 1 when the kernels below can run the shape: D a multiple of 8 up to 256, strides
 * multiples of 8 elements, arrays at multiples of 16 bytes, a scale above 0. */
int dls_attention_tensor_applies(const dls_attention_shape *s, const void *out,
                                 const void *q, const void *k, const void *v);

/* dls_attention_forward for 16-bit arrays; lse is f32 and may be NULL. On the virtual GPU
 * every thread is emulated, whatever DLS_KERNELS says.
 * Errors: DLS_ERR_STATE for a shape that does not apply, those of a launch. */
dls_status dls_attention_tensor_forward(cudaStream_t stream, dls_attention_format format,
                                        const dls_attention_shape *s,
                                        void *out,      // rows of (H, D)
                                        float *lse,     // (B, H, Tq)
                                        const void *q,  // rows of (H, D)
                                        const void *k,  // rows of (Hk, D)
                                        const void *v); // rows of (Hk, D)

/* 1 when dls_attention_tensor_backward can run the shape, as above. The gradients have
 * the strides of what they belong to. */
int dls_attention_tensor_backward_applies(const dls_attention_shape *s, const void *dq,
                                          const void *dk, const void *dv,
                                          const void *dout, const void *q, const void *k,
                                          const void *v, const void *out);

/* dls_attention_backward for 16-bit arrays. delta has room for (B, H, Tq). */
dls_status dls_attention_tensor_backward(cudaStream_t stream, dls_attention_format format,
                                         const dls_attention_shape *s, void *dq, void *dk,
                                         void *dv, float *delta, const void *dout,
                                         const void *q, const void *k, const void *v,
                                         const void *out, const float *lse);

#ifdef __cplusplus
}
#endif
#endif

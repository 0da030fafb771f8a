/* code/kernels/attention_decode.h: from chapters/10-flash-attention-decode.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention of few queries to many keys: split-KV decoding (Flash-Decoding, Dao et al.
 * 2023). The keys of each sequence and head are cut into parts, which fill the device. */
#ifndef DLS_KERNELS_ATTENTION_DECODE_H
#define DLS_KERNELS_ATTENTION_DECODE_H

#include "kernels/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the decoding */
/* Parts that the keys should be cut into on the current device, 1 to 64. */
int dls_attention_splits(const dls_attention_shape *s);

/* Bytes of the partial results; 0 for one part. */
size_t dls_attention_decode_temporary(const dls_attention_shape *s, dls_dtype dtype,
                                      int splits);

/* dls_attention_forward, made for Tq = 1 or a few: every element of the cache is read
 * once for a group of heads with at most 8 queries in all. `temporary` has
 * dls_attention_decode_temporary() bytes. Errors: those of dls_attention_complete;
 * DLS_ERR_INPUT for D above 256, dropout, or splits outside 1 to 64. */
dls_status dls_attention_decode(dls_ctx *ctx, const dls_attention_shape *s, int splits,
                                void *out,        // (tokens, H, D)
                                void *lse,        // (B, H, Tq) accumulator; may be NULL
                                void *temporary,
                                const void *q,    // (tokens, H, D)
                                const void *k,    // (tokens, Hk, D)
                                const void *v);   // (tokens, Hk, D)

#ifdef __cplusplus
}
#endif
#endif

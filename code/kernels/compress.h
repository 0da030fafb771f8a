/* code/kernels/compress.h: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Compressors of gradients, by chunks of 1024 elements. Elements have the context's type,
 * f32 or f64. Alistarh and others 2018, "The convergence of sparsified gradient methods";
 * Karimireddy and others 2019, "Error feedback fixes SignSGD". */
#ifndef DLS_KERNELS_COMPRESS_H
#define DLS_KERNELS_COMPRESS_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the compressors */
enum {
    DLS_CHUNK = 1024,
    DLS_CHUNK_WORDS = 1 + DLS_CHUNK / 32 // a scale and the signs
};

/* y (n) += a x */
dls_status dls_add_scaled(dls_ctx *ctx, void *y, double a, const void *x, size_t n);

/* How many elements are kept of n: of each chunk the share `keep`, rounded up. */
size_t dls_top_k_count(size_t n, double keep);

/* values, indices (dls_top_k_count) := the elements of x (n) with the largest magnitudes,
 * chunk by chunk, in ascending order of index; of equals the first. x := the rest, with 0
 * where an element was taken. A NaN is larger than everything. */
dls_status dls_top_k(dls_ctx *ctx, void *values, int *indices, void *x, size_t n,
                     double keep);

/* out (n) := the sum of what `ranks` ranks took; values, indices (ranks, count). */
dls_status dls_top_k_sum(dls_ctx *ctx, void *out, const void *values, const int *indices,
                         int ranks, size_t n, double keep);

/* words (chunks * DLS_CHUNK_WORDS) := per chunk the mean magnitude s of x (n) as f32, and
 * the signs, 1 for >= 0. x -= what that stands for, +s or -s. Chunks behind n are 0. */
dls_status dls_signs_pack(dls_ctx *ctx, int *words, void *x, size_t n, size_t chunks);

/* out (n) := the sum of what the words of `ranks` ranks stand for, plus out when `add`.
 * words (ranks, chunks * DLS_CHUNK_WORDS). */
dls_status dls_signs_sum(dls_ctx *ctx, void *out, const int *words, int ranks, size_t n,
                         size_t chunks, int add);

#ifdef __cplusplus
}
#endif
#endif

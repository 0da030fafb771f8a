/* code/kernels/merge.h: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Merging attentions to different keys, and other sums over blocks of a sequence. Sums
 * are of the accumulator's type, what is added to them of the context's.
 *
 *   (sum, total) over the keys so far     (block, lse) of the next keys
 *        w = 1 / (1 + exp(total - lse))
 *        sum += w (block - sum)           total = log(exp(total) + exp(lse))
 *
 * after Milakov and Gimelshein 2018, with the exponentials of differences alone. */
#ifndef DLS_KERNELS_MERGE_H
#define DLS_KERNELS_MERGE_H

#include <stddef.h>

#include "base/rng.h"
#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the rows of a block */
typedef struct dls_merge_rows {
    int B, most;         // sequences; the most rows of one
    int pitch, first;    // sequence b has rows b * pitch + first ...
    const int *starts;   // device (B+1): packed sequences; then those two do not count
    const int *lengths;  // device (B): rows of each; NULL: up to the next, or most
    double count;        // rows of all, for the cost
} dls_merge_rows;

/* find the place of a row */
/* The place of row i of sequence b; -1: it has no such row. */
DLS_HD ptrdiff_t dls_merge_row(const dls_merge_rows *r, int b, int i)
{
    int n = r->lengths  ? r->lengths[b]
            : r->starts ? r->starts[b + 1] - r->starts[b] : r->most;
    if (i >= n)
        return -1;
    return r->starts ? (ptrdiff_t)r->starts[b] + i
                     : (ptrdiff_t)b * r->pitch + r->first + i;
}

/* declare the merges */
/* Merges a block into sum (N, H, D) and total (N, H). block (N, H, D) and sum are indexed
 * by the same rows, lse is (B, H, most). begin: as if nothing was there. lse = NULL:
 * plain sums, as for an attention without exponentials. */
dls_status dls_merge_outputs(dls_ctx *ctx, const dls_merge_rows *rows, int H, int D,
                             void *sum, void *total, const void *block, const void *lse,
                             int begin);

/* lse (B, H, most) = the totals of a block's rows; -inf behind the last row. */
dls_status dls_merge_totals(dls_ctx *ctx, const dls_merge_rows *rows, int H, void *lse,
                            const void *total);

/* The rows of sum += those of x, C columns of them, sum_row and x_row elements apart.
 * begin: = instead of +=. */
dls_status dls_merge_add(dls_ctx *ctx, const dls_merge_rows *rows, int C, void *sum,
                         size_t sum_row, const void *x, size_t x_row, int begin);

/* out (N, C) = sum, rounded; rows out_row and sum_row elements apart. */
dls_status dls_merge_store(dls_ctx *ctx, int N, int C, void *out, size_t out_row,
                           const void *sum, size_t sum_row);

#ifdef __cplusplus
}
#endif
#endif

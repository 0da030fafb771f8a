/* code/kernels/rope.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Rotary position embedding (Su et al. 2021), pairs split by halves as in GPT-NeoX and
 * Hugging Face: channel p of a head is turned together with channel p + R/2.
 *
 *   table (length, R):  cos of R/2 angles | sin of R/2 angles, times the attention factor
 */
#ifndef DLS_KERNELS_ROPE_H
#define DLS_KERNELS_ROPE_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* describe the angles */
typedef enum dls_rope_scaling {
    DLS_ROPE_PLAIN, DLS_ROPE_LINEAR, DLS_ROPE_DYNAMIC, DLS_ROPE_YARN, DLS_ROPE_LLAMA3
} dls_rope_scaling;

typedef struct dls_rope {
    double theta;             // the base b: 10000 in the paper, above 1
    int dim;                  // rotated channels R of a head, even
    dls_rope_scaling scaling; // what follows is read when the scaling needs it
    double factor;            // f, at least 1: by how much the context is to grow
    int original;             // L: positions in training
    double low_freq_factor, high_freq_factor; // llama3: l < h
    double beta_fast, beta_slow;              // yarn; 0: 32 and 1
    double attention_factor;                  // yarn; 0: from the next two, or from f
    double mscale, mscale_all_dim;            // yarn as in DeepSeek, both or none
    int untruncated;                          // yarn: "truncate": false
} dls_rope;

/* declare the angles */
/* theta_p for each pair, for a sequence of `length` positions (only the dynamic scaling
 * looks at it), and the attention factor. In double, on the host.
 * Errors: DLS_ERR_INPUT naming the field. */
dls_status dls_rope_frequencies(const dls_rope *rope, int length,
                                double *frequencies,  // (R/2)
                                double *attention_factor);

/* Fills a table of the positions 0 .. length-1, in the accumulator type, and waits. */
dls_status dls_rope_table(dls_ctx *ctx,
                          void *table,  // (length, R), accumulator type
                          const dls_rope *rope, int length);

/* describe the rows to turn */
typedef struct dls_rope_shape {
    int N;                // rows, one per token
    int heads;            // heads to turn in each, D apart: H + Hk of a packed row
    int D, R;             // head size, rotated channels: even, at most D
    size_t row;           // elements from one row to the next
    int length;           // positions in the table
    int T, start;         // row n stands at start + n % T; T = 0: at start + n
    const int *positions; // device (N): where the rows stand, instead; or NULL
} dls_rope_shape;

/* declare the rotation */
/* Turns x in place by the angles of the table. A row whose position is not in the table
 * becomes NaN in the channels that are turned.
 * Errors: DLS_ERR_INPUT for a shape that does not fit, and for start beyond the table. */
dls_status dls_rope_forward(dls_ctx *ctx,
                            void *x,            // (N, row): the first head of row 0
                            const void *table,  // (length, R), accumulator type
                            const dls_rope_shape *shape);

/* The gradient, in place: turns by the negative angles. */
dls_status dls_rope_backward(dls_ctx *ctx,
                             void *dx,           // (N, row)
                             const void *table,  // (length, R), accumulator type
                             const dls_rope_shape *shape);

#ifdef __cplusplus
}
#endif
#endif

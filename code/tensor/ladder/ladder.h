/* code/tensor/ladder/ladder.h: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* The ladder of chapter 2: nine kernels for C = alpha A B + beta C, row-major and packed,
 * each kept runnable beside the better one.
 *
 * They are for reading, counting and timing. On the virtual GPU every thread is emulated,
 * whatever DLS_KERNELS says; for work take dls_gemm().
 */
#ifndef DLS_TENSOR_LADDER_H
#define DLS_TENSOR_LADDER_H

#include "tensor/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the ladder */
typedef struct dls_ladder_product {
    int M, N, K;
    float alpha, beta;
    const void *A;  // (M, K)  f32; bf16 for the tensor core
    const void *B;  // (K, N)  the same
    float *C;       // (M, N)  f32; not read when beta is 0
} dls_ladder_product;

typedef struct dls_ladder_step {
    const char *name;    // of the file: "naive", "coalesced", ...
    int rows, columns;   // the tile of C that a block computes
    double traffic;      // bytes of device memory per multiply-add
    dls_status (*launch)(cudaStream_t stream, const dls_ladder_product *p);
} dls_ladder_step;

enum { DLS_LADDER_STEPS = 9, DLS_LADDER_TENSOR_CORE = 9 };
extern const dls_ladder_step dls_ladder[DLS_LADDER_STEPS + 1];  // from 1; [0] is empty

/* Enqueues the product on ctx's stream by step 1 ... 9. A, B and C begin at multiples of
 * 16 bytes, as cudaMalloc gives them; C overlaps neither. A and B are not read when alpha
 * is 0. M, N and K may be 0.
 * Errors: DLS_ERR_STATE for a step that does not exist, a negative size, or more than
 * 65535 tiles of columns. */
dls_status dls_ladder_multiply(dls_ctx *ctx, int step, const dls_ladder_product *p);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/rows.h: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* Moving rows of a matrix (V, C), of the context's type. */
#ifndef DLS_KERNELS_ROWS_H
#define DLS_KERNELS_ROWS_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out (n, C) = rows `numbers` (n) of x (V, C); and back. The numbers are distinct. */
dls_status dls_rows_gather(dls_ctx *ctx, void *out, const void *x, const int *numbers,
                           int n, int C);
dls_status dls_rows_scatter(dls_ctx *ctx, void *x, const void *from, const int *numbers,
                            int n, int C);

/* x (V, C) = from, but for rows with a mark in `kept` (V). */
dls_status dls_rows_put_outside(dls_ctx *ctx, void *x, const void *from,
                                const unsigned char *kept, int V, int C);

#ifdef __cplusplus
}
#endif
#endif

/* code/kernels/orthogonal.h: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Orthonormal columns for PowerSGD. Elements have the context's type, f32 or f64. */
#ifndef DLS_KERNELS_ORTHOGONAL_H
#define DLS_KERNELS_ORTHOGONAL_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The columns of p (rows, columns) become orthonormal, in order; a column that depends on
 * those before it becomes 0. Gram-Schmidt, modified and twice: Giraud and others 2005. */
dls_status dls_orthogonalise(dls_ctx *ctx, void *p, int rows, int columns);

/* Columns of q (rows, columns) that are 0 := those of fresh. */
dls_status dls_refill_columns(dls_ctx *ctx, void *q, const void *fresh, int rows,
                              int columns);

#ifdef __cplusplus
}
#endif
#endif

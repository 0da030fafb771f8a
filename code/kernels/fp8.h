/* code/kernels/fp8.h: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows (., C) of the context's type as fp8: a scale for every 128 columns.
 *
 *   wire row:  | f32 scale of each group | C codes E4M3 | zeros up to 4 bytes |
 *
 * A scale is a power of two, the least with which the group's finite elements are at most
 * 448; what is not finite becomes NaN. DeepSeek-V3, section 3.3. */
#ifndef DLS_KERNELS_FP8_H
#define DLS_KERNELS_FP8_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare rows in fp8 */
enum { DLS_FP8_GROUP = 128 }; // columns that share a scale

/* Bytes of a wire row of C columns: a multiple of 4. */
static inline size_t dls_fp8_row_bytes(int C)
{
    int groups = (C + DLS_FP8_GROUP - 1) / DLS_FP8_GROUP;
    return 4 * (size_t)(groups + (C + 3) / 4);
}

/* wire (n, dls_fp8_row_bytes(C)) := x (n, C); elements pass through f32. */
dls_status dls_fp8_pack(dls_ctx *ctx, void *wire, const void *x, int n, int C);

/* x (n, C) := what the wire rows stand for, in the context's type. */
dls_status dls_fp8_unpack(dls_ctx *ctx, void *x, const void *wire, int n, int C);

#ifdef __cplusplus
}
#endif
#endif

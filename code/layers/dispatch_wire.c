/* code/layers/dispatch_wire.c: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows and what stands for them on the wire. */
#include "layers/dispatch_internal.h"

#include "kernels/fp8.h"
#include "kernels/wire.h"

/* choose the wire */
dls_row_type dls_dispatch_row_type(const dls_dispatch *d, dls_dtype dtype, int back)
{
    dls_row_type type = d->sharding.wire;
    if (type == DLS_ROWS_FP8 && back)
        type = DLS_ROWS_BF16;
    return type == DLS_ROWS_BF16 && dtype == DLS_BF16 ? DLS_ROWS_SAME : type;
}

size_t dls_dispatch_row_bytes(const dls_dispatch *d, dls_dtype dtype, int back)
{
    dls_row_type type = dls_dispatch_row_type(d, dtype, back);
    return type == DLS_ROWS_FP8    ? dls_fp8_row_bytes(d->columns)
           : type == DLS_ROWS_BF16 ? 2 * (size_t)d->columns
                                   : d->columns * dls_dtype_size(dtype);
}

/* convert for the wire */
dls_status dls_dispatch_pack(dls_ctx *ctx, dls_row_type type, void *wire,
                             const void *rows, int n, int C)
{
    return type == DLS_ROWS_FP8 ? dls_fp8_pack(ctx, wire, rows, n, C)
         : dls_to_wire(ctx, wire, DLS_WIRE_BF16, rows, (size_t)n * C, 1);
}

dls_status dls_dispatch_unpack(dls_ctx *ctx, dls_row_type type, void *rows,
                               const void *wire, int n, int C)
{
    return type == DLS_ROWS_FP8 ? dls_fp8_unpack(ctx, rows, wire, n, C)
         : dls_from_wire(ctx, rows, wire, DLS_WIRE_BF16, (size_t)n * C, 1);
}

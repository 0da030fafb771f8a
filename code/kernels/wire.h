/* code/kernels/wire.h: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Conversions for the wire: arrays of the context's type to another type, and back. */
#ifndef DLS_KERNELS_WIRE_H
#define DLS_KERNELS_WIRE_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the conversions */
typedef enum dls_wire_type {
    DLS_WIRE_F32, DLS_WIRE_F64, DLS_WIRE_BF16, DLS_WIRE_F16
} dls_wire_type;

/* out (n) of type `type` = scale * in, rounded to nearest even; through f32 when one of
 * the two types is 16 bits wide. */
dls_status dls_to_wire(dls_ctx *ctx, void *out, dls_wire_type type, const void *in,
                       size_t n, double scale);

/* out (n) = scale * in, in (n) of type `type`. */
dls_status dls_from_wire(dls_ctx *ctx, void *out, const void *in, dls_wire_type type,
                         size_t n, double scale);

#ifdef __cplusplus
}
#endif
#endif

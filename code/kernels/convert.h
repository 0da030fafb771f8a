/* code/kernels/convert.h: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Between a type and its accumulator's. */
#ifndef DLS_KERNELS_CONVERT_H
#define DLS_KERNELS_CONVERT_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = in rounded to the context's type, or out + in with one rounding if add is 1. */
dls_status dls_to_narrow(dls_ctx *ctx,
                      void *out,       // (n)
                      const void *in,  // (n) acc
                      size_t n, int add);

dls_status dls_to_wide(dls_ctx *ctx,
                     void *out,        // (n) acc
                     const void *in,   // (n)
                     size_t n);

#ifdef __cplusplus
}
#endif
#endif

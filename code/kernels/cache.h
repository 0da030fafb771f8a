/* code/kernels/cache.h: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* Appending to a cache of keys and values. */
#ifndef DLS_KERNELS_CACHE_H
#define DLS_KERNELS_CACHE_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cache[n / T][positions[n]] = the first `width` elements of row n. A position outside of
 * 0 .. length-1 leaves the cache alone. */
dls_status dls_cache_append(dls_ctx *ctx,
                            void *cache,           // (N / T, length, width)
                            const void *rows,      // (N, row)
                            size_t row,            // elements from one row to the next
                            const int *positions,  // (N)
                            int N, int T, int width, int length);

#ifdef __cplusplus
}
#endif
#endif

/* code/tensor/memory.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory that says what it is for. */
#ifndef DLS_TENSOR_MEMORY_H
#define DLS_TENSOR_MEMORY_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/dtype.h"
#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare device memory */
/* *pointer = room for `count` elements on the current device, entered under `purpose`.
 * The content is undefined. A count of 0 gives NULL.
 * Errors: DLS_ERR_MEMORY "device memory: N bytes for PURPOSE: ..."; *pointer is NULL. */
dls_status dls_device_alloc(void **pointer, size_t count, dls_dtype dtype,
                            dls_memory_purpose purpose);

void dls_device_free(void *pointer);  // NULL is allowed

#ifdef __cplusplus
}
#endif
#endif

/* code/vgpu/memory_internal.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to the virtual backend: what is known about an allocation. */
#ifndef DLS_VGPU_MEMORY_INTERNAL_H
#define DLS_VGPU_MEMORY_INTERNAL_H

#include "vgpu/gpu.h"

typedef struct dls_vgpu_block {
    char *start;
    size_t bytes;
    int device; // -1: pinned host memory
    dls_memory_purpose purpose;
} dls_vgpu_block;

/* The allocation that contains this address, or NULL. */
const dls_vgpu_block *dls_vgpu_block_at(const void *address);

#endif

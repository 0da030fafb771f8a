/* code/vgpu/accounts.h: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, both backends: what is known about every allocation. */
#ifndef DLS_VGPU_ACCOUNTS_H
#define DLS_VGPU_ACCOUNTS_H

#include "vgpu/gpu.h"

enum { DLS_ACCOUNT_DEVICES = 64 };

typedef struct dls_account_block {
    char *start;
    size_t bytes;
    int device; // -1: pinned host memory, not counted
    dls_memory_purpose purpose;
} dls_account_block;

/* Counts the block under the thread's current purpose; 0, or -1 without memory. */
int dls_account_add(void *start, size_t bytes, int device);
/* The block that contains this address, or NULL. */
const dls_account_block *dls_account_at(const void *address);
/* Any block of the device, or NULL. */
const dls_account_block *dls_account_any(int device);
void dls_account_remove(const dls_account_block *block);
void dls_account_get(int device, dls_gpu_memory *out); // all but the capacity

#endif

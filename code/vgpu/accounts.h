/* code/vgpu/accounts.h: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, both backends: what is known about every allocation. */
#ifndef DLS_VGPU_ACCOUNTS_H
#define DLS_VGPU_ACCOUNTS_H

#include "vgpu/gpu.h"

enum { DLS_ACCOUNT_DEVICES = 64 };

typedef enum dls_memory_kind {
    DLS_MEMORY_DEVICE, DLS_MEMORY_MANAGED, // of a device, counted
    DLS_MEMORY_PINNED, DLS_MEMORY_REGISTERED, // of the host, not counted
    DLS_MEMORY_SYMBOL // a variable of the program, on the device, not counted
} dls_memory_kind;

typedef struct dls_account_block {
    char *start;
    size_t bytes;
    int device; // -1: the host's, not counted
    dls_memory_purpose purpose;
    dls_memory_kind kind;
    unsigned int flags;
    const void *caller; // where it was allocated: an address in the code
} dls_account_block;

/* Counts the block under the thread's current purpose, whatever its own says; 0, or -1
 * without memory. */
int dls_account_add(dls_account_block block);
/* The block that contains this address, or NULL. */
const dls_account_block *dls_account_at(const void *address);
/* Does any block share a byte with this range? */
int dls_account_overlaps(const void *start, size_t bytes);
/* Any block of the device that was allocated, or NULL. */
const dls_account_block *dls_account_any(int device);
void dls_account_remove(const dls_account_block *block);
void dls_account_get(int device, dls_gpu_memory *out); // all but the capacity

#endif

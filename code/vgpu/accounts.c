/* code/vgpu/accounts.c: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Accounts of device memory by purpose.
 *
 * Blocks are kept in one array sorted by address; looking one up by any address inside it
 * is a binary search. Hundreds of allocations are usual, thousands fine; a hash table was
 * not tried, since it can not answer "inside". The caller holds a lock. */
#include "vgpu/accounts.h"

#include <stdlib.h>
#include <string.h>

/* keep the accounts */
static dls_gpu_memory accounts[DLS_ACCOUNT_DEVICES];
static dls_account_block *blocks;
static size_t block_count, block_capacity;
static _Thread_local dls_memory_purpose current_purpose = DLS_MEM_OTHER;

dls_memory_purpose dls_gpu_memory_purpose(dls_memory_purpose purpose)
{
    dls_memory_purpose before = current_purpose;
    current_purpose = (unsigned)purpose < DLS_MEM_PURPOSES ? purpose : DLS_MEM_OTHER;
    return before;
}

static void count(const dls_account_block *block)
{
    dls_gpu_memory *a = &accounts[block->device];
    int p = block->purpose;
    a->current[p] += block->bytes;
    a->total += block->bytes;
    if (a->peak[p] < a->current[p])
        a->peak[p] = a->current[p];
    if (a->total_peak < a->total)
        a->total_peak = a->total;
}

/* look up an address */
/* The number of blocks that start at or below the address. */
static size_t blocks_up_to(const void *address)
{
    size_t low = 0, high = block_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (blocks[middle].start <= (const char *)address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const dls_account_block *dls_account_at(const void *address)
{
    size_t n = blocks_up_to(address);
    if (n == 0)
        return NULL;
    const dls_account_block *b = &blocks[n - 1];
    return (const char *)address < b->start + b->bytes ? b : NULL;
}

const dls_account_block *dls_account_any(int device)
{
    for (size_t i = 0; i < block_count; i++)
        if (blocks[i].device == device && blocks[i].kind != DLS_MEMORY_SYMBOL)
            return &blocks[i];
    return NULL;
}

int dls_account_overlaps(const void *start, size_t bytes)
{
    size_t n = blocks_up_to((const char *)start + bytes - 1);
    return n > 0 && blocks[n - 1].start + blocks[n - 1].bytes > (const char *)start;
}

/* add and remove blocks */
int dls_account_add(dls_account_block block)
{
    if (block_count == block_capacity) {
        size_t capacity = block_capacity ? 2 * block_capacity : 64;
        dls_account_block *grown = realloc(blocks, capacity * sizeof *grown);
        if (grown == NULL)
            return -1;
        blocks = grown;
        block_capacity = capacity;
    }
    size_t at = blocks_up_to(block.start);
    memmove(blocks + at + 1, blocks + at, (block_count - at) * sizeof *blocks);
    blocks[at] = block;
    blocks[at].purpose = current_purpose;
    block_count++;
    if (block.device >= 0 && block.kind != DLS_MEMORY_SYMBOL)
        count(&blocks[at]);
    return 0;
}

void dls_account_remove(const dls_account_block *block)
{
    size_t at = (size_t)(block - blocks);
    if (block->device >= 0) {
        accounts[block->device].current[block->purpose] -= block->bytes;
        accounts[block->device].total -= block->bytes;
    }
    block_count--;
    memmove(blocks + at, blocks + at + 1, (block_count - at) * sizeof *blocks);
}

/* report the accounts */
void dls_account_get(int device, dls_gpu_memory *out) { *out = accounts[device]; }

void dls_gpu_memory_reset_peaks(int device)
{
    if (device < 0 || device >= DLS_ACCOUNT_DEVICES)
        return;
    dls_gpu_memory *a = &accounts[device];
    memcpy(a->peak, a->current, sizeof a->peak);
    a->total_peak = a->total;
}

const char *dls_memory_purpose_name(dls_memory_purpose purpose)
{
    static const char *const names[DLS_MEM_PURPOSES] = {
        "other", "parameters", "gradients", "optimizer", "activations", "communication",
    };
    return (unsigned)purpose < DLS_MEM_PURPOSES ? names[purpose] : "?";
}

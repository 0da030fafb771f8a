/* code/vgpu/gpu_virtual_memory.c: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory of the virtual backend: allocation, accounting, capacity.
 *
 * Allocations are kept in one array sorted by address; looking one up by any address
 * inside it is a binary search. Hundreds of allocations are usual, thousands fine.
 * Pinned host memory is in the same array with device -1: it is not counted, but copies
 * need to know that it is pinned. */
#include "vgpu/vgpu_internal.h"
#include "vgpu/memory_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* keep the accounts */
enum { ALIGNMENT = 256, TOUCH_LIMIT = 64 << 20 };

static dls_gpu_memory accounts[DLS_VGPU_DEVICES];
static dls_vgpu_block *blocks;
static size_t block_count, block_capacity;
static _Thread_local dls_memory_purpose current_purpose = DLS_MEM_OTHER;

dls_memory_purpose dls_gpu_memory_purpose(dls_memory_purpose purpose)
{
    dls_memory_purpose before = current_purpose;
    current_purpose = purpose;
    return before;
}

static void count(const dls_vgpu_block *block)
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

const dls_vgpu_block *dls_vgpu_block_at(const void *address)
{
    size_t n = blocks_up_to(address);
    if (n == 0)
        return NULL;
    const dls_vgpu_block *b = &blocks[n - 1];
    return (const char *)address < b->start + b->bytes ? b : NULL;
}

/* get memory from the system */
static void *system_allocate(size_t bytes)
{
    if (bytes > TOUCH_LIMIT) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    void *p = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (p)
        memset(p, 0xFF, bytes);
    return p;
}

static void system_free(const dls_vgpu_block *block)
{
    if (block->bytes > TOUCH_LIMIT)
        munmap(block->start, block->bytes);
    else
        free(block->start);
}

/* allocate and count */
static cudaError_t insert_block(dls_vgpu_block block)
{
    if (block_count == block_capacity) {
        size_t capacity = block_capacity ? 2 * block_capacity : 64;
        dls_vgpu_block *grown = realloc(blocks, capacity * sizeof *grown);
        if (grown == NULL)
            return cudaErrorMemoryAllocation;
        blocks = grown;
        block_capacity = capacity;
    }
    size_t at = blocks_up_to(block.start);
    memmove(blocks + at + 1, blocks + at, (block_count - at) * sizeof *blocks);
    blocks[at] = block;
    block_count++;
    return cudaSuccess;
}

static cudaError_t allocate(void **out, size_t bytes, int device)
{
    size_t capacity = (size_t)dls_vgpu.cluster.device.memory_bytes;
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess; // as CUDA: a null pointer
    if (device >= 0 && bytes > capacity - accounts[device].total)
        return cudaErrorMemoryAllocation;
    dls_vgpu_block block = {system_allocate(bytes), bytes, device, current_purpose};
    if (block.start == NULL)
        return cudaErrorMemoryAllocation;
    if (insert_block(block) != cudaSuccess) {
        system_free(&block);
        return cudaErrorMemoryAllocation;
    }
    if (device >= 0)
        count(&block);
    *out = block.start;
    return cudaSuccess;
}

/* free and uncount */
static cudaError_t release(void *pointer, int is_host)
{
    const dls_vgpu_block *found = dls_vgpu_block_at(pointer);
    if (found == NULL || found->start != pointer || (found->device < 0) != is_host)
        return cudaErrorInvalidValue;
    cudaError_t error = dls_vgpu_finish_device(found->device, 1);
    dls_vgpu_block block = *found;
    size_t at = (size_t)(found - blocks);
    block_count--;
    memmove(blocks + at, blocks + at + 1, (block_count - at) * sizeof *blocks);
    if (!is_host) {
        accounts[block.device].current[block.purpose] -= block.bytes;
        accounts[block.device].total -= block.bytes;
    }
    system_free(&block);
    return error;
}

void dls_vgpu_memory_reset(int device)
{
    for (size_t i = block_count; i-- > 0;)
        if (blocks[i].device == device)
            release(blocks[i].start, 0);
}

/* call the allocator by its cuda names */
cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && pointer == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = allocate(pointer, bytes, dls_vgpu_device());
    return dls_vgpu_leave(error);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned int flags)
{
    if (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost) {
        cudaError_t error = dls_vgpu_enter();
        return dls_vgpu_leave(error ? error : cudaErrorInvalidValue);
    }
    return cudaMalloc(pointer, bytes);
}

cudaError_t cudaFree(void *pointer)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && pointer)
        error = release(pointer, 0);
    return dls_vgpu_leave(error);
}

cudaError_t dls_gpu_alloc_shared(void **pointer, size_t bytes)
{
    return cudaMalloc(pointer, bytes);
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (pointer == NULL || flags > 7))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = allocate(pointer, bytes, -1);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *pointer)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && pointer)
        error = release(pointer, 1);
    return dls_vgpu_leave(error);
}

/* answer questions about memory */
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (free_bytes == NULL || total_bytes == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        *total_bytes = (size_t)dls_vgpu.cluster.device.memory_bytes;
        *free_bytes = *total_bytes - accounts[dls_vgpu_device()].total;
    }
    return dls_vgpu_leave(error);
}

dls_status dls_gpu_memory_stats(int device, dls_gpu_memory *out)
{
    cudaError_t error = dls_vgpu_leave(dls_vgpu_enter());
    if (error == cudaErrorInitializationError)
        return dls_gpu_fail(error, "dls_gpu_memory_stats", __FILE__, __LINE__);
    if (device < 0 || device >= dls_vgpu.cluster.gpus_per_node)
        return DLS_FAIL(DLS_ERR_INPUT, "device %d: expected 0 to %d", device,
                        dls_vgpu.cluster.gpus_per_node - 1);
    *out = accounts[device];
    out->capacity = (size_t)dls_vgpu.cluster.device.memory_bytes;
    return DLS_OK;
}

void dls_gpu_memory_reset_peaks(int device)
{
    if (device < 0 || device >= DLS_VGPU_DEVICES)
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

/* code/vgpu/gpu_virtual_memory.c: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory of the virtual backend: cudaMalloc and its relatives. Small blocks are
 * filled with NaN, large ones are mapped and never touched (see the chapter). */
#include "vgpu/observer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vgpu/accounts.h"
#include "vgpu/space.h"

/* get memory from the system */
enum { ALIGNMENT = 256, TOUCH_LIMIT = 64 << 20 };

static void *(*take_shared)(size_t bytes); // of dls_gpu_set_shared_memory
static int (*give_shared)(void *at, size_t bytes);

static void *system_allocate(const dls_account_block *want)
{
    size_t bytes = want->bytes;
    void *shared;
    if (dls_vgpu_observer)
        return dls_vgpu_observer->allocate(bytes, want->device, want->caller);
    if (want->kind == DLS_MEMORY_DEVICE)
        return dls_space_take(want->device, bytes);
    if (want->kind == DLS_MEMORY_MANAGED && take_shared &&
        (shared = take_shared(bytes)) != NULL)
        return shared;
    if (bytes > TOUCH_LIMIT) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return NULL;
        madvise(p, bytes, MADV_HUGEPAGE);
        return p;
    }
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static void system_free(void *p, size_t bytes)
{
    if (dls_vgpu_observer)
        dls_vgpu_observer->release(p);
    else if (dls_space_has(p))
        dls_space_give(p, bytes);
    else if (give_shared && give_shared(p, bytes))
        return;
    else if (bytes > TOUCH_LIMIT)
        munmap(p, bytes);
    else
        free(p);
}

void dls_gpu_set_shared_memory(void *(*take)(size_t bytes),
                               int (*give)(void *at, size_t bytes))
{
    take_shared = take;
    give_shared = give;
}

/* allocate within the capacity */
static cudaError_t allocate(void **out, dls_account_block want)
{
    size_t capacity = (size_t)dls_vgpu.cluster.device.memory_bytes;
    dls_gpu_memory used = {0};
    *out = NULL;
    if (want.bytes == 0)
        return cudaSuccess; // as CUDA: a null pointer
    if (want.device >= 0) {
        dls_account_get(want.device, &used);
        size_t cached = dls_vgpu_pool_cached(want.device);
        if (want.bytes > capacity - used.total - cached)
            return cudaErrorMemoryAllocation;
    }
    want.start = system_allocate(&want);
    if (want.start == NULL)
        return cudaErrorMemoryAllocation;
    if (dls_account_add(want) != 0) {
        system_free(want.start, want.bytes);
        return cudaErrorMemoryAllocation;
    }
    if (want.bytes <= TOUCH_LIMIT && !dls_vgpu_observer)
        memset(dls_space_reach(want.start), 0xFF, want.bytes);
    *out = want.start;
    return cudaSuccess;
}
/* lend the allocator to the pool */

cudaError_t dls_vgpu_allocate(void **out, size_t bytes, int device, const void *caller)
{
    return allocate(out, (dls_account_block){.bytes = bytes, .device = device,
                                             .caller = caller});
}

void dls_vgpu_system_free(void *start, size_t bytes) { system_free(start, bytes); }

/* free when the device is done */
static cudaError_t release(void *pointer, int is_host)
{
    const dls_account_block *block = dls_account_at(pointer);
    if (block == NULL || block->start != pointer ||
        (block->kind == DLS_MEMORY_PINNED) != is_host ||
        block->kind >= DLS_MEMORY_REGISTERED) {
        if (dls_vgpu_observer)
            dls_vgpu_observer->refused_free(pointer, is_host);
        return cudaErrorInvalidValue;
    }
    size_t bytes = block->bytes;
    cudaError_t error = dls_vgpu_finish_device(block->device, 1);
    dls_vgpu_pool_forget(pointer);
    dls_account_remove(block);
    system_free(pointer, bytes);
    return error;
}

void dls_vgpu_memory_reset(int device)
{
    const dls_account_block *block;
    while ((block = dls_account_any(device)) != NULL)
        release(block->start, 0);
}

/* call the allocator by its cuda names */
cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && pointer == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_unsafe(-1);
    if (error == cudaSuccess)
        error = allocate(pointer, (dls_account_block){
            .bytes = bytes, .device = dls_vgpu_device(), .kind = DLS_MEMORY_DEVICE,
            .caller = __builtin_return_address(0)});
    return dls_vgpu_leave(error);
}

static cudaError_t allocate_managed(void **pointer, size_t bytes, unsigned int flags,
                                    const void *caller)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        (pointer == NULL || bytes == 0 ||
         (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost)))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_unsafe(-1);
    if (error == cudaSuccess)
        error = allocate(pointer, (dls_account_block){
            .bytes = bytes, .device = dls_vgpu_device(), .kind = DLS_MEMORY_MANAGED,
            .flags = flags, .caller = caller});
    if (error == cudaSuccess && dls_vgpu_observer)
        dls_vgpu_observer->managed(*pointer);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned int flags)
{
    return allocate_managed(pointer, bytes, flags, __builtin_return_address(0));
}

cudaError_t cudaFree(void *pointer)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && pointer)
        error = dls_vgpu_capture_unsafe(-1);
    if (error == cudaSuccess && pointer)
        error = release(pointer, 0);
    return dls_vgpu_leave(error);
}

cudaError_t dls_gpu_alloc_shared(void **pointer, size_t bytes)
{
    if (pointer && bytes == 0) {
        *pointer = NULL;
        return cudaSuccess;
    }
    return allocate_managed(pointer, bytes, cudaMemAttachGlobal,
                            __builtin_return_address(0));
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (pointer == NULL || flags > 7))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = allocate(pointer, (dls_account_block){
            .bytes = bytes, .device = -1, .kind = DLS_MEMORY_PINNED, .flags = flags,
            .caller = __builtin_return_address(0)});
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
    dls_gpu_memory used;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (free_bytes == NULL || total_bytes == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        dls_account_get(dls_vgpu_device(), &used);
        *total_bytes = (size_t)dls_vgpu.cluster.device.memory_bytes;
        *free_bytes = *total_bytes - used.total - dls_vgpu_pool_cached(dls_vgpu_device());
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
    dls_account_get(device, out);
    out->capacity = (size_t)dls_vgpu.cluster.device.memory_bytes;
    return DLS_OK;
}

/* code/vgpu/gpu_virtual_pool.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Stream-ordered allocation of the virtual backend: one pool per device.
 *
 *   live block   <--cudaMallocAsync--  cached block (its free's mark)  --> the system
 *                --cudaFreeAsync---->      reused: same stream, or mark passed
 *
 * Live blocks are in the accounts under their purpose; cached ones only count against
 * the capacity. A block is reused for a request of exactly its size: splitting and
 * joining, which real pools do, would change no time here. Not built: pools of the
 * program's own, allocation inside a capture, reuse through event dependencies. */
#include "vgpu/observer.h"

#include <stdlib.h>

#include "vgpu/accounts.h"
#include "vgpu/waits.h"

/* keep the blocks of the pools */
typedef struct block {
    struct block *next;
    void *start;
    size_t bytes;
    int device;
    struct CUstream_st *stream; // of the free
    dls_vgpu_mark *freed;       // NULL: live
} block;

struct CUmemPoolHandle_st {
    unsigned long long threshold; // bytes that a synchronisation leaves in the pool
};

static block *blocks;
static struct CUmemPoolHandle_st pools[DLS_VGPU_DEVICES];

static block **find_live(const void *start)
{
    block **link = &blocks;
    while (*link && ((*link)->start != start || (*link)->freed))
        link = &(*link)->next;
    return link;
}

static void unlink_block(block **link)
{
    block *b = *link;
    *link = b->next;
    dls_vgpu_drop(b->freed);
    free(b);
}

/* return blocks to the system */
static int passed(dls_vgpu_mark *mark)
{
    if (dls_gpu_host_waits().threads == 1) // else our lists may change while it sleeps
        dls_vgpu_settle(mark);
    while (!mark->done && dls_vgpu_step() > 0)
        ;
    return mark->done && mark->time <= dls_vgpu.host_time;
}

static size_t cached_bytes(int device)
{
    size_t sum = 0;
    for (const block *b = blocks; b; b = b->next)
        if (b->freed && b->device == device)
            sum += b->bytes;
    return sum;
}

/* Gives reached blocks back until at most `keep` bytes are cached. */
static void release_cached(int device, unsigned long long keep)
{
    size_t cached = cached_bytes(device);
    for (block **link = &blocks; *link && cached > keep;) {
        block *b = *link;
        if (b->freed && b->device == device && passed(b->freed)) {
            cached -= b->bytes;
            dls_vgpu_system_free(b->start, b->bytes);
            unlink_block(link);
        } else {
            link = &b->next;
        }
    }
}

size_t dls_vgpu_pool_cached(int device)
{
    release_cached(device, pools[device].threshold);
    return cached_bytes(device);
}

void dls_vgpu_pool_forget(const void *start)
{
    block **link = find_live(start);
    if (*link)
        unlink_block(link);
}

/* reuse a block */
/* The stream's own blocks first, then any whose free has been reached. */
static block *find_reusable(const struct CUstream_st *s, size_t bytes)
{
    block *reached = NULL;
    for (block *b = blocks; b; b = b->next) {
        if (b->freed == NULL || b->device != s->device || b->bytes != bytes)
            continue;
        if (b->stream == s)
            return b;
        if (reached == NULL && passed(b->freed))
            reached = b;
    }
    return reached;
}

static cudaError_t reuse(block *b, void **out, const void *caller)
{
    void *start = dls_vgpu_observer ? dls_vgpu_observer->renew(b->start) : b->start;
    if (start == NULL ||
        dls_account_add((dls_account_block){.start = start, .bytes = b->bytes,
                                            .device = b->device, .caller = caller}) != 0)
        return cudaErrorMemoryAllocation;
    dls_vgpu_drop(b->freed);
    b->freed = NULL;
    *out = b->start = start;
    return cudaSuccess;
}

/* allocate in stream order */
static cudaError_t fresh(const struct CUstream_st *s, size_t bytes, void **out,
                         const void *caller)
{
    block *b = calloc(1, sizeof *b);
    if (b == NULL)
        return cudaErrorMemoryAllocation;
    cudaError_t error = dls_vgpu_allocate(out, bytes, s->device, caller);
    if (error == cudaErrorMemoryAllocation) {
        release_cached(s->device, 0);
        error = dls_vgpu_allocate(out, bytes, s->device, caller);
    }
    if (error != cudaSuccess) {
        free(b);
        return error;
    }
    *b = (block){.next = blocks, .start = *out, .bytes = bytes, .device = s->device};
    blocks = b;
    return cudaSuccess;
}

cudaError_t cudaMallocAsync(void **pointer, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && pointer == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_refuse(s);
    if (error == cudaSuccess) {
        *pointer = NULL;
        block *b = bytes ? find_reusable(s, bytes) : NULL;
        if (b)
            error = reuse(b, pointer, __builtin_return_address(0));
        else if (bytes)
            error = fresh(s, bytes, pointer, __builtin_return_address(0));
    }
    return dls_vgpu_leave(error);
}

/* free in stream order */
static cudaError_t submit_free(struct CUstream_st *s, block *b)
{
    cudaError_t error = dls_vgpu_order(s);
    dls_vgpu_operation *o = error ? NULL : dls_vgpu_operation_new(DLS_VGPU_RECORD);
    if (o == NULL)
        return error ? error : cudaErrorMemoryAllocation;
    o->op.name = "free";
    o->arg = b->start; // for an observer
    b->stream = s;
    b->freed = dls_vgpu_hold(o->mark);
    dls_account_remove(dls_account_at(b->start));
    return dls_vgpu_submit(s, o);
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    block *b = pointer ? *find_live(pointer) : NULL;
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && pointer && (b == NULL || b->device != s->device)) {
        error = cudaErrorInvalidValue;
        if (dls_vgpu_observer)
            dls_vgpu_observer->refused_free(pointer, 0);
    }
    if (error == cudaSuccess)
        error = dls_vgpu_capture_refuse(s);
    if (error == cudaSuccess && pointer)
        error = submit_free(s, b);
    return dls_vgpu_leave(error);
}

/* ask the pool */
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (device < 0 || device >= dls_vgpu.cluster.gpus_per_node))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess && pool == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *pool = &pools[device];
    return dls_vgpu_leave(error);
}

static int is_pool(cudaMemPool_t pool)
{
    return pool >= pools && pool < pools + DLS_VGPU_DEVICES;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && !is_pool(pool))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        release_cached((int)(pool - pools), keep);
    return dls_vgpu_leave(error);
}

static cudaError_t attribute(int device, enum cudaMemPoolAttr which,
                             unsigned long long *out)
{
    size_t cached = dls_vgpu_pool_cached(device), used = 0;
    for (const block *b = blocks; b; b = b->next)
        if (b->freed == NULL && b->device == device)
            used += b->bytes;
    if (which == cudaMemPoolAttrReleaseThreshold)
        *out = pools[device].threshold;
    else if (which == cudaMemPoolAttrReservedMemCurrent)
        *out = cached + used;
    else if (which == cudaMemPoolAttrUsedMemCurrent)
        *out = used;
    else
        return cudaErrorNotSupported;
    return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr which,
                                    void *value)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (!is_pool(pool) || value == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = attribute((int)(pool - pools), which, value);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr which,
                                    void *value)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (!is_pool(pool) || value == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && which != cudaMemPoolAttrReleaseThreshold)
        error = cudaErrorNotSupported;
    if (error == cudaSuccess)
        pool->threshold = *(const unsigned long long *)value;
    return dls_vgpu_leave(error);
}

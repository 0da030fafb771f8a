/* code/vgpu/gpu_virtual_foreign.c: from chapters/A-virtual-gpu-pitched.md. Edit the chapter, or edit here and run "make untangle". */
/* Memory that the runtime did not allocate: registered host memory and symbols; and what
 * is known about any pointer. */
#include "vgpu/vgpu_internal.h"

#include "vgpu/accounts.h"
#include "vgpu/space.h"

/* register host memory */
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        (pointer == NULL || bytes == 0 || flags > 15 || dls_space_has(pointer)))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && dls_account_overlaps(pointer, bytes))
        error = cudaErrorHostMemoryAlreadyRegistered;
    if (error == cudaSuccess &&
        dls_account_add((dls_account_block){
            .start = pointer, .bytes = bytes, .device = -1, .flags = flags,
            .kind = DLS_MEMORY_REGISTERED, .caller = __builtin_return_address(0)}) != 0)
        error = cudaErrorMemoryAllocation;
    return dls_vgpu_leave(error);
}

cudaError_t cudaHostUnregister(void *pointer)
{
    cudaError_t error = dls_vgpu_enter();
    const dls_account_block *b = pointer ? dls_account_at(pointer) : NULL;
    if (error == cudaSuccess && pointer == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess &&
        (b == NULL || b->start != pointer || b->kind != DLS_MEMORY_REGISTERED))
        error = cudaErrorHostMemoryNotRegistered;
    if (error == cudaSuccess) {
        error = dls_vgpu_finish_device(-1, 1); // a copy may be under way
        dls_account_remove(dls_account_at(pointer));
    }
    return dls_vgpu_leave(error);
}

static const dls_account_block *pinned_at(const void *pointer)
{
    const dls_account_block *b = pointer ? dls_account_at(pointer) : NULL;
    return b && (b->kind == DLS_MEMORY_PINNED || b->kind == DLS_MEMORY_REGISTERED) ? b
                                                                                   : NULL;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (device == NULL || flags != 0 || !pinned_at(host)))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *device = host; // one address space
    return dls_vgpu_leave(error);
}

cudaError_t cudaHostGetFlags(unsigned int *flags, void *host)
{
    cudaError_t error = dls_vgpu_enter();
    const dls_account_block *b = error ? NULL : pinned_at(host);
    if (error == cudaSuccess && (flags == NULL || b == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *flags = b->flags | cudaHostAllocMapped; // always, with unified addressing
    return dls_vgpu_leave(error);
}

/* answer for a pointer */
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes,
                                     const void *pointer)
{
    cudaError_t error = dls_vgpu_enter();
    void *p = (void *)(size_t)pointer;
    if (error == cudaSuccess && attributes == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        const dls_account_block *b = dls_account_at(pointer);
        struct cudaPointerAttributes a = {.device = cudaInvalidDeviceId,
                                          .hostPointer = p};
        if (b) {
            a.device = b->device >= 0 ? b->device : dls_vgpu_device();
            a.type = b->device < 0                    ? cudaMemoryTypeHost
                     : b->kind == DLS_MEMORY_MANAGED ? cudaMemoryTypeManaged
                                                     : cudaMemoryTypeDevice;
            a.devicePointer = p;
            if (a.type == cudaMemoryTypeDevice)
                a.hostPointer = NULL;
        }
        *attributes = a;
    }
    return dls_vgpu_leave(error);
}

/* advise on managed memory */
static cudaError_t check_managed(const void *pointer, size_t bytes)
{
    const dls_account_block *b = dls_account_at(pointer);
    return b && b->kind == DLS_MEMORY_MANAGED && bytes > 0 &&
           bytes <= (size_t)(b->start + b->bytes - (const char *)pointer)
               ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t check_place(struct cudaMemLocation at)
{
    if (at.type == cudaMemLocationTypeDevice)
        return at.id >= 0 && at.id < dls_vgpu.cluster.gpus_per_node
                   ? cudaSuccess : cudaErrorInvalidDevice;
    return (int)at.type >= cudaMemLocationTypeHost &&
           (int)at.type <= cudaMemLocationTypeHostNumaCurrent ? cudaSuccess
                                                              : cudaErrorInvalidValue;
}

cudaError_t cudaMemPrefetchAsync(const void *pointer, size_t bytes,
                                 struct cudaMemLocation location, unsigned int flags,
                                 cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = flags ? cudaErrorInvalidValue : check_managed(pointer, bytes);
    if (error == cudaSuccess)
        error = check_place(location);
    if (error == cudaSuccess && dls_vgpu_stream(stream) == NULL)
        error = cudaErrorInvalidResourceHandle;
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemAdvise(const void *pointer, size_t bytes, enum cudaMemoryAdvise advice,
                          struct cudaMemLocation location)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        ((int)advice < 1 || advice > cudaMemAdviseUnsetAccessedBy))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = check_managed(pointer, bytes);
    if (error == cudaSuccess && advice > cudaMemAdviseUnsetReadMostly &&
        advice != cudaMemAdviseUnsetPreferredLocation)
        error = check_place(location); // the others ignore it
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamAttachMemAsync(cudaStream_t stream, void *pointer, size_t bytes,
                                     unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && dls_vgpu_stream(stream) == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && flags != cudaMemAttachGlobal &&
        flags != cudaMemAttachHost && flags != cudaMemAttachSingle)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = check_managed(pointer, bytes ? bytes : 1);
    return dls_vgpu_leave(error);
}

/* know the symbols */
cudaError_t dls_vgpu_symbol(const void *symbol, size_t size, size_t bytes, size_t offset)
{
    cudaError_t error = dls_vgpu_enter();
    const dls_account_block *b = dls_account_at(symbol);
    if (error == cudaSuccess && (offset > size || bytes > size - offset))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && b == NULL &&
        dls_account_add((dls_account_block){
            .start = (char *)(size_t)symbol, .bytes = size, .device = dls_vgpu_device(),
            .kind = DLS_MEMORY_SYMBOL, .caller = symbol}) != 0)
        error = cudaErrorMemoryAllocation;
    return dls_vgpu_leave(error);
}

/* code/vgpu/shadow/vgpu_templates.h: from chapters/A-virtual-gpu-calls.md. Edit the chapter, or edit here and run "make untangle". */
/* What the CUDA runtime offers in C++ only: kernels by their type. */
#ifndef DLS_SHADOW_VGPU_TEMPLATES_H
#define DLS_SHADOW_VGPU_TEMPLATES_H

/* ask about a typed kernel */
template <class... P>
inline cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes,
                                         void (*kernel)(P...))
{
    return ::cudaFuncGetAttributes(attributes, reinterpret_cast<const void *>(kernel));
}

template <class F, class... P>
inline cudaError_t cudaOccupancyMaxPotentialBlockSizeVariableSMem(
    int *grid, int *block, void (*kernel)(P...), F shared_of, int limit = 0)
{
    int most = 0, count = 0, device = 0, each = 0;
    cudaError_t error = grid && block && kernel ? cudaGetDevice(&device)
                                                : cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    for (int n = limit > 0 && limit < 1024 ? (limit + 31) / 32 * 32 : 1024;
         n > 0 && error == cudaSuccess; n -= 32) {
        int threads = limit > 0 && n > limit ? limit : n;
        error = ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(
            &each, reinterpret_cast<const void *>(kernel), threads, shared_of(threads));
        if (error == cudaSuccess && each * threads > most) {
            most = each * threads;
            *block = threads;
            *grid = each * count;
        }
    }
    return error;
}

#ifndef gridDim // under probes a macro, so that no member can have this name
/* launch by a configuration */
enum cudaLaunchAttributeID {
    cudaLaunchAttributeIgnore = 0, cudaLaunchAttributeCooperative = 2,
    cudaLaunchAttributeClusterDimension = 4, cudaLaunchAttributePriority = 8
};
union cudaLaunchAttributeValue {
    char pad[64];
    int cooperative, priority;
    struct { unsigned x, y, z; } clusterDim;
};
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    char pad[4];
    cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

inline cudaError_t dls_launch_grid(const cudaLaunchConfig_t *c, const void *kernel,
                                   const char *file, int line, dls_simt_grid *g)
{
    if (c == nullptr || (c->numAttrs && c->attrs == nullptr))
        return cudaErrorInvalidValue;
    *g = {"kernel", file, line, {c->gridDim.x, c->gridDim.y, c->gridDim.z},
          {c->blockDim.x, c->blockDim.y, c->blockDim.z}, c->dynamicSmemBytes, 0, kernel,
          0, nullptr, nullptr};
    for (unsigned i = 0; i < c->numAttrs; i++) {
        const cudaLaunchAttribute &a = c->attrs[i];
        if (a.id == cudaLaunchAttributeCooperative)
            g->cooperative = a.val.cooperative;
        else if (a.id == cudaLaunchAttributeClusterDimension &&
                 a.val.clusterDim.x * a.val.clusterDim.y * a.val.clusterDim.z > 1)
            return cudaErrorNotSupported;
    }
    return cudaSuccess;
}

template <class... P, class... A>
inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *c, void (*kernel)(P...),
                                      A &&...arguments)
{
    dls_simt_grid g;
    cudaError_t error = dls_launch_grid(c, reinterpret_cast<const void *>(kernel),
                                        "cudaLaunchKernelEx", 0, &g);
    return error ? error : dls_simt_enqueue(g, c->stream, kernel,
                                            std::tuple<P...>(P(arguments)...));
}
#endif

/* allocate typed boxes */
template <class T>
inline cudaError_t cudaMallocPitch(T **pointer, size_t *pitch, size_t width,
                                   size_t height)
{
    return ::cudaMallocPitch(reinterpret_cast<void **>(pointer), pitch, width, height);
}
template <class T>
inline cudaError_t cudaHostAlloc(T **pointer, size_t bytes, unsigned flags)
{
    return ::cudaHostAlloc(reinterpret_cast<void **>(pointer), bytes, flags);
}
template <class T>
inline cudaError_t cudaHostGetDevicePointer(T **device, void *host, unsigned flags)
{
    return ::cudaHostGetDevicePointer(reinterpret_cast<void **>(device), host, flags);
}

#endif

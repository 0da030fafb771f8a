/* code/vgpu/shadow/cuda_runtime.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* What a CUDA program includes: the C interface, and in C++ also the typed allocation
 * functions, default arguments and the device side (vgpu_device.h). */
#ifndef DLS_SHADOW_CUDA_RUNTIME_H
#define DLS_SHADOW_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#ifdef __cplusplus
/* add the cpp overloads */
template <typename T> inline cudaError_t cudaMalloc(T **pointer, size_t bytes)
{
    return ::cudaMalloc(reinterpret_cast<void **>(pointer), bytes);
}
template <typename T> inline cudaError_t cudaMallocHost(T **pointer, size_t bytes)
{
    return ::cudaMallocHost(reinterpret_cast<void **>(pointer), bytes);
}
template <typename T>
inline cudaError_t cudaMallocManaged(T **pointer, size_t bytes, unsigned int flags = 1)
{
    return ::cudaMallocManaged(reinterpret_cast<void **>(pointer), bytes, flags);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event)
{
    return ::cudaStreamWaitEvent(stream, event, 0u);
}
inline cudaError_t cudaEventRecord(cudaEvent_t event)
{
    return ::cudaEventRecord(event, nullptr);
}
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                                   cudaMemcpyKind kind)
{
    return ::cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes)
{
    return ::cudaMemsetAsync(to, value, bytes, nullptr);
}
extern "C" cudaError_t dls_simt_set_attribute(const void *kernel, int attribute,
                                              int value);
template <typename F>
inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attribute, int value)
{
    return dls_simt_set_attribute(reinterpret_cast<const void *>(kernel), attribute,
                                  value);
}

#include "vgpu_device.h"
#include "vgpu_templates.h"
#endif
#include "vgpu_everyday.h"
#include "vgpu_sites.h"
#endif

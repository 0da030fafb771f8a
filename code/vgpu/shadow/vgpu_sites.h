/* code/vgpu/shadow/vgpu_sites.h: from chapters/A-virtual-gpu-waits.md. Edit the chapter, or edit here and run "make untangle". */
/* Notes where the host calls what may wait: cudaStreamSynchronize(s) becomes
 * cudaStreamSynchronize(note the place ? s : 0). Function-like macros, so that
 * &cudaEventQuery and ::cudaEventQuery(e) still mean what they say. */
#ifndef DLS_SHADOW_VGPU_SITES_H
#define DLS_SHADOW_VGPU_SITES_H

#ifdef __cplusplus
extern "C"
#endif
int dls_vgpu_site(const char *call, const char *file, int line); // always 1

#ifndef DLS_VGPU_NO_SITES
#define DLS_VGPU_AT(call, type, first) \
    (dls_vgpu_site(call, __FILE__, __LINE__) ? (first) : (type)0)
/* note the calls that may wait */
#define cudaStreamSynchronize(s) \
    cudaStreamSynchronize(DLS_VGPU_AT("cudaStreamSynchronize", cudaStream_t, s))
#define cudaEventSynchronize(e) \
    cudaEventSynchronize(DLS_VGPU_AT("cudaEventSynchronize", cudaEvent_t, e))
#define cudaStreamQuery(s) \
    cudaStreamQuery(DLS_VGPU_AT("cudaStreamQuery", cudaStream_t, s))
#define cudaEventQuery(e) \
    cudaEventQuery(DLS_VGPU_AT("cudaEventQuery", cudaEvent_t, e))
#define cudaMemcpy(to, ...) \
    cudaMemcpy(DLS_VGPU_AT("cudaMemcpy", void *, to), __VA_ARGS__)
#define cudaStreamWaitEvent(s, ...) \
    cudaStreamWaitEvent(DLS_VGPU_AT("cudaStreamWaitEvent", cudaStream_t, s), __VA_ARGS__)
#ifdef __cplusplus
inline cudaError_t cudaDeviceSynchronize(int) { return ::cudaDeviceSynchronize(); }
#define cudaDeviceSynchronize() \
    cudaDeviceSynchronize(DLS_VGPU_AT("cudaDeviceSynchronize", int, 0))
#else
#define cudaDeviceSynchronize() \
    (dls_vgpu_site("cudaDeviceSynchronize", __FILE__, __LINE__), \
     (cudaDeviceSynchronize)())
#endif
#endif
#endif

/* code/vgpu/gpu_virtual_errors.c: from chapters/A-virtual-gpu-devices.md. Edit the chapter, or edit here and run "make untangle". */
/* cudaGetErrorName and cudaGetErrorString. */
#include <cuda_runtime.h>

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define X(name, number, text) case cuda##name: return text;
        DLS_CUDA_ERRORS(X)
#undef X
    default: return "unrecognized error code";
    }
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define X(name, number, text) case cuda##name: return "cuda" #name;
        DLS_CUDA_ERRORS(X)
#undef X
    default: return "unrecognized error code";
    }
}

/* code/vgpu/gpu_virtual_cublas.c: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* The handle of cuBLAS on the virtual backend: its modes, and the texts of its errors. */
#include "vgpu/blas.h"

#include <stdlib.h>

/* make a cublas handle */
cublasStatus_t cublasCreate(cublasHandle_t *handle)
{
    int device;
    if (handle == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (cudaGetDevice(&device) != cudaSuccess)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = calloc(1, sizeof **handle);
    if (*handle == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    (*handle)->device = device;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

/* set and get the modes */
#define MODE(Name, T, field, valid)                                                     \
    cublasStatus_t cublasSet##Name(cublasHandle_t handle, T value)                      \
    {                                                                                   \
        if (handle == NULL)                                                             \
            return CUBLAS_STATUS_NOT_INITIALIZED;                                       \
        if (!(valid))                                                                   \
            return CUBLAS_STATUS_INVALID_VALUE;                                         \
        handle->field = value;                                                          \
        return CUBLAS_STATUS_SUCCESS;                                                   \
    }                                                                                   \
    cublasStatus_t cublasGet##Name(cublasHandle_t handle, T *value)                     \
    {                                                                                   \
        if (handle == NULL)                                                             \
            return CUBLAS_STATUS_NOT_INITIALIZED;                                       \
        if (value == NULL)                                                              \
            return CUBLAS_STATUS_INVALID_VALUE;                                         \
        *value = handle->field;                                                         \
        return CUBLAS_STATUS_SUCCESS;                                                   \
    }

MODE(Stream, cudaStream_t, stream, 1)
MODE(PointerMode, cublasPointerMode_t, pointer_mode, (unsigned)value <= 1)
MODE(MathMode, cublasMath_t, math_mode, ((unsigned)value & ~16u) <= 3)
MODE(AtomicsMode, cublasAtomicsMode_t, atomics, (unsigned)value <= 1)

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    return (size_t)workspace % 256 == 0 || bytes == 0 ? CUBLAS_STATUS_SUCCESS
                                                      : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGetVersion(cublasHandle_t handle, int *version)
{
    (void)handle;
    if (version == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *version = 130100;
    return CUBLAS_STATUS_SUCCESS;
}

/* name the cublas statuses */
#define STATUSES(X)                                                                     \
    X(SUCCESS, "success")                                                               \
    X(NOT_INITIALIZED, "the library was not initialized")                               \
    X(ALLOC_FAILED, "the resource allocation failed")                                   \
    X(INVALID_VALUE, "an unsupported value or parameter was passed to the function")    \
    X(ARCH_MISMATCH,                                                                    \
      "the function requires an architectural feature absent from the device")          \
    X(MAPPING_ERROR, "an access to GPU memory space failed")                            \
    X(EXECUTION_FAILED, "the function failed to launch on the GPU")                     \
    X(INTERNAL_ERROR, "an internal operation failed")                                   \
    X(NOT_SUPPORTED, "the requested functionality is not supported")                    \
    X(LICENSE_ERROR, "the license check failed")

const char *cublasGetStatusString(cublasStatus_t status)
{
    switch (status) {
#define X(name, text) case CUBLAS_STATUS_##name: return text;
        STATUSES(X)
#undef X
    default: return "unrecognized status";
    }
}

const char *cublasGetStatusName(cublasStatus_t status)
{
    switch (status) {
#define X(name, text) case CUBLAS_STATUS_##name: return "CUBLAS_STATUS_" #name;
        STATUSES(X)
#undef X
    default: return "unrecognized status";
    }
}

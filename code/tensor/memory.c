/* code/tensor/memory.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory: checked sizes, a purpose for each allocation, a useful refusal. */
#include "tensor/memory.h"

#include <stdint.h>
#include <stdio.h>

/* describe a full device */
enum { TEXT = 256 };

/* "8.00 of 80.00 GB in use (parameters 2.00, activations 6.00)" */
static void describe_use(char text[TEXT])
{
    dls_gpu_memory m;
    int device = 0, n;
    const char *separator = " (";
    text[0] = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        dls_gpu_memory_stats(device, &m) != DLS_OK)
        return;
    n = snprintf(text, TEXT, "%.2f of %.2f GB in use", (double)m.total * 1e-9,
                 (double)m.capacity * 1e-9);
    for (int p = 0; p < DLS_MEM_PURPOSES && n < TEXT; p++) {
        if (m.current[p] == 0)
            continue;
        n += snprintf(text + n, TEXT - (size_t)n, "%s%s %.2f", separator,
                      dls_memory_purpose_name((dls_memory_purpose)p),
                      (double)m.current[p] * 1e-9);
        separator = ", ";
    }
    if (separator[0] == ',' && n < TEXT)
        snprintf(text + n, TEXT - (size_t)n, ")");
}

/* allocate on the device */
dls_status dls_device_alloc(void **pointer, size_t count, dls_dtype dtype,
                            dls_memory_purpose purpose)
{
    size_t size = dls_dtype_size(dtype);
    char use[TEXT];
    *pointer = NULL;
    if (size == 0)
        return DLS_FAIL(DLS_ERR_STATE, "device memory: unknown element type %d",
                        (int)dtype);
    if (count == 0)
        return DLS_OK;
    if (count > SIZE_MAX / size)
        return DLS_FAIL(DLS_ERR_MEMORY, "device memory: %zu elements for %s: too many",
                        count, dls_memory_purpose_name(purpose));
    dls_memory_purpose before = dls_gpu_memory_purpose(purpose);
    cudaError_t error = cudaMalloc(pointer, count * size);
    dls_gpu_memory_purpose(before);
    if (error == cudaSuccess)
        return DLS_OK;
    *pointer = NULL;
    if (error != cudaErrorMemoryAllocation)
        return dls_gpu_fail((int)error, "cudaMalloc", __FILE__, __LINE__);
    cudaGetLastError();  // a refused allocation does not spoil the device
    describe_use(use);
    return DLS_FAIL(DLS_ERR_MEMORY, "device memory: %zu bytes for %s: %s", count * size,
                    dls_memory_purpose_name(purpose), use);
}

void dls_device_free(void *pointer)
{
    if (pointer)
        cudaFree(pointer);
}

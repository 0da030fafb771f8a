/* code/vgpu/gpu_virtual_everyday.c: from chapters/A-virtual-gpu-everyday.md. Edit the chapter, or edit here and run "make untangle". */
/* The block size with most threads; matrices and vectors to cuBLAS and back. */
#include "vgpu/vgpu_internal.h"

#include <cublas_v2.h>

#include "vgpu_everyday.h"

/* search the best block size */
cudaError_t cudaOccupancyMaxPotentialBlockSizeOf(int *grid, int *block,
                                                 const void *kernel, size_t shared,
                                                 int most)
{
    int best = 0, blocks = 0;
    if (grid == NULL || block == NULL || most < 0)
        return cudaErrorInvalidValue;
    for (int threads = 32; threads <= 1024; threads += 32) {
        if (most && threads > most)
            break;
        cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
            &blocks, kernel, threads, shared);
        if (error != cudaSuccess)
            return error;
        if (blocks * threads >= best) {
            best = blocks * threads;
            *block = threads;
            *grid = blocks * dls_gpu_cluster()->device.multiprocessors;
        }
    }
    return cudaSuccess;
}

/* carry matrices to cublas and back */
static cublasStatus_t cublas_carry(int rows, int columns, int element, const void *from,
                                   int from_ld, void *to, int to_ld, cudaMemcpyKind kind)
{
    if (rows < 0 || columns < 0 || element <= 0 || from_ld < rows || to_ld < rows ||
        from_ld <= 0 || to_ld <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    size_t e = (size_t)element;
    cudaError_t error = cudaMemcpy2D(to, e * (size_t)to_ld, from, e * (size_t)from_ld,
                                     e * (size_t)rows, (size_t)columns, kind);
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_MAPPING_ERROR;
}

cublasStatus_t cublasSetMatrix(int rows, int columns, int element, const void *from,
                               int from_ld, void *to, int to_ld)
{
    return cublas_carry(rows, columns, element, from, from_ld, to, to_ld,
                        cudaMemcpyHostToDevice);
}

cublasStatus_t cublasGetMatrix(int rows, int columns, int element, const void *from,
                               int from_ld, void *to, int to_ld)
{
    return cublas_carry(rows, columns, element, from, from_ld, to, to_ld,
                        cudaMemcpyDeviceToHost);
}

cublasStatus_t cublasSetVector(int n, int element, const void *from, int from_step,
                               void *to, int to_step)
{
    return cublas_carry(1, n, element, from, from_step, to, to_step,
                        cudaMemcpyHostToDevice);
}

cublasStatus_t cublasGetVector(int n, int element, const void *from, int from_step,
                               void *to, int to_step)
{
    return cublas_carry(1, n, element, from, from_step, to, to_step,
                        cudaMemcpyDeviceToHost);
}

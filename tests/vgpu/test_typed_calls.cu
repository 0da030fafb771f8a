/* tests/vgpu/test_typed_calls.cu: from chapters/A-virtual-gpu-calls.md. Edit the chapter, or edit here and run "make untangle". */
/* Kernels by their type: attributes, occupancy, launches by a configuration. */
#include <cuda_runtime.h>

#include "simt_test.h"

__global__ void add_to(int *x, int by) { x[threadIdx.x] += by; }

struct bytes_of_block {
    __host__ __device__ size_t operator()(int threads) const { return threads * 64ul; }
};

/* test kernels by their type */
Test(vgpu, kernels_are_asked_by_their_type)
{
    cudaFuncAttributes a;
    int grid = 0, block = 0, blocks = 0;
    OK(cudaFuncGetAttributes(&a, add_to));
    cr_expect_eq(a.maxThreadsPerBlock, 1024);
    OK(cudaOccupancyMaxPotentialBlockSizeVariableSMem(
        &grid, &block, add_to, bytes_of_block()));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add_to, block,
                                                     (size_t)block * 64));
    cr_expect_eq(grid % blocks, 0);
    cr_expect_eq(block % 32, 0);
}

#ifndef gridDim // a macro under probes
Test(vgpu, kernels_are_launched_by_a_configuration)
{
    cudaLaunchConfig_t c = {};
    int by = 5, *x;
    OK(cudaMallocManaged(&x, 4 * sizeof *x));
    for (int i = 0; i < 4; i++)
        x[i] = i;
    c.gridDim = dim3(1);
    c.blockDim = dim3(4);
    OK(cudaLaunchKernelEx(&c, add_to, x, 2));
    OK(cudaLaunchKernelEx(&c, add_to, x, by));
    OK(cudaDeviceSynchronize());
    cr_expect(x[0] == 7 && x[3] == 10);
    c.blockDim = dim3(2048);
    cr_expect_eq((int)cudaLaunchKernelEx(&c, add_to, x, 2),
                 (int)cudaErrorInvalidConfiguration);
    cudaGetLastError();
}
#endif

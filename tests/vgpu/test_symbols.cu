/* tests/vgpu/test_symbols.cu: from chapters/A-virtual-gpu-pitched.md. Edit the chapter, or edit here and run "make untangle". */
/* Copies to and from variables of the device. */
#include <cuda_runtime.h>

#include "simt_test.h"

__device__ int table[4];
__constant__ float factor;

__global__ void scale_table(int *out)
{
    out[threadIdx.x] = (int)factor * table[threadIdx.x];
}

/* test copies to symbols */
Test(vgpu, symbols_are_copied_within_their_size)
{
    const int host[5] = {1, 2, 3, 4, 5};
    int got[4] = {0}, *out, *address;
    float three = 3;
    size_t size = 0;
    OK(cudaMemcpyToSymbol(table, host, sizeof table));
    OK(cudaMemcpyToSymbol(factor, &three, sizeof three));
    OK(cudaMallocManaged(&out, sizeof got));
    scale_table<<<1, 4>>>(out);
    OK(cudaDeviceSynchronize());
    cr_expect(out[0] == 3 && out[3] == 12);
    OK(cudaMemcpyToSymbol(table, host + 3, 4, 8));
    OK(cudaMemcpyFromSymbol(got, table, sizeof got));
    cr_expect(got[1] == 2 && got[2] == 4 && got[3] == 4);
    OK(cudaGetSymbolAddress((void **)&address, table));
    OK(cudaMemcpy(address, host, 4, cudaMemcpyHostToDevice));
    OK(cudaGetSymbolSize(&size, table));
    cr_expect_eq(size, sizeof table);
    cr_expect_eq((int)cudaMemcpyToSymbol(table, host, sizeof host),
                 (int)cudaErrorInvalidValue);
    cr_expect_eq((int)cudaMemcpyToSymbol(table, host, 4, 13), (int)cudaErrorInvalidValue);
    cr_expect_eq((int)cudaMemcpyFromSymbol(got, table, 8, 12),
                 (int)cudaErrorInvalidValue);
    cr_expect_eq((int)cudaMemcpyToSymbol(table, host, 4, 0, cudaMemcpyDeviceToHost),
                 (int)cudaErrorInvalidMemcpyDirection);
    cr_expect_eq((int)cudaMemcpyFromSymbol(got, table, 4, 0, cudaMemcpyHostToDevice),
                 (int)cudaErrorInvalidMemcpyDirection);
    cr_expect_eq((int)cudaFree(address), (int)cudaErrorInvalidValue);
}

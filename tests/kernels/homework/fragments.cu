/* tests/kernels/homework/fragments.cu: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Who holds which element of a 16 x 16 left operand and of a 16 x 8 result? Prints
 * "operand row column lane register". */
#include <cuda_bf16.h>
#include <stdio.h>

#include "vgpu/ptx.cuh"

/* a[] is 16 x 16 with element i of value i; held[lane][4][2], sum[lane][4]. */
__global__ void look(const __nv_bfloat16 *a, __nv_bfloat16 *held, float *sum)
{
    __shared__ __align__(16) __nv_bfloat16 tile[16 * 16];
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += 32)
        tile[i] = a[i];
    __syncwarp();
    uint32_t r[4], unit[2] = {0, 0};
    dls_ldmatrix_x4(r, &tile[lane % 16 * 16 + lane / 16 * 8]);
    memcpy(held + 8 * lane, r, sizeof r);
    if (g / 2 == t)
        unit[0] = g % 2 ? 0x3f800000u : 0x3f80u;  // 1 at (g, g) of the first eight rows
    float c[4] = {0, 0, 0, 0};
    dls_mma_m16n8k16_bf16(sum + 4 * lane, r, unit, c);
}

/* print who holds what */
int main()
{
    __nv_bfloat16 *a, *held;
    float *sum;
    if (cudaMallocManaged(&a, 512) || cudaMallocManaged(&held, 512) ||
        cudaMallocManaged(&sum, 512))
        return 1;
    for (int i = 0; i < 256; i++)
        a[i] = __float2bfloat16((float)i);
    look<<<1, 32>>>(a, held, sum);
    if (cudaDeviceSynchronize())
        return 1;
    for (int i = 0; i < 256; i++) {
        int value = (int)__bfloat162float(held[i]);
        printf("A %d %d %d %d\n", value / 16, value % 16, i / 8, i % 8 / 2);
    }
    for (int i = 0; i < 128; i++) {
        int value = (int)sum[i];
        printf("C %d %d %d %d\n", value / 16, value % 16, i / 4, i % 4);
    }
    return cudaFree(a) || cudaFree(held) || cudaFree(sum);
}

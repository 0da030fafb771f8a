/* tests/vgpu/homework/managed_as_handed_in.cu: from chapters/A-virtual-gpu-homework.md. Edit the chapter, or edit here and run "make untangle". */
#include <stdio.h>

__global__ void square(int *p) { p[threadIdx.x] *= p[threadIdx.x]; }

int main()
{
    int *p, sum = 0;
    cudaMallocManaged(&p, 32 * sizeof *p);
    for (int i = 0; i < 32; i++)
        p[i] = i;
    square<<<1, 32>>>(p);
    for (int i = 0; i < 32; i++)
        sum += p[i];
    printf("%d\n", sum);
    cudaFree(p);
    return 0;
}

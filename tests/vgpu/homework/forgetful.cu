/* tests/vgpu/homework/forgetful.cu: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* A sum with three mistakes, for the checker to find. */
#include <cuda_runtime.h>

#include <stdio.h>

__global__ void sum(const float *x, float *out, int n)
{
    __shared__ float s[128];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    s[threadIdx.x] = i <= n ? x[i] : 0;
    for (unsigned half = 64; half; half /= 2) {
        if (threadIdx.x < half)
            s[threadIdx.x] += s[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = s[0];
}

int main()
{
    float *x, *out;
    cudaMalloc(&x, 200 * sizeof(float));
    cudaMalloc(&out, 2 * sizeof(float));
    cudaMemset(x, 0, 200 * sizeof(float));
    sum<<<2, 128>>>(x, out, 200);
    cudaDeviceSynchronize();
    cudaFree(x);
    return 0;
}

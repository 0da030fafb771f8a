/* tests/vgpu/homework/sum_as_handed_in.cu: from chapters/A-virtual-gpu-homework.md. Edit the chapter, or edit here and run "make untangle". */
#include <stdio.h>

__global__ void sum(const float *x, float *out, int n)
{
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    if (i < n)
        s[t] = x[i];
    for (int by = blockDim.x / 2; by > 0; by /= 2)
        if (t < by)
            s[t] += s[t + by];
    if (t == 0)
        out[blockIdx.x] = s[0];
}

int main()
{
    const int n = 1000;
    float host[1000], sums[4], *x, *out;
    for (int i = 0; i < n; i++)
        host[i] = 1;
    cudaMalloc(&x, sizeof host);
    cudaMalloc(&out, sizeof sums);
    cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice);
    sum<<<4, 256>>>(x, out, n);
    cudaMemcpy(sums, out, sizeof sums, cudaMemcpyDeviceToHost);
    printf("%g\n", sums[0] + sums[1] + sums[2] + sums[3]);
    cudaFree(x);
    return 0;
}

/* tests/cli/homework/vector_add.cu: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
#include <stdio.h>

__global__ void add(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}

int main()
{
    const int n = 1000;
    float host[1000], *a, *b, *c;
    for (int i = 0; i < n; i++)
        host[i] = i;
    cudaMalloc(&a, n * sizeof(float));
    cudaMalloc(&b, n * sizeof(float));
    cudaMalloc(&c, n * sizeof(float));
    cudaMemcpy(a, host, n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpy(b, host, n * sizeof(float), cudaMemcpyHostToDevice);
    add<<<(n + 255) / 256, 256>>>(a, b, c, n);
    cudaMemcpy(host, c, n * sizeof(float), cudaMemcpyDeviceToHost);
    printf("%g %g\n", host[1], host[999]);
    cudaFree(a);
    cudaFree(b);
    cudaFree(c);
    return 0;
}

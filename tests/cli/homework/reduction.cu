/* tests/cli/homework/reduction.cu: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
#include <cstdio>

__global__ void sum(const int *in, int *out, int n)
{
    __shared__ int part[128];
    int t = threadIdx.x, i = blockIdx.x * 128 + t;
    part[t] = i < n ? in[i] : 0;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half)
            part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0)
        atomicAdd(out, part[0]);
}

int main()
{
    int *in, *out, n = 1000, result = 0;
    cudaMallocManaged(&in, n * sizeof(int));
    cudaMallocManaged(&out, sizeof(int));
    for (int i = 0; i < n; i++)
        in[i] = i;
    *out = 0;
    sum<<<(n + 127) / 128, 128>>>(in, out, n);
    cudaDeviceSynchronize();
    result = *out;
    printf("%d\n", result);
    cudaFree(in);
    cudaFree(out);
}

/* tests/cli/homework/matmul.cu: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(call)                                                               \
    do {                                                                          \
        cudaError_t e = call;                                                     \
        if (e != cudaSuccess) {                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e)); \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

#define N 48

__global__ void multiply(const double *a, const double *b, double *c)
{
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0;
    for (int k = 0; k < N; k++)
        sum += a[row * N + k] * b[k * N + column];
    c[row * N + column] = sum;
}

/* multiply on the host and compare */
int main(void)
{
    double *a, *b, *c, *h = (double *)malloc(N * N * sizeof(double));
    for (int i = 0; i < N * N; i++)
        h[i] = i % N == i / N ? 2 : 0;  // twice the identity
    CHECK(cudaMalloc(&a, N * N * sizeof(double)));
    CHECK(cudaMalloc(&b, N * N * sizeof(double)));
    CHECK(cudaMalloc(&c, N * N * sizeof(double)));
    CHECK(cudaMemcpy(a, h, N * N * sizeof(double), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(b, h, N * N * sizeof(double), cudaMemcpyHostToDevice));
    dim3 block(16, 16), grid(N / 16, N / 16);
    multiply<<<grid, block>>>(a, b, c);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(h, c, N * N * sizeof(double), cudaMemcpyDeviceToHost));
    printf("%g %g\n", h[0], h[1]);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    free(h);
    return 0;
}

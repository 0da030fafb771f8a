/* tests/vgpu/homework/transposes.cu: from chapters/A-virtual-gpu-homework.md. Edit the chapter, or edit here and run "make untangle". */
#include <stdio.h>

enum { N = 128, TILE = 32 };

__global__ void direct(float *out, const float *in)
{
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    out[x * N + y] = in[y * N + x];
}

template <int PAD> __global__ void tiled(float *out, const float *in)
{
    __shared__ float tile[TILE][TILE + PAD];
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    tile[threadIdx.y][threadIdx.x] = in[y * N + x];
    __syncthreads();
    x = blockIdx.y * TILE + threadIdx.x;
    y = blockIdx.x * TILE + threadIdx.y;
    out[y * N + x] = tile[threadIdx.x][threadIdx.y];
}

int main()
{
    static float host[N * N];
    float *in, *out;
    dim3 grid(N / TILE, N / TILE), block(TILE, TILE);
    cudaMalloc(&in, sizeof host);
    cudaMalloc(&out, sizeof host);
    cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice);
    direct<<<grid, block>>>(out, in);
    tiled<0><<<grid, block>>>(out, in);
    tiled<1><<<grid, block>>>(out, in);
    cudaDeviceSynchronize();
    cudaFree(in);
    cudaFree(out);
    return 0;
}

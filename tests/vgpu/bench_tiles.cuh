/* tests/vgpu/bench_tiles.cuh: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What the benchmarks of the emulation share: the least of many times, and a product. */
#ifndef DLS_TESTS_VGPU_BENCH_TILES_CUH
#define DLS_TESTS_VGPU_BENCH_TILES_CUH

#include <cuda_runtime.h>

#include <time.h>

/* time the least of many runs */
static double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The least time of `run()` in ns per item. */
template <class F> static double least(double items, F run)
{
    double best = 1e30;
    for (int i = 0; i < 200; i++) {
        double start = now();
        run();
        cudaDeviceSynchronize();
        double spent = now() - start;
        best = spent < best ? spent : best;
    }
    return best / items * 1e9;
}

/* multiply in tiles for the benchmarks */
template <int T>
__global__ void tiled(const float *__restrict__ A, const float *__restrict__ B,
                      float *__restrict__ C, int N)
{
    __shared__ float a[T][T], b[T][T];
    int row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
    float sum = 0;
    for (int t = 0; t < N; t += T) {
        a[threadIdx.y][threadIdx.x] = A[row * N + t + threadIdx.x];
        b[threadIdx.y][threadIdx.x] = B[(t + threadIdx.y) * N + col];
        __syncthreads();
        #pragma GCC unroll 16
        for (int k = 0; k < T; k++)
            sum += a[threadIdx.y][k] * b[k][threadIdx.x];
        __syncthreads();
    }
    C[row * N + col] = sum;
}

#endif

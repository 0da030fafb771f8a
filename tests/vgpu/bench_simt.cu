/* tests/vgpu/bench_simt.cu: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What a thread, a barrier, a shuffle and a tiled multiply-add cost under emulation,
 * beside plain C, on one core. Prints the least of many runs and asserts nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <utility>

#include "bench_tiles.cuh"

/* measure a thread without barriers */
__global__ void add_one(float *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] += 1.0f;
}

static void add_one_plain(float *x, int n)
{
    for (int i = 0; i < n; i++) {
        x[i] += 1.0f;
        __asm__ volatile("" : : "r"(x) : "memory");
    }
}
/* measure a barrier and a shuffle */
__global__ void pass_barriers(float *x, int count)
{
    for (int i = 0; i < count; i++)
        __syncthreads();
    x[blockIdx.x * blockDim.x + threadIdx.x] = (float)count;
}

__global__ void pass_shuffles(float *x, int count)
{
    float v = (float)threadIdx.x;
    for (int i = 0; i < count; i++)
        v += __shfl_xor_sync(0xffffffffu, v, 1);
    x[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

static void pass_phases_plain(float *x, int threads, int count)
{
    for (int i = 0; i < count; i++)
        for (int t = 0; t < threads; t++)
            __asm__ volatile("" : : "r"(x + t) : "memory");
}

static void exchange_plain(float *x, float *y, int threads, int count)
{
    for (int i = 0; i < count; i++) {
        for (int t = 0; t < threads; t++)
            y[t] = x[t] + x[t ^ 1];
        std::swap(x, y);
    }
}
/* multiply in a plain loop */
static void multiply_plain(const float *A, const float *B, float *C, int N)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < N; k++)
                sum += A[i * N + k] * B[k * N + j];
            C[i * N + j] = sum;
        }
}
/* print the costs */
static void print(const char *what, double emulated, double plain)
{
    printf("%-34s %8.2f ns   plain C %6.2f ns   ratio %5.1f\n", what, emulated, plain,
           emulated / plain);
}

int main()
{
    const int n = 1 << 16, N = 128;
    float *x, *y, *z;
    dls_simt_configure(1, 1);
    cudaMallocManaged((void **)&x, n * sizeof(float), cudaMemAttachGlobal);
    cudaMallocManaged((void **)&y, n * sizeof(float), cudaMemAttachGlobal);
    cudaMallocManaged((void **)&z, n * sizeof(float), cudaMemAttachGlobal);
    for (int i = 0; i < n; i++)
        x[i] = y[i] = 1.0f;
    print("thread without barriers",
          least(n, [&] { add_one<<<n / 256, 256>>>(x, n); }),
          least(n, [&] { add_one_plain(x, n); }));
    for (int block = 32; block <= 1024; block *= 2) {
        char what[64];
        const int rounds = 64000 / block;
        snprintf(what, sizeof what, "barrier, %d threads a block", block);
        print(what, least(4.0 * block * rounds, [&] {
            pass_barriers<<<4, block>>>(x, rounds);
        }), least(1.0 * block * rounds, [&] { pass_phases_plain(x, block, rounds); }));
    }
    print("shuffle", least(4.0 * 128 * 500, [&] {
        pass_shuffles<<<4, 128>>>(x, 500);
    }), least(128.0 * 500, [&] { exchange_plain(y, z, 128, 500); }));
    print("tiled SGEMM 16x16, multiply-add", least((double)N * N * N, [&] {
        tiled<16><<<dim3(N / 16, N / 16), dim3(16, 16)>>>(x, y, z, N);
    }), least((double)N * N * N, [&] { multiply_plain(x, y, z, N); }));
    return cudaGetLastError() != cudaSuccess;
}

/* tests/vgpu/test_simt_memory.cu: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared memory and stacks under emulation: extent, poison, alignment, overruns. */
#include "simt_test.h"

#include <math.h>
#ifdef DLS_VIRTUAL_GPU
#include <signal.h>
#endif

/* test shared memory */
__device__ int *counter()
{
    __shared__ int c[3];
    return c;
}

extern __shared__ int names_of_the_file[];

__global__ void share(int *out, int words)
{
    extern __shared__ int bytes[];
    extern __shared__ __align__(16) int rows[][2];
    int t = threadIdx.x;
    if (t == 0)
        counter()[1] = 40;
    for (int i = t; i < words; i += blockDim.x)
        bytes[i] = i;
    __syncthreads();
    atomicAdd(&counter()[1], 1);
    __syncthreads();
    int good = words < 8 || rows[3][1] == 7;
    good = good && names_of_the_file[words - 1] == words - 1;
    out[blockIdx.x * blockDim.x + t] = good ? counter()[1] : -1;
}

Test(vgpu, simt_shared_memory)
{
    const int most = 227 * 1024 - 512;
    OK(cudaFuncSetAttribute(share, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    FOR_SEEDS(seed)
        for (int words : {1, 8, 1000, most / 4}) {
            int *out = managed(8 * 50, 0);
            share<<<8, 50, words * sizeof(int)>>>(out, words);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 8 * 50; i++)
                cr_assert_eq(out[i], 90, "%d words: %d", words, out[i]);
            OK(cudaFree(out));
        }
}
/* test poison */
#ifdef DLS_VIRTUAL_GPU
__global__ void read_fresh(float *out, double *wide)
{
    extern __shared__ double dynamic[];
    __shared__ float fixed[7], other[2];
    float first = fixed[threadIdx.x], second = other[0];
    *wide = dynamic[threadIdx.x];
    __syncthreads();
    fixed[threadIdx.x] = other[0] = 1;
    dynamic[threadIdx.x] = 2;
    out[blockIdx.x * 7 + threadIdx.x] = first + second;
}

Test(vgpu, simt_fresh_shared_memory_is_poison)
{
    float *out = managed(700, 0.0f);
    double *wide = managed(1, 0.0);
    FOR_SEEDS(seed) {
        read_fresh<<<100, 7, 56>>>(out, wide);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 700; i++)
            cr_assert(isnan(out[i]), "block %d read what another had left", i / 7);
        cr_assert(isnan(*wide));
    }
}
#endif
/* test overruns */
#ifdef DLS_VIRTUAL_GPU
__global__ void overrun(int n)
{
    extern __shared__ int s[];
    s[n] = 1;
}

Test(vgpu, simt_shared_overrun_faults)
{
    overrun<<<1, 1, 1024>>>(258);
    check_broken(cudaErrorIllegalAddress,
                 {"kernel overrun", "thread (0,0,0)",
                  ": 8 bytes past the end of the block's 1024 bytes of dynamic shared"});
}

#endif

#ifdef DLS_VIRTUAL_GPU
__device__ int dive(int depth, volatile char *caller)
{
    volatile char frame[512];
    frame[0] = *caller = (char)(depth & 1);
    return depth == 0 ? 0 : dive(depth - 1, frame) + 1;
}

__global__ void recurse(int *out, int depth)
{
    volatile char top;
    __syncthreads();
    out[threadIdx.x] = dive(depth, &top);
}

#endif

#ifdef DLS_VIRTUAL_GPU
__global__ void look_at_the_stack(unsigned *low, char *text)
{
    __attribute__((aligned(16))) volatile float v[4];
    volatile float *p = v;
    for (int i = 0; i < 2; i++) {
        low[threadIdx.x] |= (unsigned)((size_t)p % 16);
        __asm__ volatile("" : "+r"(p));
        snprintf(text + 16 * threadIdx.x, 16, "%.3f", sqrt((double)threadIdx.x));
        __syncthreads();
    }
}

Test(vgpu, simt_stacks_are_aligned)
{
    unsigned *low = managed(40, 0u);
    char *text = managed(640, 'x');
    look_at_the_stack<<<1, 40>>>(low, text);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 40; i++)
        cr_assert_eq(low[i], 0u, "thread %d: off by %u", i, low[i]);
    cr_assert_str_eq(text + 16 * 2, "1.414");
}

#endif

#ifdef DLS_VIRTUAL_GPU
Test(vgpu, simt_deep_stacks_work)
{
    int *out = managed(64, 0);
    recurse<<<1, 64>>>(out, 150);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 64; i++)
        cr_assert_eq(out[i], 150);
}

__global__ void one_recurses(int *out, int depth)
{
    volatile char top;
    __syncthreads();
    out[threadIdx.x] = dive(threadIdx.x == 20 ? depth : 1, &top);
}

Test(vgpu, simt_stack_overflow_faults)
{
    dls_simt_configure(1, 0);
    one_recurses<<<1, 64>>>(managed(64, 0), 400);
    check_broken(cudaErrorIllegalAddress,
                 {"thread (20,0,0)", "the stack of a thread has overflowed"});
}
#endif

/* tests/vgpu/test_simt_language.cu: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA C++ as a language: what else a kernel may be made of. */
#include "simt_test.h"

/* test constant memory and qualifiers */
__constant__ float weights[4];
__device__ int total;

__device__ __forceinline__ float weigh(const float *__restrict__ x, int i)
{
    return __ldg(x + i) * weights[i & 3];
}

namespace inner {
template <int BLOCK>
__global__ void __launch_bounds__(BLOCK) weigh_all(float *__restrict__ out,
                                                   const float *__restrict__ x, int n)
{
    for (int i = blockIdx.x * BLOCK + threadIdx.x; i < n; i += BLOCK * gridDim.x) {
        out[i] = weigh(x, i);
        atomicAdd(&total, 1);
    }
}
}  // namespace inner

Test(vgpu, simt_constant_memory)
{
    const float w[4] = {1, 2, 3, 4};
    int zero = 0, got = 0;
    float *x = managed(1000, 2.0f), *out = managed(1000, 0.0f);
    OK(cudaMemcpyToSymbol(weights, w, sizeof w));
    OK(cudaMemcpyToSymbol(total, &zero, sizeof zero));
    inner::weigh_all<64><<<3, 64>>>(out, x, 1000);
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpyFromSymbol(&got, total, sizeof got));
    cr_assert_eq(got, 1000);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(out[i], 2.0f * w[i % 4]);
}
/* test unrolled loops and vectors */
template <int K> __global__ void dot_rows(float *out, const float4 *a, const float4 *b)
{
    __shared__ struct { float4 row[K]; float sum; } tile[2];
    int t = threadIdx.x, half = t / K;
    tile[half].row[t % K] = a[t];
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
        float4 u = tile[half].row[k], v = b[k];
        sum += u.x * v.x + u.y * v.y + u.z * v.z + u.w * v.w;
    }
#pragma unroll 2
    for (int k = 0; k < 4; k++)
        sum += k;
#pragma unroll K
    for (int k = 0; k < K; k++)
        sum -= 1;
    out[t] = sum;
}

Test(vgpu, simt_unrolling_and_vectors)
{
    float4 *a = managed(16, make_float4(1, 2, 3, 4));
    float4 *b = managed(8, make_float4(4, 3, 2, 1));
    float *out = managed(16, 0.0f);
    FOR_SEEDS(seed) {
        dot_rows<8><<<1, 16>>>(out, a, b);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 16; i++)
            cr_assert_eq(out[i], 8 * 20.0f + 6 - 8, "%g", (double)out[i]);
    }
}
/* test functions as template arguments */
struct plus {
    __host__ __device__ double operator()(double a, double b) const { return a + b; }
};
struct larger {
    __host__ __device__ double operator()(double a, double b) const { return max(a, b); }
};

template <class F> __device__ double fold_warp(double v, F f)
{
    for (int d = 16; d > 0; d /= 2)
        v = f(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}
/* test a tree reduction */
template <class F>
__global__ void reduce(double *out, const double *x, int n, double zero, F f)
{
    __shared__ double partial[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double v = zero;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        v = f(v, x[i]);
    v = fold_warp(v, f);
    if (lane == 0)
        partial[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = fold_warp(lane < (int)blockDim.x / 32 ? partial[lane] : zero, f);
        if (lane == 0)
            *out = v;
    }
}

Test(vgpu, simt_tree_reduction)
{
    double *x = managed(1000, 0.0), *out = managed(2, 0.0);
    for (int i = 0; i < 1000; i++)
        x[i] = (i * 37) % 1000;
    FOR_SEEDS(seed)
        for (int block : {32, 96, 256, 1024}) {
            reduce<<<1, block>>>(out, x, 1000, 0.0, plus());
            reduce<larger><<<1, block>>>(out + 1, x, 1000, -1.0, larger());
            OK(cudaDeviceSynchronize());
            cr_assert_eq(out[0], 499500.0);
            cr_assert_eq(out[1], 999.0);
        }
}

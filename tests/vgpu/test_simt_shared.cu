/* tests/vgpu/test_simt_shared.cu: from chapters/A-virtual-gpu-simt-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared memory in one arena; launches that are refused; faults; the calls to a probe. */
#include "simt_test.h"

/* test every shared declaration */
template <class A, class B> struct both {
    A a;
    B b;
};

__shared__ int outside[64];
__shared__ short alone;

__device__ int through_a_function(int t)
{
    __shared__ int inner[64];
    inner[t] = 7 * t;
    __syncthreads();
    return inner[(t + 1) % 64];
}

template <class T, int N> __global__ void declare_all(int *out)
{
    __shared__ T first[N], second[2][N], one;
    __shared__ both<T, double> pairs[N];
    alignas(1024) __shared__ char bytes[N];
    volatile __shared__ float moody[N];
    short __shared__ late[N];
    int t = threadIdx.x, next = (t + 1) % N;
    first[t] = second[1][t] = (T)t;
    pairs[t] = {(T)(2 * t), 3.0 * t};
    bytes[t] = (char)t;
    moody[t] = 5.0f * t;
    late[t] = outside[t] = (short)t;
    if (t == 0)
        one = alone = 9;
    __syncthreads();
    int sum = (int)(first[next] + second[1][next] + pairs[next].a + pairs[next].b);
    sum += bytes[next] + (int)moody[next] + late[next] + outside[next] + (int)one;
    out[blockIdx.x * N + t] = sum + alone + through_a_function(t);
    if ((size_t)bytes % 1024 || (size_t)first % 16)
        out[0] = -1;
}

Test(vgpu, simt_shared_declarations)
{
    int *out = managed(4 * 64, -7);
    FOR_SEEDS(seed) {
        if (seed % 2)
            declare_all<float, 64><<<4, 64>>>(out);
        else
            declare_all<int, 64><<<4, 64>>>(out);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 4 * 64; i++) {
            int n = (i + 1) % 64;
            cr_assert_eq(out[i], n + n + 2 * n + 3 * n + n + 5 * n + n + n + 18 + 7 * n);
        }
    }
}
/* test the limits of shared memory */
__global__ void fill(int *out, int words)
{
    extern __shared__ int s[];
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        s[i] = i;
    __syncthreads();
    if (threadIdx.x == 0)
        out[0] = s[0] + s[words - 1];
}

static void expect_fill(int bytes, cudaError_t error)
{
    int *out = managed(1, 0);
    fill<<<1, 32, bytes>>>(out, bytes / 4);
    cr_assert_eq((int)cudaGetLastError(), (int)error, "%d bytes", bytes);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[0], error ? 0 : bytes / 4 - 1);
    OK(cudaFree(out));
}

Test(vgpu, simt_dynamic_limits)
{
    const cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    expect_fill(48 * 1024, cudaSuccess);
    expect_fill(48 * 1024 + 4, cudaErrorInvalidValue);
    cr_assert_eq((int)cudaFuncSetAttribute(fill, most, 227 * 1024 + 1),
                 (int)cudaErrorInvalidValue);
    cudaGetLastError();
    OK(cudaFuncSetAttribute(fill, most, 100 * 1024));
    expect_fill(100 * 1024, cudaSuccess);
    expect_fill(100 * 1024 + 4, cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(fill, most, 227 * 1024));
    expect_fill(227 * 1024, cudaSuccess);
}

#ifdef DLS_VIRTUAL_GPU
template <int N> __global__ void take(int *out, int also)
{
    __shared__ char c[1];
    __shared__ double d[N];
    extern __shared__ int dynamic[];
    d[0] = c[0] = 1;
    if (also)
        dynamic[0] = 2;
    out[0] = (int)d[0] + (also ? dynamic[0] : 0);
}

Test(vgpu, simt_static_and_dynamic_fit)
{
    int *out = managed(1, 0);
    take<1000><<<1, 1, 49152 - 8008>>>(out, 1);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[0], 3);
    take<1000><<<1, 1, 49152 - 8008 + 4>>>(out, 1);
    check_broken(cudaErrorInvalidValue, {"kernel take<1000>", "8008 bytes of static",
                                         "41148 of dynamic", "exceed 49152",
                                         "cudaFuncSetAttribute"});
}

Test(vgpu, simt_static_limit)
{
    int *out = managed(1, 0);
    take<6143><<<1, 1>>>(out, 0);
    OK(cudaDeviceSynchronize());
    take<6144><<<1, 1>>>(out, 0);
    check_broken(cudaErrorInvalidValue, {"up to 'd'", ".md:", "take 49160 bytes"});
}
#endif
/* test bad pointers */
#ifdef DLS_VIRTUAL_GPU
__global__ void store_at(int *p, long at, int who)
{
    if ((int)(blockIdx.x * blockDim.x + threadIdx.x) == who)
        p[at] = 1;
}

Test(vgpu, simt_null_pointer)
{
    store_at<<<4, 64>>>(NULL, 3, 130);
    check_broken(cudaErrorIllegalAddress,
                 {"kernel store_at", "block (2,0,0)", "thread (2,0,0)", "0xc",
                  "a null pointer"});
}

Test(vgpu, simt_past_an_allocation)
{
    const size_t bytes = (1ul << 30) - 4096;  // nothing is mapped behind the gigabyte
    char *p;
    OK(cudaMalloc(&p, bytes));
    dls_simt_configure(1, 0);
    store_at<<<1, 32>>>((int *)p, 1 << 28, 31);
    check_broken(cudaErrorIllegalAddress,
                 {"thread (31,0,0)", "4096 bytes past the end of an allocation of "
                  "1073737728 bytes on device 0"});
}

Test(vgpu, simt_null_kernel)
{
    void (*none)(int *, long, int) = NULL;
    none<<<1, 1>>>(NULL, 0, 0);
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorInvalidDeviceFunction);
    OK(cudaDeviceSynchronize());
}
#endif
/* test the calls to a probe */
#ifdef DLS_VIRTUAL_GPU
static struct {
    int launches, blocks, returned, arrived, barriers, met, arrays, too_close;
    unsigned lanes;
    char *end[2];  // of the arrays placed last
} seen;

static void count_array(const char *, void *address, size_t bytes, const char *, int)
{
    char *start = (char *)address;
    for (char *end : seen.end)
        seen.too_close += start < end + 128 && start >= end;
    seen.end[seen.arrays++ % 2] = start + bytes;
}

static dls_simt_probe counting_probe()
{
    dls_simt_probe p = {};
    p.launch_begin = [](const dls_simt_grid *) { seen.launches++; };
    p.launch_end = [](const dls_simt_grid *, int) { seen.launches += 100; };
    p.block_begin = [](unsigned long long) { seen.blocks++; };
    p.block_end = [] { seen.blocks += 100; };
    p.run = [](unsigned) {};
    p.returned = [](unsigned) { seen.returned++; };
    p.arrived = [](unsigned, const void *) { seen.arrived++; };
    p.barrier = [](const char *, int) { seen.barriers++; };
    p.met = [](unsigned, unsigned lanes, dls_warp_op) {
        seen.met++;
        seen.lanes ^= lanes;
    };
    p.shared_array = count_array;
    return p;
}

__global__ void be_watched(int *out)
{
    __shared__ int a[32], b[64];
    extern __shared__ int c[];
    b[threadIdx.x] = c[threadIdx.x] = a[threadIdx.x % 3] = 1;
    __syncthreads();
    out[threadIdx.x] = __reduce_add_sync(~0u, b[(threadIdx.x + 1) % 40]);
}

Test(vgpu, simt_probe_calls)
{
    int *out = managed(40, 0);
    const dls_simt_probe probe = counting_probe();
    dls_simt_probes = &probe;
    for (unsigned long long seed = 0; seed < 50; seed++) {
        memset(&seen, 0, sizeof seen);
        dls_simt_configure(1, seed);
        be_watched<<<2, 40, 160>>>(out);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(seen.launches, 101);
        cr_assert_eq(seen.blocks, 202);
        cr_assert_eq(seen.returned, 80);
        cr_assert_eq(seen.arrived, 160);
        cr_assert_eq(seen.barriers, 2);
        cr_assert_eq(seen.met, 4);
        cr_assert_eq(seen.lanes, 0u);
        cr_assert_eq(seen.arrays, 6);
        cr_assert_eq(seen.too_close, 0);
        cr_assert_eq(out[39], 8);
    }
    dls_simt_probes = NULL;
}
#endif

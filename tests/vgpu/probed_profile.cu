/* tests/vgpu/probed_profile.cu: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* The profiler's counts against counts by hand. Every kernel runs under 50 orders of its
 * lanes; the values are derived in the chapter, beside the kernels.
 */
#include "simt_test.h"

#include "vgpu/profile.h"
extern "C" {
#include "vgpu/profile_internal.h"
}

/* profile under fifty seeds */
static float *x, *y;
enum { ROOM = 1 << 16 };

/* Launches by `run` under 50 seeds; the counters must agree, and are returned. */
template <class F> static dls_profiled_kernel profiled(const char *name, F run)
{
    dls_profiled_kernel first = {}, k = {};
    OK(cudaMalloc(&x, ROOM * sizeof(float)));
    OK(cudaMalloc(&y, ROOM * sizeof(float)));
    for (unsigned long long seed = 0; seed < 50; seed++) {
        OK(cudaMemset(x, 0, ROOM * sizeof(float)));
        OK(cudaMemset(y, 0, ROOM * sizeof(float)));
        dls_simt_configure(1, seed);
        cr_assert_eq(dls_profile_begin(), DLS_OK);
        run();
        dls_profile_end();
        cr_assert(dls_profile_kernel(name, &k), "%s", name);
        if (seed == 0)
            first = k;
        cr_assert_eq(memcmp(&first.total, &k.total, sizeof k.total), 0, "%s, seed %llu",
                     name, seed);
    }
    OK(cudaFree(x));
    OK(cudaFree(y));
    return first;
}
/* profile patterns of global accesses */
__global__ void copy(const float *in, float *out, int stride, int shift)
{
    out[threadIdx.x] = in[threadIdx.x * stride + shift];
}

Test(vgpu, profile_global)
{
    const struct { int stride, shift; unsigned sectors, ideal; } loads[] = {
        {1, 0, 4, 4}, {2, 0, 8, 4}, {4, 0, 16, 4}, {8, 0, 32, 4}, {32, 0, 32, 4},
        {1, 1, 5, 4}, {1, 8, 4, 4}, {2, 7, 9, 4}, {0, 5, 1, 1}, {-1, 31, 4, 4}};
    for (auto l : loads) {
        dls_profile_counters c = profiled("copy", [&] {
            copy<<<1, 32>>>(x, y, l.stride, l.shift);
        }).total;
        cr_expect_eq(c.requests, 2u);
        cr_expect_eq(c.sectors, l.sectors + 4, "stride %d shift %d: %lu", l.stride,
                     l.shift, (unsigned long)c.sectors);
        cr_expect_eq(c.ideal_sectors, l.ideal + 4);
        cr_expect_eq(c.bytes, 256u);
        cr_expect_eq(c.dram_read, 32u * l.sectors);
        cr_expect_eq(c.dram_written, 128u);
    }
}
/* profile other sizes and shapes */
template <class T> __global__ void copy_as(const T *in, T *out)
{
    int i = threadIdx.y * blockDim.x + threadIdx.x;
    T v = in[i];
    out[i] = v;
}

template <class T>
static void expect_copy(const char *name, dim3 block, unsigned requests, unsigned sectors,
                        unsigned ideal)
{
    dls_profile_counters c = profiled(name, [&] {
        copy_as<T><<<1, block>>>((const T *)x, (T *)y);
    }).total;
    cr_expect_eq(c.requests, 2 * requests, "%s: %lu", name, (unsigned long)c.requests);
    cr_expect_eq(c.sectors, 2 * sectors, "%s: %lu", name, (unsigned long)c.sectors);
    cr_expect_eq(c.ideal_sectors, 2 * ideal, "%s", name);
    cr_expect_eq(c.bytes, 2 * block.x * block.y * sizeof(T));
}

Test(vgpu, profile_sizes)
{
    expect_copy<char>("copy_as<T>", dim3(32), 1, 1, 1);
    expect_copy<short>("copy_as<T>", dim3(32), 1, 2, 2);
    expect_copy<double>("copy_as<T>", dim3(32), 1, 8, 8);
    expect_copy<float2>("copy_as<T>", dim3(32), 1, 8, 8);
    expect_copy<float4>("copy_as<T>", dim3(32), 1, 16, 16);
    expect_copy<float3>("copy_as<T>", dim3(32), 3, 36, 12);
    expect_copy<float>("copy_as<T>", dim3(8), 1, 1, 1);
    expect_copy<float>("copy_as<T>", dim3(40), 2, 5, 5);
    expect_copy<float>("copy_as<T>", dim3(16, 16), 8, 32, 32);
    expect_copy<float4>("copy_as<T>", dim3(8, 2), 1, 8, 8);
}
/* profile banks */
template <class T, int PITCH> __global__ void read_banks(float *out, int stride)
{
    __shared__ T a[32 * PITCH];
    a[threadIdx.x] = T();
    __syncwarp();
    out[threadIdx.x] = *(const float *)&a[threadIdx.x * stride];
}

template <int PAD> __global__ void turn(const float *in, float *out)
{
    __shared__ float t[32][32 + PAD];
    t[threadIdx.y][threadIdx.x] = in[threadIdx.y * 32 + threadIdx.x];
    __syncthreads();
    out[threadIdx.y * 32 + threadIdx.x] = t[threadIdx.x][threadIdx.y];
}

Test(vgpu, profile_banks)
{
    const struct { int stride; unsigned wavefronts; } reads[] = {
        {0, 1}, {1, 1}, {2, 2}, {3, 1}, {4, 4}, {16, 16}, {31, 1}, {32, 32}};
    for (auto r : reads) {
        dls_profile_counters c = profiled("read_banks<float, 32>", [&] {
            read_banks<float, 32><<<1, 32>>>(x, r.stride);
        }).total;
        cr_expect_eq(c.shared_requests, 2u);
        cr_expect_eq(c.wavefronts, 1 + r.wavefronts, "stride %d: %lu", r.stride,
                     (unsigned long)c.wavefronts);
        cr_expect_eq(c.ideal_wavefronts, 2u);
        cr_expect_eq(c.shared_bytes, 256u);
    }
    dls_profile_counters plain = profiled("turn<0>", [] {
        turn<0><<<1, dim3(32, 32)>>>(x, y);
    }).total, padded = profiled("turn<1>", [] {
        turn<1><<<1, dim3(32, 32)>>>(x, y);
    }).total;
    cr_expect_eq(plain.wavefronts, 32u + 32 * 32);
    cr_expect_eq(padded.wavefronts, 32u + 32);
    cr_expect_eq(plain.ideal_wavefronts, 64u);
    cr_expect_eq(padded.sectors, 2u * 128);
}
/* profile wide banks */
template <class T> __global__ void copy_shared(T *out, int stride)
{
    __shared__ T a[128];
    a[threadIdx.x] = out[threadIdx.x];
    __syncwarp();
    T v = a[threadIdx.x * stride];
    out[threadIdx.x] = v;
}

template <class T> static unsigned long wide(int stride)
{
    return profiled("copy_shared<T>", [&] {
        copy_shared<T><<<1, 32>>>((T *)y, stride);
    }).total.wavefronts;
}

Test(vgpu, profile_wide_banks)
{
    cr_expect_eq(wide<double>(1), 2u + 2);
    cr_expect_eq(wide<double>(2), 2u + 4);
    cr_expect_eq(wide<double>(0), 2u + 2);
    cr_expect_eq(wide<float4>(1), 4u + 4);
    cr_expect_eq(wide<float4>(2), 4u + 8);
    cr_expect_eq(wide<float2>(4), 2u + 8);
    cr_expect_eq(wide<short>(1), 1u + 1);
    cr_expect_eq(wide<short>(2), 1u + 1);
}
/* profile atomics */
__global__ void add_up(float *total, int *mine, int spread)
{
    __shared__ int t[32];
    t[threadIdx.x] = 0;
    __syncwarp();
    atomicAdd(&t[threadIdx.x * spread], 1);
    atomicAdd(total, 1.0f);
    atomicCAS(&mine[threadIdx.x], 0, 1);
}

Test(vgpu, profile_atomics)
{
    for (int spread = 0; spread < 2; spread++) {
        dls_profile_counters c = profiled("add_up", [&] {
            add_up<<<1, 32>>>(x, (int *)y, spread);
        }).total;
        cr_expect_eq(c.atomics, 3u);
        cr_expect_eq(c.requests, 2u);
        cr_expect_eq(c.sectors, 1u + 4);
        cr_expect_eq(c.wavefronts, 1u + (spread ? 1 : 32));
        cr_expect_eq(c.dram_read, 5u * 32);
        cr_expect_eq(c.dram_written, 5u * 32);
    }
}
/* profile divergence */
__global__ void halves(const float *a, float *b)
{
    int i = threadIdx.x;
    if (i < 16)
        b[i] = a[i] + 1.0f;
    else
        b[i] = a[64 + i] * 2.0f - 3.0f;
}

__global__ void as_often_as_the_lane(const float *a, float *b)
{
    float sum = 0;
    for (unsigned k = 0; k < threadIdx.x; k++)
        sum += a[k * 64];
    b[threadIdx.x] = sum;
}

Test(vgpu, profile_divergence)
{
    dls_profile_counters c = profiled("halves", [] { halves<<<1, 32>>>(x, y); }).total;
    cr_expect_eq(c.requests, 4u);
    cr_expect_eq(c.sectors, 8u);
    cr_expect_eq(c.bytes, 256u);
    cr_expect_eq(c.flops, 16u * 1 + 16 * 2);
    cr_expect_lt(c.lanes, 32 * c.blocks);
    c = profiled("as_often_as_the_lane", [] {
        as_often_as_the_lane<<<1, 32>>>(x, y);
    }).total;
    cr_expect_eq(c.requests, 31u + 1);
    cr_expect_eq(c.sectors, 31u + 4);
    cr_expect_eq(c.bytes, 4u * (31 * 32 / 2 + 32));
    cr_expect_eq(c.flops, 31u * 32 / 2);
}
/* profile more than a log holds */
__global__ void every_third(const float *a, float *b, int n)
{
    float sum = 0;
    for (int k = 0; k < n; k++) {
        if ((threadIdx.x + k) % 3 == 0)
            sum += a[k];
        b[threadIdx.x] = sum;
    }
}

Test(vgpu, profile_long)
{
    const unsigned n = 2000, warps = 3;
    dls_profile_counters c = profiled("every_third", [&] {
        every_third<<<1, 32 * warps>>>(x, y, (int)n);
    }).total;
    cr_expect_eq(c.requests, warps * 2u * n, "%lu", (unsigned long)c.requests);
    cr_expect_eq(c.sectors, warps * 5u * n);
    cr_expect_eq(c.flops, 32u * n);
    cr_expect_eq(c.dram_read, 4u * n);
}
/* profile arithmetic */
__global__ void compute(float *a, double *d)
{
    int i = threadIdx.x;
    float v = a[i];
    a[i] = sqrtf(v) / (v + 3.0f) - fmaxf(v, 1.0f);
    d[i] = exp(d[i]) + sin(d[i] * 2.0);
}

template <int T> __global__ void multiply(const float *A, const float *B, float *C, int N)
{
    __shared__ float a[T][T], b[T][T];
    int row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
    float sum = 0;
    for (int t = 0; t < N; t += T) {
        a[threadIdx.y][threadIdx.x] = A[row * N + t + threadIdx.x];
        b[threadIdx.y][threadIdx.x] = B[(t + threadIdx.y) * N + col];
        __syncthreads();
        for (int k = 0; k < T; k++)
            sum += a[threadIdx.y][k] * b[k][threadIdx.x];
        __syncthreads();
    }
    C[row * N + col] = sum;
}

Test(vgpu, profile_arithmetic)
{
    dls_profile_counters c = profiled("compute", [] {
        compute<<<1, 32>>>(x, (double *)y);
    }).total;
    cr_expect_eq(c.flops, 32u * (4 + 2), "%lu", (unsigned long)c.flops);
    cr_expect_eq(c.specials, 32u * 2);
    const unsigned N = 64;
    dls_profiled_kernel k = profiled("multiply<16>", [] {
        multiply<16><<<dim3(4, 4), dim3(16, 16)>>>(x, x + N * N, y, N);
    });
    cr_expect_eq(k.total.flops, 2u * N * N * N);
    cr_expect_eq(k.total.requests, 16u * 8 * (2 * 4 + 1));
    cr_expect_eq(k.total.sectors, 4 * k.total.requests);
    cr_expect_eq(k.total.dram_read, 2u * N * N * 4);
    cr_expect_eq(k.total.dram_written, N * N * 4);
    cr_expect_eq(k.total.shared_requests, 16u * 8 * 4 * (2 + 2 * 16));
    cr_expect_eq(k.total.lanes, 32 * k.total.blocks);
    cr_expect_eq(k.static_shared, 2u * 16 * 16 * 4);
    cr_expect_eq(k.occupancy, 1.0);
    cr_expect_str_eq(k.bound, "latency");
}
/* ask for lines */
__global__ void two_lines(float *a)
{
    a[threadIdx.x] += 1.0f;  // 2 requests, 8 sectors, 32 operations
    a[threadIdx.x * 2] = 0;  // 1 request, 8 sectors
}

Test(vgpu, profile_lines)
{
    const int line = __LINE__ - 6;
    dls_profile_counters c;
    profiled("two_lines", [] { two_lines<<<1, 32>>>(x); });
    const char *file = strrchr(__FILE__, '/') + 1;
    cr_assert(dls_profile_line(file, line, &c));
    cr_expect_eq(c.requests, 2u);
    cr_expect_eq(c.sectors, 8u);
    cr_expect_eq(c.flops, 32u);
    cr_assert(dls_profile_line(file, line + 1, &c));
    cr_expect_eq(c.requests, 1u);
    cr_expect_eq(c.sectors, 8u);
    cr_expect_eq(c.flops, 0u);
    cr_expect(!dls_profile_line(file, line - 1, &c));
    cr_expect(!dls_profile_line("elsewhere.cu", line, &c));
}
/* hold the cache to its rules */
static unsigned long touch(uint64_t line, unsigned sectors, int write)
{
    dls_profile_counters c = {};
    dls_profile_cache_touch(line, sectors, write, &c);
    return c.dram_read + c.dram_written;
}

Test(vgpu, profile_cache)
{
    dls_profile_cache_begin(16 * 128);       // one set of 16 lines
    cr_expect_eq(touch(0, 1, 0), 32u);       // absent
    cr_expect_eq(touch(0, 1, 0), 0u);        // present
    cr_expect_eq(touch(0, 3, 0), 32u);       // its neighbour is not
    cr_expect_eq(touch(1, 15, 1), 128u);     // written once ...
    cr_expect_eq(touch(1, 15, 1), 0u);       // ... however often
    cr_expect_eq(touch(1, 15, 0), 0u);       // and need not be read
    for (uint64_t line = 2; line < 16; line++)
        touch(line, 1, 0);
    cr_expect_eq(touch(0, 1, 0), 0u);        // 16 lines fit; 0 is the youngest now
    touch(16, 1, 0);                         // drives out 1, the oldest
    cr_expect_eq(touch(0, 1, 0), 0u);
    cr_expect_eq(touch(1, 1, 0), 32u);
    dls_profile_cache_begin(16 * 128);
    cr_expect_eq(touch(0, 1, 0), 32u);       // a new launch finds it empty
}
/* count with and without phrases */
__global__ void two_tiles(const float *in, float *out, int rounds)
{
    __shared__ float s[2][2][33], t[64];
    int row = threadIdx.y, col = threadIdx.x, me = row * 32 + col;
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        s[i % 2][row][col] = in[i * 64 + me];
        __syncthreads();
        for (int k = 0; k < 16; k++)
            sum += s[i % 2][k % 2][col] * s[i % 2][row][k];
        __syncthreads();
        t[me] = expf(sum);
        if (col < 20)
            sum += t[me] + t[row * 32];
        __syncthreads();
    }
    out[blockIdx.x * 64 + me] = sum;
}
static unsigned long heard, unheard;
static void hear(const dls_probe_request *) { heard++; }
static void unhear(dls_probe_phrase *f, unsigned long long times)
{
    unheard += f->quiet * times;
}

/* Counts while `listener` is attached; what it heard is that of the last seed. */
static dls_profile_counters beside(const dls_probe_consumer *listener)
{
    return profiled("two_tiles", [&] {
        int number = dls_probe_attach(listener);
        heard = unheard = 0;
        two_tiles<<<4, dim3(32, 2)>>>(x, y, 8);
        OK(cudaDeviceSynchronize());
        dls_probe_detach(number);
    }).total;
}

Test(vgpu, profile_counts_phrases_like_requests)
{
    dls_probe_consumer knows = {}, wants_all = {};
    knows.request = wants_all.request = hear;
    knows.repeated = unhear;
    dls_profile_counters a = beside(&knows);
    unsigned long least = heard, most = heard + unheard;
    dls_profile_counters b = beside(&wants_all);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0);
    cr_expect_eq(heard, most);
    cr_expect_lt(2 * least, most, "%lu of %lu", least, most);
}

/* tests/vgpu/test_simt.cu: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The SIMT engine: indices, barriers, atomics, launches, the order of threads. */
#include "simt_test.h"

#include <math.h>
#include <vector>

#ifdef DLS_VIRTUAL_GPU
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

/* test that every thread runs once */
__global__ void mark(int *count, dim3 *where)
{
    unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned i = b * blockDim.x * blockDim.y * blockDim.z + t;
    atomicAdd(&count[i], 1);
    where[i] = threadIdx;
}

Test(vgpu, simt_every_thread_once)
{
    const dim3 blocks[] = {dim3(1), dim3(33), dim3(100, 3), dim3(1024), dim3(8, 8, 16),
                           dim3(5, 7, 3), dim3(1, 1, 64), dim3(96)};
    const dim3 grid(3, 4, 2);
    FOR_SEEDS(seed)
        for (dim3 block : blocks) {
            unsigned n = block.x * block.y * block.z, all = 24 * n;
            int *count = managed(all, 0);
            dim3 *where = managed(all, dim3(9999));
            mark<<<grid, block>>>(count, where);
            OK(cudaDeviceSynchronize());
            for (unsigned i = 0; i < all; i++) {
                unsigned t = i % n;
                cr_assert_eq(count[i], 1, "thread %u of %u ran %d times", i, n, count[i]);
                cr_assert_eq(where[i].x, t % block.x);
                cr_assert_eq(where[i].y, t / block.x % block.y);
                cr_assert_eq(where[i].z, t / (block.x * block.y));
            }
            OK(cudaFree(count));
            OK(cudaFree(where));
        }
}
/* test arguments and kernel names */
struct pair {
    double a;
    char b;
};

template <class T, int N> __global__ void store(T *out, size_t value, pair p)
{
    out[threadIdx.x] = (T)(value + N + (size_t)p.a + p.b);
}

#define STORE(out, v) store<int, 1><<<1, 2>>>(out, v, pair{100.5, 3})

Test(vgpu, simt_arguments)
{
    int *out = managed(2, 0);
    void (*chosen)(int *, size_t, pair) = store<int, 7>;
    int value = 1000;
    store<int, 5>  // "<<<1, 2>>>" in a comment
        <<<dim3(1),
           dim3(2)>>>
        (out, value, pair{100.5, 3});
    value = 0;
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[1], 1108);
    STORE(out, 0);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[0], 104);
    chosen<<<1, 2, 0, 0>>>(out, 0, pair{0, 0});
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[0], 7);
}
/* test barriers of odd blocks */
__global__ void prefix_sum(int *out)
{
    __shared__ int s[1024];
    int t = threadIdx.x + blockDim.x * threadIdx.y, n = blockDim.x * blockDim.y;
    s[t] = t + (int)blockIdx.x;
    for (int d = 1; d < n; d *= 2) {
        __syncthreads();
        int left = t >= d ? s[t - d] : 0;
        __syncthreads();
        s[t] += left;
    }
    out[blockIdx.x * n + t] = s[t];
}

Test(vgpu, simt_barriers)
{
    const dim3 blocks[] = {dim3(1), dim3(2), dim3(33), dim3(100, 3), dim3(128),
                           dim3(1024)};
    FOR_SEEDS(seed)
        for (dim3 block : blocks) {
            int n = block.x * block.y;
            int *out = managed(5 * n, -1);
            prefix_sum<<<5, block>>>(out);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 5 * n; i++) {
                int t = i % n, b = i / n;
                cr_assert_eq(out[i], t * (t + 1) / 2 + b * (t + 1), "thread %d/%d", t, n);
            }
            OK(cudaFree(out));
        }
}
/* test that a missing barrier shows */
#ifdef DLS_VIRTUAL_GPU
__global__ void read_left(float *out, int with_barrier)
{
    __shared__ float s[64];
    s[threadIdx.x] = 1.0f;
    if (with_barrier)
        __syncthreads();
    out[threadIdx.x] = threadIdx.x ? s[threadIdx.x - 1] : 1.0f;
}

Test(vgpu, simt_missing_barrier_shows)
{
    float *out = managed(64, 0.0f);
    int wrong[2] = {0, 0};
    for (int with_barrier = 0; with_barrier < 2; with_barrier++)
        FOR_SEEDS(seed) {
            read_left<<<1, 64>>>(out, with_barrier);
            OK(cudaDeviceSynchronize());
            int bad = 0;
            for (int i = 0; i < 64; i++) {
                bad += out[i] != 1.0f;
                cr_assert(out[i] == 1.0f || isnan(out[i]));
            }
            wrong[with_barrier] += bad > 0;
            cr_assert(seed != 0 || bad == 0, "ascending order hides it");
        }
    cr_assert_eq(wrong[1], 0, "a correct kernel depends on the order");
    cr_assert_geq(wrong[0], 40, "only %d of 50 orders show the error", wrong[0]);
}
#endif
/* test barriers that vote */
__global__ void vote(int *out, int rounds)
{
    int t = threadIdx.x, bad = 0, n = blockDim.x;
    for (int r = 0; r < rounds; r++) {
        bad += __syncthreads_count(t % 3 == r % 3) != (n + 2 - r % 3) / 3;
        bad += (__syncthreads_or(t == r) != 0) != (r < n);
        bad += (__syncthreads_and(t != r) != 0) != (r >= n);
        if (r % 2)
            __syncthreads();
    }
    out[t] = bad;
}

Test(vgpu, simt_voting_barriers)
{
    FOR_SEEDS(seed)
        for (int n : {1, 33, 300}) {
            int *out = managed(n, -1);
            vote<<<1, n>>>(out, 7);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < n; i++)
                cr_assert_eq(out[i], 0, "thread %d of %d", i, n);
            OK(cudaFree(out));
        }
}
/* test early exits */
__global__ void leave_early(int *out, int stay)
{
    int t = threadIdx.x;
    if (t >= stay)
        return;
    out[t] = __syncthreads_count(1);
    __syncthreads();
    out[t] += __syncthreads_and(1) ? 1000 : 0;
}

#ifdef DLS_VIRTUAL_GPU
Test(vgpu, simt_early_exit)
{
    FOR_SEEDS(seed)
        for (int stay : {0, 1, 40, 99, 100}) {
            int *out = managed(100, 0);
            unsigned long before = dls_simt_early_exits();
            leave_early<<<2, 100>>>(out, stay);
            OK(cudaDeviceSynchronize());
            for (int i = 0; i < 100; i++)
                cr_assert_eq(out[i], i < stay ? 1000 + stay : 0, "%d of %d", i, stay);
            unsigned long seen = dls_simt_early_exits() - before;
            unsigned long want = stay == 0 || stay == 100 ? 0 : 6;
            cr_assert_eq(seen, want, "%d stay: %lu", stay, seen);
            OK(cudaFree(out));
        }
}
#endif
/* test divergent barriers */
#ifdef DLS_VIRTUAL_GPU
__global__ void wait_apart(int *out, int apart)
{
    int t = threadIdx.x;
    for (int i = 0; i < 3; i++) {
        if (apart && t % 2)
            __syncthreads();
        else
            __syncthreads();
        if (__syncthreads_or(t == i))
            out[t]++;
    }
}

Test(vgpu, simt_divergent_barriers)
{
    int *out = managed(50, 0);
    FOR_SEEDS(seed)
        for (int apart = 0; apart < 2; apart++) {
            unsigned long before = dls_simt_divergent_barriers();
            wait_apart<<<1, 50>>>(out, apart);
            OK(cudaDeviceSynchronize());
            unsigned long seen = dls_simt_divergent_barriers() - before;
            cr_assert(apart ? seen >= 3 : seen == 0, "%lu with apart = %d", seen, apart);
        }
    cr_assert_eq(out[49], 3 * 2 * 50);
}
#endif
/* test atomics */
struct totals {
    int i, top, bottom, exchanged;
    unsigned u, ring, bits, parity;
    unsigned long long l;
    float f;
    double d;
};

__global__ void count_everything(totals *s, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    atomicAdd(&s->i, -1);
    atomicAdd(&s->u, 2u);
    atomicAdd(&s->l, 1ull << 33);
    atomicAdd(&s->f, 1);
    atomicAdd(&s->d, 0.5);
    atomicMax(&s->top, i);
    atomicMin(&s->bottom, -i);
    atomicInc(&s->ring, 6);
    atomicOr(&s->bits, 1u << i % 32);
    atomicXor(&s->parity, 1u);
    atomicAdd(&s->exchanged, atomicExch(&s->exchanged, 0) ? 1 : 1);
}


Test(vgpu, simt_atomics)
{
    const int n = 5000;
    FOR_SEEDS(seed) {
        totals *s = managed(1, totals{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
        count_everything<<<(n + 95) / 96, 96>>>(s, n);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(s->i, -n);
        cr_assert_eq(s->u, 2u * n);
        cr_assert_eq(s->l, (unsigned long long)n << 33);
        cr_assert_eq(s->f, (float)n);
        cr_assert_eq(s->d, 0.5 * n);
        cr_assert_eq(s->top, n - 1);
        cr_assert_eq(s->bottom, 1 - n);
        cr_assert_eq(s->ring, n % 7u);
        cr_assert_eq(s->bits, 0xffffffffu);
        cr_assert_eq(s->parity, n % 2u);
        cr_assert_geq(s->exchanged, 1);
        OK(cudaFree(s));
    }
}
/* test spin locks */
__global__ void count_under_lock(int *lock, int *plain)
{
    for (int taken = 0; !taken;) {
        if (atomicCAS(lock, 0, 1) == 0) {
            int before = *(volatile int *)plain;
            __nanosleep(20);
            *(volatile int *)plain = before + 1;
            __threadfence();
            atomicExch(lock, 0);
            taken = 1;
        }
    }
}

Test(vgpu, simt_spin_lock, .timeout = 20)
{
    FOR_SEEDS(seed) {
        int *memory = managed(2, 0);
        count_under_lock<<<4, 70>>>(memory, memory + 1);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(memory[1], 280, "%d", memory[1]);
        OK(cudaFree(memory));
    }
}
/* test device mathematics */
__global__ void compute(float *f, int *i)
{
    f[0] = rsqrtf(4.0f);
    f[1] = fmaxf(NAN, 2.0f);
    f[2] = max(3.0f, NAN) + min(1, 2) + max(2u, 1u);
    f[3] = __expf(0.0f) + __fdividef(6.0f, 3.0f) + __saturatef(7.0f);
    f[4] = __int_as_float(__float_as_int(1.5f));
    f[5] = __fmaf_rn(2.0f, 3.0f, 4.0f) + tanhf(0.0f) + erff(0.0f);
    float4 v = make_float4(1, 2, 3, 4);
    f[6] = v.x + v.w + __ldg(&f[0]);
    i[0] = __float2int_rn(2.5f);
    i[1] = __float2int_rz(3e10f);
    i[2] = __float2int_rd(-2.5f);
    i[3] = __float2int_rn(NAN);
    i[4] = __popc(0xf0f0u) + __clz(1) + __ffs(8) + (int)(__brev(1u) >> 31);
    i[5] = (int)__umulhi(0x80000000u, 6u) + __mulhi(-1, 1);
    i[6] = warpSize;
}

Test(vgpu, simt_mathematics)
{
    const float f[] = {0.5f, 2, 6, 4, 1.5f, 10, 5.5f};
    const int i[] = {2, 2147483647, -3, 0, 8 + 31 + 4 + 1, 3 - 1, 32};
    float *got_f = managed(7, -1.0f);
    int *got_i = managed(7, -1);
    compute<<<1, 1>>>(got_f, got_i);
    OK(cudaDeviceSynchronize());
    for (int k = 0; k < 7; k++) {
        cr_assert_float_eq(got_f[k], f[k], 1e-6, "float %d is %g", k, (double)got_f[k]);
        cr_assert_eq(got_i[k], i[k], "int %d is %d", k, got_i[k]);
    }
}
/* test launch errors */
__global__ void nothing() {}

Test(vgpu, simt_launch_errors)
{
    nothing<<<1, 1025>>>();
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorInvalidConfiguration);
    nothing<<<0, 32>>>();
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorInvalidConfiguration);
    nothing<<<1, dim3(1, 1, 65)>>>();
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorInvalidConfiguration);
    nothing<<<dim3(1, 65536), 1>>>();
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorInvalidConfiguration);
    nothing<<<1, 32, 227 * 1024 + 1>>>();
    cr_assert_neq((int)cudaGetLastError(), (int)cudaSuccess);
    nothing<<<1, 1024>>>();
    OK(cudaGetLastError());
    OK(cudaDeviceSynchronize());
}
/* test lane orders */
#ifdef DLS_VIRTUAL_GPU
__global__ void log_order(int *order, int *clock, unsigned long *worker)
{
    order[blockIdx.x * blockDim.x + atomicAdd(&clock[blockIdx.x], 1)] = threadIdx.x;
    worker[blockIdx.x] = (unsigned long)pthread_self();
}

static std::vector<int> order_of(int blocks, int threads, int workers, uint64_t seed,
                                 int *helped)
{
    int *order = managed(blocks * threads, -1), *clock = managed(blocks, 0);
    unsigned long *worker = managed(blocks, 0ul);
    dls_simt_configure(workers, seed);
    log_order<<<blocks, threads>>>(order, clock, worker);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < blocks; i++)
        *helped += worker[i] != worker[0];
    std::vector<int> result(order, order + blocks * threads);
    OK(cudaFree(order));
    OK(cudaFree(clock));
    OK(cudaFree(worker));
    return result;
}

#endif

#ifdef DLS_VIRTUAL_GPU
Test(vgpu, simt_lane_orders)
{
    int helped = 0;
    for (int n : {64, 100}) {
        std::vector<int> first = order_of(6, n, 1, 0, &helped);
        for (int i = 0; i < n; i++)
            cr_assert_eq(first[i], i, "seed 0 is ascending");
        int different = 0;
        for (uint64_t seed = 1; seed < 20; seed++)
            different += order_of(6, n, 1, seed, &helped) != first;
        cr_assert_eq(different, 19);
    }
    cr_assert_eq(helped, 0);
}
#endif

#ifdef DLS_VIRTUAL_GPU
static unsigned hash_in_child(int workers)
{
    int ends[2], helped = 0, status;
    unsigned hash = 1;
    cr_assert_eq(pipe(ends), 0);
    if (fork() == 0) {
        for (int round = 0; round < 4 || (round < 99 && workers > 1 && !helped); round++)
            for (int v : order_of(3000, round % 2 ? 64 : 100, workers, 7, &helped))
                hash = round < 4 ? hash * 31 + (unsigned)v : hash;
        int good = (workers == 1) == (helped == 0);
        _exit(good && write(ends[1], &hash, sizeof hash) == sizeof hash ? 0 : 1);
    }
    wait(&status);
    cr_assert_eq(status, 0, "%d workers: did a helper work when it should?", workers);
    cr_assert_eq(read(ends[0], &hash, sizeof hash), (ssize_t)sizeof hash);
    close(ends[0]);
    close(ends[1]);
    return hash;
}

Test(vgpu, simt_order_is_reproducible)
{
    unsigned one = hash_in_child(1);
    cr_assert_eq(hash_in_child(1), one);
    cr_assert_eq(hash_in_child(4), one, "the order depends on the number of workers");
}
#endif

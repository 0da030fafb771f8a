/* tests/vgpu/probed_correct.cu: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Tricky but correct: what must not be reported, inside one launch. */
#include "check_test.h"

#include "vgpu/ptx.cuh"

/* expect silence */
static void expect_silence(const char *name)
{
    if (dls_check_count())
        dls_check_print(stderr);
    cr_assert_eq(dls_check_count(), 0, "%s: a report on correct code", name);
}

/* x, y: 1024 ints of zeros; afterwards `good` must hold of the host's copies a, b. */
#define SILENT(name, good, ...)                                                   \
    Test(check_correct, name)                                                     \
    {                                                                             \
        static int a[1024], b[1024];                                              \
        CHECKED(seed)                                                             \
        {                                                                         \
            int *x = device<int>(1024), *y = device<int>(1024);                   \
            __VA_ARGS__;                                                          \
            OK(cudaMemcpy(a, x, sizeof a, cudaMemcpyDeviceToHost));               \
            OK(cudaMemcpy(b, y, sizeof b, cudaMemcpyDeviceToHost));               \
            cr_assert(good, "%s: %d %d %d", #name, a[0], a[1], b[0]);             \
            OK(cudaFree(x));                                                      \
            OK(cudaFree(y));                                                      \
            expect_silence(#name);                                                \
        }                                                                         \
    }
/* order by barriers */
__global__ void reversed(int *x)
{
    __shared__ int s[256];
    s[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    x[threadIdx.x] = s[255 - threadIdx.x];
}
SILENT(tile, a[0] == 255 && a[255] == 0, reversed<<<1, 256>>>(x))

__global__ void tree(int *x)
{
    __shared__ int s[256];
    s[threadIdx.x] = 1;
    for (unsigned half = 128; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            s[threadIdx.x] += s[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        x[blockIdx.x] = s[0];
}
SILENT(tree_with_barriers, a[0] == 256 && a[3] == 256, tree<<<4, 256>>>(x))

__global__ void two_buffers(int *x, int rounds)
{
    __shared__ int s[2][64];
    int v = (int)threadIdx.x;
    for (int i = 0; i < rounds; i++) {
        s[i & 1][threadIdx.x] = v;
        __syncthreads(); // one is enough: the other buffer is read until the next
        v = s[i & 1][(threadIdx.x + 1) % 64];
    }
    x[blockIdx.x * 64 + threadIdx.x] = v;
}
SILENT(double_buffer, a[0] == 5 && a[127] == 4, two_buffers<<<2, 64>>>(x, 5))

__global__ void uniform_barrier(int *x, int n)
{
    __shared__ int s[64];
    for (int i = 0; i < n; i++) {
        s[threadIdx.x] = i;
        if (n > 2) // the same for all threads
            __syncthreads();
        x[threadIdx.x] += s[63 - threadIdx.x];
        __syncthreads();
    }
}
SILENT(barrier_in_a_uniform_branch, a[0] == 3, uniform_barrier<<<1, 64>>>(x, 3))

__global__ void returned_without_barrier(int *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n)
        return;
    x[i] = i;
}
SILENT(early_return, a[99] == 99 && a[100] == 0,
       returned_without_barrier<<<2, 64>>>(x, 100))

__global__ void counted(int *x)
{
    int odd = __syncthreads_count(threadIdx.x & 1);
    int any = __syncthreads_or(threadIdx.x == 7);
    x[threadIdx.x] = odd + 100 * any;
}
SILENT(counting_barriers, a[0] == 132, counted<<<1, 64>>>(x))

__global__ void global_tile(int *x, int *y)
{
    int *mine = x + blockIdx.x * 64; // global memory, but only this block's
    mine[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = mine[63 - threadIdx.x];
}
SILENT(block_private_global, b[0] == 63 && b[127] == 0, global_tile<<<2, 64>>>(x, y))

__global__ void transpose_padded(int *x)
{
    __shared__ int s[32][33];
    for (int r = (int)threadIdx.y; r < 32; r += 4)
        s[r][threadIdx.x] = r * 32 + (int)threadIdx.x;
    __syncthreads();
    for (int r = (int)threadIdx.y; r < 32; r += 4)
        x[r * 32 + threadIdx.x] = s[threadIdx.x][r];
}
SILENT(padded_transpose, a[1] == 32 && a[32] == 1,
       transpose_padded<<<1, dim3(32, 4)>>>(x))

__global__ void carved(int *x)
{
    extern __shared__ char raw[];
    int *first = (int *)raw;
    short *second = (short *)(first + 64);
    first[threadIdx.x] = 2;
    second[threadIdx.x] = 3;
    __syncthreads();
    x[threadIdx.x] = first[63 - threadIdx.x] + second[63 - threadIdx.x];
}
SILENT(carved_dynamic, a[0] == 5, carved<<<1, 64, 64 * 6>>>(x))
/* order within a warp */
__global__ void warp_tree(int *x)
{
    __shared__ int s[64];
    unsigned lane = threadIdx.x % 32, base = threadIdx.x - lane;
    s[threadIdx.x] = 1;
    for (unsigned half = 16; half; half /= 2) {
        __syncwarp();
        if (lane < half)
            s[base + lane] += s[base + lane + half];
    }
    __syncwarp();
    x[threadIdx.x] = s[base];
}
SILENT(warp_synchronous, a[0] == 32 && a[63] == 32, warp_tree<<<1, 64>>>(x))

__global__ void shuffled_sum(int *x)
{
    int v = 1;
    for (int by = 16; by; by /= 2)
        v += __shfl_down_sync(~0u, v, by);
    if (threadIdx.x % 32 == 0)
        x[threadIdx.x / 32] = v;
}
SILENT(shuffle_sum, a[0] == 32 && a[1] == 32, shuffled_sum<<<1, 64>>>(x))

__global__ void partial_warp(int *x)
{
    unsigned mask = (1u << 20) - 1; // the block has 20 threads
    int v = __shfl_xor_sync(mask, (int)threadIdx.x, 1);
    x[threadIdx.x] = v;
}
SILENT(partial_warp, a[0] == 1 && a[19] == 18, partial_warp<<<1, 20>>>(x))

__global__ void halves(int *x)
{
    __shared__ int s[32];
    unsigned lower = threadIdx.x < 16;
    s[threadIdx.x] = (int)threadIdx.x;
    if (lower) {
        __syncwarp(0x0000ffff);
        x[threadIdx.x] = s[15 - threadIdx.x];
    } else {
        __syncwarp(0xffff0000);
        x[threadIdx.x] = s[47 - threadIdx.x];
    }
}
SILENT(halves_of_a_warp, a[0] == 15 && a[16] == 31, halves<<<1, 32>>>(x))

__global__ void quads(int *x, int rounds)
{
    __shared__ int s[32];
    unsigned quad = 0xfu << (threadIdx.x & ~3u);
    s[threadIdx.x] = (int)threadIdx.x;
    for (int i = 0; i < rounds + (int)(threadIdx.x / 4); i++) {
        __syncwarp(quad); // quads take different numbers of rounds
        int v = s[(threadIdx.x & ~3u) | ((threadIdx.x + 1) & 3)];
        __syncwarp(quad);
        s[threadIdx.x] = v;
    }
    __syncwarp();
    x[threadIdx.x] = s[31 - threadIdx.x];
}
SILENT(quads_then_warp, a[31] == 3 && a[28] == 2, quads<<<1, 32>>>(x, 3))

__global__ void voted(int *x)
{
    unsigned even = __ballot_sync(~0u, threadIdx.x % 2 == 0);
    if (threadIdx.x % 2 == 0) {
        int leader = __ffs((int)even) - 1;
        x[threadIdx.x] = __shfl_sync(even, (int)threadIdx.x + 7, leader);
    }
}
SILENT(ballot_as_mask, a[0] == 7 && a[2] == 7 && a[1] == 0, voted<<<1, 32>>>(x))

__global__ void read_meet_write(int *x, int rounds)
{
    __shared__ int s[32];
    int lane = (int)threadIdx.x;
    s[lane] = lane;
    for (int i = 0; i < rounds; i++) {
        __syncthreads();
        int sum = 0;
        for (int k = 1; k <= 6; k++)
            sum += s[(lane + k) % 32];
        __syncwarp();
        s[lane] = sum % 32;
    }
    x[lane] = s[lane];
}
SILENT(reads_before_a_meeting, a[0] == 21, read_meet_write<<<1, 32>>>(x, 1);
       read_meet_write<<<1, 32>>>(y, 8))
/* share words and bytes */
__global__ void own_bytes(unsigned char *x)
{
    x[threadIdx.x] = (unsigned char)(threadIdx.x + 1); // four threads to a word
}
SILENT(bytes_of_a_word, a[0] == 0x04030201, own_bytes<<<1, 64>>>((unsigned char *)x))

__global__ void own_halves(int *x)
{
    __shared__ short s[64];
    s[threadIdx.x] = (short)threadIdx.x;
    __syncthreads();
    if (threadIdx.x < 32)
        x[threadIdx.x] = ((int *)s)[threadIdx.x]; // written as two, read as one
}
SILENT(halves_of_a_word, a[1] == 0x00030002, own_halves<<<1, 64>>>(x))

union number {
    float f;
    unsigned u;
};
__global__ void punned(int *x)
{
    __shared__ number s[32];
    s[threadIdx.x].f = 1.0f;
    __syncwarp();
    x[threadIdx.x] = (int)(s[31 - threadIdx.x].u >> 23);
}
SILENT(union_punning, a[0] == 127, punned<<<1, 32>>>(x))

__global__ void vectors_and_words(int *x, int *y)
{
    if (threadIdx.x < 16)
        ((int4 *)y)[threadIdx.x] = make_int4(1, 2, 3, 4);
    __syncthreads();
    x[threadIdx.x] = y[threadIdx.x];
}
SILENT(vector_writes_word_reads, a[3] == 4 && a[4] == 1,
       vectors_and_words<<<1, 64>>>(x, y))

struct pair {
    int key;
    char tag;
};
__global__ void structures(int *x)
{
    __shared__ pair s[32];
    pair p;
    p.key = (int)threadIdx.x;
    p.tag = 'a';
    s[threadIdx.x] = p; // the padding is copied, too
    __syncwarp();
    pair q = s[31 - threadIdx.x];
    x[threadIdx.x] = q.key + (q.tag == 'a');
}
SILENT(padding_of_a_structure, a[0] == 32, structures<<<1, 32>>>(x))

__global__ void local_arrays(int *x)
{
    int taps[8];
    for (int i = 0; i < 8; i++)
        taps[i] = i * (int)threadIdx.x;
    int sum = 0;
    for (int i = 0; i < 8; i++)
        sum += taps[(i + (int)threadIdx.x) & 7];
    x[threadIdx.x] = sum;
}
SILENT(local_array_of_each_thread, a[2] == 56, local_arrays<<<1, 64>>>(x))

static __constant__ int table[4] = {1, 2, 3, 4};
static __device__ int total;
__global__ void globals(int *x)
{
    x[blockIdx.x * 32 + threadIdx.x] = table[threadIdx.x & 3];
    atomicAdd(&total, 1);
}
SILENT(variables_of_the_program, a[35] == 4, globals<<<2, 32>>>(x))
/* order by atomics */
__global__ void histogram(int *x)
{
    __shared__ int bins[8];
    if (threadIdx.x < 8)
        bins[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&bins[threadIdx.x % 8], 1);
    __syncthreads();
    if (threadIdx.x < 8)
        atomicAdd(&x[threadIdx.x], bins[threadIdx.x]);
}
SILENT(histogram, a[0] == 64 && a[7] == 64, histogram<<<4, 128>>>(x))

__global__ void maximum(int *x)
{
    atomicMax(x, (int)(blockIdx.x * 32 + threadIdx.x));
    atomicOr(x + 1, 1 << threadIdx.x % 8);
}
SILENT(atomics_of_all, a[0] == 127 && a[1] == 255, maximum<<<4, 32>>>(x))

__global__ void spin_lock(int *lock, int *sum)
{
    if (threadIdx.x != 0)
        return;
    while (atomicCAS(lock, 0, 1) != 0)
        ;
    __threadfence();
    *sum += 1; // plain: the lock orders it
    __threadfence();
    atomicExch(lock, 0);
}
SILENT(spin_lock, b[0] == 8 && a[0] == 0, spin_lock<<<8, 32>>>(x, y))

__global__ void lock_of_a_block(int *x)
{
    __shared__ int lock, sum;
    if (threadIdx.x == 0)
        lock = sum = 0;
    __syncthreads();
    if (threadIdx.x % 32 == 0) { // one thread of each warp
        while (atomicCAS(&lock, 0, 1) != 0)
            ;
        __threadfence_block();
        sum += 1;
        __threadfence_block();
        atomicExch(&lock, 0);
    }
    __syncthreads();
    x[threadIdx.x] = sum;
}
SILENT(lock_in_shared_memory, a[0] == 4, lock_of_a_block<<<1, 128>>>(x))

__global__ void message(int *data, volatile int *flag, int *out)
{
    if (blockIdx.x == 0) {
        *data = 42;
        __threadfence();
        *flag = 1;
    } else {
        while (*flag == 0)
            ;
        __threadfence();
        *out = *data;
    }
}
SILENT(flag_and_fence, b[0] == 42, message<<<2, 1>>>(x, x + 1, y))

__global__ void warps_pass_a_ball(int *x)
{
    __shared__ int value;
    __shared__ volatile int turn;
    if (threadIdx.x == 0) {
        value = 0;
        turn = 0;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        int warp = (int)threadIdx.x / 32;
        while (turn != warp)
            __nanosleep(10);
        __threadfence_block();
        value = 2 * value + warp;
        __threadfence_block();
        turn = warp + 1;
    }
    __syncthreads();
    x[threadIdx.x] = value;
}
SILENT(warps_in_turn, a[0] == 11, warps_pass_a_ball<<<1, 128>>>(x))

__global__ void tickets(int *counter, int *y)
{
    __shared__ int ticket;
    if (threadIdx.x == 0)
        ticket = atomicAdd(counter, 1);
    __syncthreads();
    y[ticket * 32 + threadIdx.x] = ticket; // whoever has the ticket owns the row
}
SILENT(dynamic_tiles, b[33] == 1 && a[0] == 4, tickets<<<4, 32>>>(x, y))

__global__ void pushed(int *count, int *list)
{
    if (threadIdx.x % 3 == 0)
        list[atomicAdd(count, 1)] = (int)threadIdx.x;
}
SILENT(append_to_a_list, a[0] == 22, pushed<<<1, 64>>>(x, y))
/* finish in the last block */
__global__ void last_block_sums(int *part, int *count, int *out)
{
    __shared__ int last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (int)blockIdx.x + 1;
        __threadfence();
        last = atomicAdd(count, 1) == (int)gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0)
        for (unsigned i = 0; i < gridDim.x; i++)
            *out += part[i];
}
SILENT(last_block, b[0] == 36, last_block_sums<<<8, 32>>>(x, x + 100, y))

__global__ void whole_block_leaves(int *part, int *count, int *out)
{
    __shared__ int last;
    part[blockIdx.x * 32 + threadIdx.x] = 1; // by every thread
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(count, 1) == (int)gridDim.x - 1;
    __syncthreads();
    if (last)
        for (unsigned i = 0; i < gridDim.x; i++)
            out[threadIdx.x] += part[i * 32 + threadIdx.x];
}
SILENT(all_fence_one_counts, b[31] == 4, whole_block_leaves<<<4, 32>>>(x, x + 500, y))

__global__ void one_fences_for_all(int *part, int *count, int *out)
{
    __shared__ int last;
    part[blockIdx.x * 32 + threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence(); // covers what the barrier gathered
        last = atomicAdd(count, 1) == (int)gridDim.x - 1;
    }
    __syncthreads();
    if (last)
        for (unsigned i = 0; i < gridDim.x; i++)
            out[threadIdx.x] += part[i * 32 + threadIdx.x];
}
SILENT(barrier_then_fence, b[31] == 4, one_fences_for_all<<<4, 32>>>(x, x + 500, y))

/* Blocks take their numbers in the order in which they start, and look back. */
__global__ void look_back(int *ticket, volatile int *flag, int *sums, int *out)
{
    __shared__ int me, before;
    if (threadIdx.x == 0) {
        me = atomicAdd(ticket, 1);
        before = 0;
        if (me > 0) {
            while (flag[me - 1] == 0)
                ;
            __threadfence();
            before = sums[me - 1];
        }
        sums[me] = before + 32;
        __threadfence();
        flag[me] = 1;
    }
    __syncthreads();
    out[me * 32 + threadIdx.x] = before + (int)threadIdx.x;
}
SILENT(decoupled_look_back, b[0] == 0 && b[255] == 255,
       look_back<<<8, 32>>>(x, x + 100, x + 200, y))
/* read more than is used */
__global__ void guarded(const int *x, int *y, int n)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        y[i] = i + 1 < n ? x[i + 1] : 0;
}
SILENT(guarded_index, b[0] == 0, guarded<<<1, 64>>>(x, y, 1000))

__global__ void broadcast(const int *x, int *y)
{
    y[blockIdx.x * 64 + threadIdx.x] = x[0] + x[threadIdx.x % 2]; // all read the same
}
SILENT(everyone_reads, b[0] == 0, broadcast<<<4, 64>>>(x, y))

__global__ void exact_end(int *x)
{
    x[1023 - threadIdx.x] = 7;
    ((char *)x)[threadIdx.x] = 0;
}
SILENT(to_the_last_byte, a[1023] == 7, exact_end<<<1, 32>>>(x))

__global__ void async_copy(int *x, const int *y)
{
    __shared__ int s[32 * 4];
    dls_cp_async_16(&s[threadIdx.x * 4], &y[threadIdx.x * 4]);
    dls_cp_async_commit();
    dls_cp_async_wait<0>();
    __syncthreads();
    x[threadIdx.x] = s[127 - threadIdx.x] + 1;
}
SILENT(async_copy_with_wait, a[0] == 1, async_copy<<<1, 32>>>(x, y))

/* tests/vgpu/test_simt_groups.cu: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* Cooperative launches and groups: grid barriers, tiles, coalesced lanes, copies. */
#include "simt_test.h"

#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

namespace cg = cooperative_groups;

/* test the barrier of the grid */
__global__ void pass_on(int *out, int rounds)
{
    __shared__ int sum;
    cg::grid_group grid = cg::this_grid();
    unsigned long long me = grid.thread_rank();
    out[me] = (int)blockIdx.x;
    if (threadIdx.x == 0)
        sum = (int)blockIdx.x;
    for (int i = 0; i < rounds; i++) {
        grid.sync();
        int v = out[(me + blockDim.x + 1) % grid.size()];
        grid.sync();
        out[me] = v + 1000;
    }
    if (sum != (int)blockIdx.x || !grid.is_valid())
        out[me] = -1;
}

__global__ void pass_on_by_hand(int *out, unsigned *arrived, int rounds)
{
    unsigned me = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
    out[me] = (int)blockIdx.x;
    for (int i = 0; i < 2 * rounds; i++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(arrived, 1u);
            while (atomicAdd(arrived, 0u) < (i + 1) * gridDim.x)
                ;
        }
        __syncthreads();
        int v = out[(me + blockDim.x + 1) % all];
        if (i % 2 == 0)
            arrived[1 + me] = (unsigned)v;
        else
            out[me] = (int)arrived[1 + me] + 1000;
    }
}

static void check_passed(const int *out, int blocks, int threads, int rounds)
{
    int n = blocks * threads;
    for (int i = 0; i < n; i++) {
        int from = (int)((i + (long)rounds * (threads + 1)) % n);
        cr_assert_eq(out[i], from / threads + 1000 * rounds, "%d: %d", i, out[i]);
    }
}

Test(vgpu, simt_grid_barrier)
{
    FOR_SEEDS(seed)
        for (int blocks : {1, 7, 40}) {
            int *out = managed(blocks * 70, -5), rounds = 3;
            unsigned *arrived = managed(1 + blocks * 70, 0u);
            void *arguments[] = {&out, &rounds};
            OK(cudaLaunchCooperativeKernel((void *)pass_on, dim3(blocks), dim3(70),
                                           arguments));
            rounds = 99;  // too late to matter
            OK(cudaDeviceSynchronize());
            check_passed(out, blocks, 70, 3);
            int hand_rounds = 2;
            void *others[] = {&out, &arrived, &hand_rounds};
            OK(cudaLaunchCooperativeKernel(pass_on_by_hand, dim3(blocks), dim3(70),
                                           others, 0, 0));
            OK(cudaDeviceSynchronize());
            check_passed(out, blocks, 70, 2);
            OK(cudaFree(out));
            OK(cudaFree(arrived));
        }
}
/* test refused cooperative launches */
template <class T> __global__ void plain(T *out, T value)
{
    out[blockIdx.x] = value;
}

Test(vgpu, simt_launch_by_pointer)
{
    double *out = managed(3, 0.0), value = 2.5;
    void *arguments[] = {&out, &value};
    OK(cudaLaunchKernel((const void *)plain<double>, dim3(3), dim3(1), arguments, 0, 0));
    OK(cudaDeviceSynchronize());
    cr_assert_eq(out[2], 2.5);
    cr_assert_eq((int)cudaLaunchCooperativeKernel((void *)plain<double>, dim3(100000),
                                                  dim3(128), arguments, 0, 0),
                 (int)cudaErrorCooperativeLaunchTooLarge);
    cr_assert_eq((int)cudaGetLastError(), (int)cudaErrorCooperativeLaunchTooLarge);
    OK(cudaDeviceSynchronize());
}

#ifdef DLS_VIRTUAL_GPU
__global__ void meet_in_part(int *out)
{
    if (threadIdx.x >= 64 - 7 * blockIdx.x)
        return;
    atomicAdd(&out[0], 1);
    cg::this_grid().sync();
    if (threadIdx.x == 0)
        out[1 + blockIdx.x] = out[0];
}

Test(vgpu, simt_grid_barrier_of_some)
{
    FOR_SEEDS(seed) {
        int *out = managed(6, 0);
        void *arguments[] = {&out};
        OK(cudaLaunchCooperativeKernel((void *)meet_in_part, dim3(5), dim3(64),
                                       arguments));
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 6; i++)
            cr_assert_eq(out[i], 64 + 57 + 50 + 43 + 36);
        OK(cudaFree(out));
    }
}

__global__ void meet_badly(int how)
{
    if (how == 0 || blockIdx.x > 1)
        cg::this_grid().sync();
}

Test(vgpu, simt_grid_barrier_needs_the_launch)
{
    meet_badly<<<2, 32>>>(0);
    check_broken(cudaErrorLaunchFailure, {"grid.sync at", ".md:", "not cooperative"});
}

Test(vgpu, simt_grid_barrier_deadlock)
{
    int how = 1;
    void *arguments[] = {&how};
    OK(cudaLaunchCooperativeKernel((void *)meet_badly, dim3(5), dim3(32), arguments));
    check_broken(cudaErrorLaunchFailure,
                 {"kernel meet_badly", "3 blocks wait in grid.sync", ".md:",
                  "2 returned without it"});
}
#endif
/* test tiles */
template <unsigned N> __device__ int use_tile(const cg::thread_block &block)
{
    auto made = cg::tiled_partition<N>(block);
    cg::thread_block_tile<N> tile = made;
    unsigned t = threadIdx.x, rank = t % N, first = t - rank;
    int wrong = tile.size() != N || tile.thread_rank() != rank;
    wrong += tile.meta_group_rank() != t / N || tile.meta_group_size() != 64 / N;
    wrong += tile.shfl(t, N - 1) != first + N - 1;
    wrong += tile.shfl_up(t, 2) != (rank >= 2 ? t - 2 : t);
    wrong += tile.shfl_down(t, 3) != (rank + 3 < N ? t + 3 : t);
    wrong += tile.shfl_xor(t, N / 2) != first + (rank ^ N / 2);
    wrong += tile.any(rank == N - 1) != 1 || tile.all(rank + 1 < N) != 0;
    wrong += tile.ballot(rank % 2 == 0) != (0x55555555u << (32 - N) >> (32 - N));
    tile.sync();
    int sum = cg::reduce(made, (int)t, cg::plus<int>());
    wrong += sum != (int)(N * first + N * (N - 1) / 2);
    wrong += cg::reduce(made, (int)t, cg::greater<int>()) != (int)(first + N - 1);
    wrong += cg::inclusive_scan(made, (int)rank) != (int)(rank * (rank + 1) / 2);
    wrong += cg::exclusive_scan(made, 1) != (int)rank;
    return wrong;
}

__global__ void use_tiles(int *out)
{
    cg::thread_block block = cg::this_thread_block();
    int wrong = use_tile<32>(block) + use_tile<16>(block) + use_tile<8>(block) +
                use_tile<4>(block) + use_tile<2>(block) + use_tile<1>(block);
    auto half = cg::tiled_partition<16>(cg::tiled_partition<32>(block));
    wrong += half.meta_group_rank() != threadIdx.x % 32 / 16;
    wrong += half.meta_group_size() != 2;
    cg::thread_group eight = cg::tiled_partition(block, 8);
    wrong += eight.size() != 8 || eight.thread_rank() != threadIdx.x % 8;
    cg::sync(block);
    wrong += block.thread_rank() != threadIdx.x || block.size() != 64;
    out[threadIdx.x] = wrong;
}

Test(vgpu, simt_tiles)
{
    int *out = managed(64, -1);
    FOR_SEEDS(seed) {
        use_tiles<<<1, 64>>>(out);
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 64; i++)
            cr_assert_eq(out[i], 0, "thread %d: %d", i, out[i]);
    }
}
/* test coalesced lanes */
__device__ int take_ticket(int *counter, int *operations)
{
    cg::coalesced_group lanes = cg::coalesced_threads();
    int first = 0;
    if (lanes.thread_rank() == 0) {
        first = atomicAdd(counter, (int)lanes.size());
        atomicAdd(operations, 1);
    }
    return lanes.shfl(first, 0) + (int)lanes.thread_rank();
}

__global__ void take_tickets(int *counter, int *operations, int *taken)
{
    if (threadIdx.x % 3)
        atomicAdd(&taken[take_ticket(counter, operations)], 1);
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(cg::this_thread_block());
    int lane = threadIdx.x % 32;
    cg::coalesced_group same = cg::labeled_partition(warp, lane % 5);
    int wrong = same.size() != (lane % 5 < 2 ? 7u : 6u) ||
                (int)same.thread_rank() != lane / 5 || same.meta_group_size() != 5 ||
                (int)same.meta_group_rank() != lane % 5;
    wrong += cg::reduce(same, lane, cg::less<int>()) != lane % 5;
    cg::coalesced_group side = cg::binary_partition(same, lane >= 16);
    wrong += side.any(lane < 16) != (lane < 16);
    if (wrong)
        atomicAdd(operations, 1000000);
}

Test(vgpu, simt_coalesced_lanes)
{
    FOR_SEEDS(seed) {
        int *counter = managed(2, 0), *taken = managed(4 * 64, 0);
        take_tickets<<<4, 96>>>(counter, counter + 1, taken);
        OK(cudaDeviceSynchronize());
        cr_assert_eq(counter[0], 256);
        cr_assert(counter[1] >= 12 && counter[1] <= 24, "%d operations", counter[1]);
        cr_assert(seed || counter[1] == 12);
        for (int i = 0; i < 256; i++)
            cr_assert_eq(taken[i], 1, "ticket %d taken %d times", i, taken[i]);
        OK(cudaFree(counter));
        OK(cudaFree(taken));
    }
}
/* test copies by a group */
__global__ void copy_by_group(char *out, const char *in, int bytes, int from)
{
    __shared__ __align__(16) char s[600];
    cg::thread_block block = cg::this_thread_block();
    for (int i = threadIdx.x; i < 600; i += blockDim.x)
        s[i] = 0;
    block.sync();
    cg::memcpy_async(block, s, in + from, bytes);
    cg::wait(block);
    for (int i = threadIdx.x; i < 600; i += blockDim.x)
        out[i] = s[599 - i];
}

Test(vgpu, simt_copies_by_a_group)
{
    char *in = managed(700, '\0'), *out = managed(600, '\0');
    for (int i = 0; i < 700; i++)
        in[i] = (char)(i * 7 % 127 + 1);
    FOR_SEEDS(seed)
        for (int bytes : {512, 520, 36, 77})
            for (int from : {0, 8, 4, 3}) {
                copy_by_group<<<1, 40>>>(out, in, bytes, from);
                OK(cudaDeviceSynchronize());
                for (int i = 0; i < 600; i++)
                    cr_assert_eq(out[599 - i], i < bytes ? in[from + i] : 0);
            }
}

/* tests/vgpu/test_simt_warp.cu: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Warp operations: values, masks, diverged warps, returned lanes, refused calls. */
#include "simt_test.h"

#include <math.h>

#include "vgpu/gpu.h"

/* test shuffles against a table */
__global__ void shuffle(int *out, int kind, int by, int width)
{
    int t = threadIdx.x, v = 1000 + t, r;
    if (kind == 0)
        r = __shfl_sync(0xffffffffu, v, by, width);
    else if (kind == 1)
        r = __shfl_up_sync(0xffffffffu, v, by, width);
    else if (kind == 2)
        r = __shfl_down_sync(0xffffffffu, v, by, width);
    else
        r = __shfl_xor_sync(0xffffffffu, v, by, width);
    out[t] = r;
}

static int source(int lane, int kind, int by, int width)
{
    int first = lane / width * width, place = lane - first;
    if (kind == 0)
        return first + by % width;
    if (kind == 1)
        return place < by ? lane : lane - by;
    if (kind == 2)
        return place + by >= width ? lane : lane + by;
    return (lane ^ by) >= first + width ? lane : lane ^ by;
}


static void check_shuffle(int n, int kind, int by, int width, int *out)
{
    shuffle<<<1, n>>>(out, kind, by, width);
    OK(cudaDeviceSynchronize());
    for (int t = 0; t < n; t++) {
        int from = t / 32 * 32 + source(t % 32, kind, by, width);
        if (from < n)
            cr_assert_eq(out[t], 1000 + from, "kind %d by %d width %d: thread %d got %d",
                         kind, by, width, t, out[t]);
    }
}

Test(vgpu, simt_shuffles)
{
    int *out = managed(300, 0);
    FOR_SEEDS(seed)
        for (int n : {32, 33, 300})
            for (int kind = 0; kind < 4; kind++)
                for (int width = 1; width <= 32; width *= 2)
                    for (int by : {0, 1, 2, 7, 16, 31})
                        check_shuffle(n, kind, by, width, out);
}

#ifdef DLS_VIRTUAL_GPU
__global__ void ask_the_absent(float *f, double *d)
{
    float one = __shfl_sync(0xffffffffu, 1.0f, 5);
    if (threadIdx.x < 16) {
        f[threadIdx.x] = __shfl_down_sync(0x0000ffffu, one, 8);
        d[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0, 16);
    }
}

Test(vgpu, simt_absent_lanes_give_poison)
{
    float *f = managed(16, 0.0f);
    double *d = managed(16, 0.0);
    ask_the_absent<<<1, 32>>>(f, d);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 16; i++) {
        cr_assert(i < 8 ? f[i] == 1.0f : isnan(f[i]), "lane %d got %g", i, (double)f[i]);
        cr_assert(isnan(d[i]));
    }
}
#endif
/* test diverged warps */
__global__ void diverge(int *out)
{
    int t = threadIdx.x, lane = t % 32, v = lane;
    if (lane < 16) {
        for (int i = 0; i < 3; i++)
            v = __shfl_xor_sync(0x0000ffffu, v, 1) + 1;
    } else {
        for (int i = 0; i < 4; i++)
            v = __shfl_down_sync(0xffff0000u, v, 1, 16);
    }
    __syncwarp();
    out[t] = v;
}

__global__ void uneven_warps(int *out)
{
    __shared__ int total;
    int warp = threadIdx.x / 32, v = 1;
    if (threadIdx.x == 0)
        total = 0;
    __syncthreads();
    for (int i = 0; i <= warp; i++)
        v += __shfl_xor_sync(0xffffffffu, v, 1 << i % 5);
    if (threadIdx.x % 32 == 0)
        atomicAdd(&total, v);
    __syncthreads();
    out[threadIdx.x] = total;
}


Test(vgpu, simt_diverged_warps)
{
    int *out = managed(256, 0);
    FOR_SEEDS(seed) {
        diverge<<<1, 96>>>(out);
        OK(cudaDeviceSynchronize());
        for (int t = 0; t < 96; t++) {
            int lane = t % 32;
            int want = lane < 16 ? (lane ^ 1) + 3 : lane > 27 ? 31 : lane + 4;
            cr_assert_eq(out[t], want, "lane %d got %d", lane, out[t]);
        }
        uneven_warps<<<1, 256>>>(out);
        OK(cudaDeviceSynchronize());
        for (int t = 0; t < 256; t++)
            cr_assert_eq(out[t], 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256);
    }
}
/* test votes and reductions */
__global__ void decide(unsigned *out)
{
    unsigned t = threadIdx.x, all = 0xffffffffu, *o = out + 12 * t;
    int same;
    o[0] = __ballot_sync(all, t % 3 == 0);
    o[1] = __any_sync(all, t == 31);
    o[2] = __all_sync(all, t < 31);
    o[3] = __match_any_sync(all, t % 4);
    o[4] = __match_all_sync(all, 7.5, &same) + same;
    o[5] = __match_all_sync(all, t, &same) + same;
    o[6] = __reduce_add_sync(all, t);
    o[7] = (unsigned)__reduce_min_sync(all, (int)t - 20);
    o[8] = __reduce_max_sync(all, t - 20u);
    o[9] = __reduce_or_sync(all, 1u << t % 5);
    o[10] = __reduce_xor_sync(all, t);
    o[11] = __reduce_and_sync(all, t | 4u);
}

Test(vgpu, simt_votes_and_reductions)
{
    unsigned *out = managed(32 * 12, 0u);
    FOR_SEEDS(seed) {
        decide<<<1, 32>>>(out);
        OK(cudaDeviceSynchronize());
        for (unsigned t = 0; t < 32; t++) {
            const unsigned want[12] = {0x49249249u, 1, 0, 0x11111111u << t % 4, 0, 0, 496,
                                       (unsigned)-20, 0xffffffffu, 31, 0, 4};
            for (int i = 0; i < 12; i++)
                cr_assert_eq(out[12 * t + i], want[i], "lane %u, result %d: %x", t, i,
                             out[12 * t + i]);
        }
    }
}
/* test lanes that return */
__global__ void return_sometimes(int *out)
{
    int t = threadIdx.x, lane = t % 32;
    if (lane % 5 == 0)
        return;
    int sum = __reduce_add_sync(0xffffffffu, 1);
    if (lane % 2)
        return;
    __syncwarp();
    out[t] = sum + __popc(__ballot_sync(0xffffffffu, 1));
}

Test(vgpu, simt_returned_lanes)
{
    int *out = managed(80, 0);
    FOR_SEEDS(seed) {
        return_sometimes<<<1, 80>>>(out);
        OK(cudaDeviceSynchronize());
        for (int t = 0; t < 80; t++) {
            int lane = t % 32, stays = lane % 5 && lane % 2 == 0;
            int want = t >= 64 ? 12 + 6 : 25 + 12;
            cr_assert_eq(out[t], stays ? want : 0, "thread %d: %d", t, out[t]);
        }
    }
}
/* test refused warp operations */
#ifdef DLS_VIRTUAL_GPU
#define REFUSED(kernel, threads, ...)                                             \
    Test(vgpu, simt_refuses_##kernel)                                             \
    {                                                                             \
        kernel<<<2, threads>>>();                                                 \
        check_broken(cudaErrorLaunchFailure,                                      \
                     {"kernel " #kernel, ".md:", __VA_ARGS__});                   \
    }
#endif

#ifdef DLS_VIRTUAL_GPU
__global__ void caller_outside_its_mask()
{
    __shfl_sync(0x0000ffffu, 1, 0);
}
REFUSED(caller_outside_its_mask, 32, "0x0000ffff", "in which it is not", "__shfl_sync")

__global__ void masks_that_disagree()
{
    __ballot_sync(threadIdx.x < 8 ? 0x000001ffu : 0xffffffffu, 1);
}
REFUSED(masks_that_disagree, 32, "disagree on the mask", "0x000001ff", "0xffffffff")

__global__ void different_operations()
{
    if (threadIdx.x % 2)
        __syncwarp();
    else
        __any_sync(0xffffffffu, 1);
}
REFUSED(different_operations, 32, "different operations", "__syncwarp", "__any_sync")

__global__ void width_of_three()
{
    __shfl_down_sync(0xffffffffu, 1, 1, 3);
}
REFUSED(width_of_three, 32, "width 3", "power of two")
#endif
/* test deadlocks */
#ifdef DLS_VIRTUAL_GPU
__global__ void barrier_against_warp()
{
    if (threadIdx.x < 3)
        __syncthreads();
    else
        __syncwarp();
}
REFUSED(barrier_against_warp, 32, "deadlock", "3 threads in __syncthreads",
        "29 threads in __syncwarp")

__global__ void circle_of_masks()
{
    unsigned t = threadIdx.x;
    __shfl_sync(t == 0 ? 3u : t == 1 ? 6u : 5u, 1, 0);
}
REFUSED(circle_of_masks, 3, "deadlock", "3 threads in __shfl_sync")
#endif

/* tests/vgpu/probed_races.cu: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Planted faults: races between threads of one launch. */
#include "check_test.h"

#include "vgpu/ptx.cuh"

/* race in shared memory */
__global__ void no_barrier(float *x)
{
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x]; // no_barrier
    x[threadIdx.x] = s[63 - threadIdx.x]; // no_barrier-other
}
FAULT(no_barrier, DLS_CHECK_SHARED_RACE, "shared array 's'", float *x = device<float>(64);
      no_barrier<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void no_second_barrier(float *x, int rounds)
{
    __shared__ float s[64];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        s[threadIdx.x] = x[threadIdx.x]; // no_second_barrier
        __syncthreads();
        sum += s[63 - threadIdx.x]; // no_second_barrier-other
    }
    x[threadIdx.x] = sum;
}
FAULT(no_second_barrier, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(64); no_second_barrier<<<1, 64>>>(x, 2); OK(cudaFree(x)))

__global__ void tree_without_barrier(float *x)
{
    __shared__ float s[128];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    for (unsigned half = 64; half; half /= 2)
        if (threadIdx.x < half)
            s[threadIdx.x] += s[threadIdx.x + half]; // tree_without_barrier
    __syncthreads();
    if (threadIdx.x == 0)
        x[0] = s[0];
}
Test(check_faults, tree_without_barrier)
{
    CHECKED(seed)
    {
        float *x = device<float>(128);
        tree_without_barrier<<<1, 128>>>(x);
        OK(cudaDeviceSynchronize());
        const dls_check_report *r = only_report(DLS_CHECK_SHARED_RACE, "tree");
        cr_assert_eq(r->here.line, line_of("tree_without_barrier"));
        cr_assert_eq(r->there.line, r->here.line);
        OK(cudaFree(x));
    }
}

__global__ void everyone_writes(int *x)
{
    __shared__ int last;
    last = (int)threadIdx.x; // everyone_writes
    __syncthreads();
    x[threadIdx.x] = last;
}
Test(check_faults, everyone_writes)
{
    CHECKED(seed)
    {
        int *x = device<int>(64);
        everyone_writes<<<1, 64>>>(x);
        OK(cudaDeviceSynchronize());
        const dls_check_report *r = only_report(DLS_CHECK_SHARED_RACE, "everyone");
        cr_assert_eq(r->here.line, line_of("everyone_writes"));
        cr_assert_str_neq(r->here.what, r->there.what);
        OK(cudaFree(x));
    }
}

__global__ void wrong_buffer(float *x, int rounds)
{
    __shared__ float s[2][64];
    s[0][threadIdx.x] = x[threadIdx.x];
    for (int i = 0; i < rounds; i++) {
        __syncthreads();
        s[i & 1][threadIdx.x] = x[threadIdx.x]; // wrong_buffer
        x[threadIdx.x] = s[i & 1][63 - threadIdx.x]; // wrong_buffer-other
    }
}
FAULT(wrong_buffer, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(64); wrong_buffer<<<1, 64>>>(x, 2); OK(cudaFree(x)))

__global__ void read_before_counted(int *x)
{
    __shared__ int bins[4];
    if (threadIdx.x < 4)
        bins[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&bins[threadIdx.x % 4], 1); // read_before_counted
    x[threadIdx.x] = bins[threadIdx.x % 4]; // read_before_counted-other
}
FAULT(read_before_counted, DLS_CHECK_SHARED_RACE, "'bins'", int *x = device<int>(64);
      read_before_counted<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void cleared_late(int *x)
{
    __shared__ int bins[4];
    if (threadIdx.x < 4)
        bins[threadIdx.x] = -1; // not fresh, whichever warp comes first
    __syncthreads();
    if (threadIdx.x < 4)
        bins[threadIdx.x] = 0; // cleared_late
    __syncwarp();
    atomicAdd(&bins[threadIdx.x % 4], 1); // cleared_late-other
    __syncthreads();
    x[threadIdx.x] = bins[threadIdx.x % 4];
}
FAULT(cleared_late, DLS_CHECK_SHARED_RACE, "'bins'", int *x = device<int>(64);
      cleared_late<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void dynamic_race(float *x)
{
    extern __shared__ float room[];
    room[threadIdx.x] = x[threadIdx.x]; // dynamic_race
    x[threadIdx.x] = room[threadIdx.x ^ 32]; // dynamic_race-other
}
FAULT(dynamic_race, DLS_CHECK_SHARED_RACE, "dynamic shared memory",
      float *x = device<float>(64); dynamic_race<<<1, 64, 256>>>(x); OK(cudaFree(x)))

__global__ void two_readers(float *x, int rounds)
{
    __shared__ float s[32];
    float sum = 0;
    if (threadIdx.x < 32)
        s[threadIdx.x] = x[threadIdx.x];
    for (int i = 0; i < rounds; i++) {
        __syncthreads();
        sum += s[threadIdx.x / 2]; // two_readers
    }
    if (threadIdx.x % 2 == 0)
        s[threadIdx.x / 2] = sum; // two_readers-other
}
FAULT(two_readers, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(64); two_readers<<<1, 64>>>(x, 4); OK(cudaFree(x)))

__global__ void end_of_a_row(float *x, int rounds)
{
    __shared__ float s[2][64];
    float sum = 0;
    s[0][threadIdx.x] = x[0];
    if (threadIdx.x != 60)
        s[1][threadIdx.x] = x[0];
    __syncthreads();
    for (int i = 0; i < rounds; i++)
        sum += s[i / 2][threadIdx.x]; // end_of_a_row
    x[threadIdx.x] = sum;
}
FAULT(end_of_a_row, DLS_CHECK_UNINITIALISED, "byte 496 of the shared array 's'",
      float *x = device<float>(64); end_of_a_row<<<1, 61>>>(x, 3); OK(cudaFree(x)))

__global__ void wider_steps(float *x, int rounds)
{
    __shared__ float s[2][128];
    float sum = 0;
    for (int i = (int)threadIdx.x; i < 256; i += (int)blockDim.x)
        if (i != 128 + 120)
            s[i / 128][i % 128] = x[0];
    __syncthreads();
    for (int i = 0; i < rounds; i++)
        sum += s[i / 3][threadIdx.x * (i < 2 ? 1 : 2)]; // wider_steps
    x[threadIdx.x] = sum;
}
FAULT(wider_steps, DLS_CHECK_UNINITIALISED, "byte 992 of the shared array 's'",
      float *x = device<float>(64); wider_steps<<<1, 61>>>(x, 4); OK(cudaFree(x)))
/* race after many clean rounds */
__global__ void late_write(const float *x, float *y, int rounds)
{
    __shared__ float s[64];
    float sum = 0;
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 8; k++)
            sum += s[(threadIdx.x + k) % 64]; // late_write
        if (threadIdx.x >= 32 && i == 6)
            s[threadIdx.x - 32] = 0; // late_write-other
        __syncthreads();
    }
    y[blockIdx.x * 64 + threadIdx.x] = sum;
}
FAULT(late_write, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(320); late_write<<<4, 64>>>(x, x + 64, 7);
      OK(cudaFree(x)))

__global__ void late_barrier(const float *x, float *y, int rounds)
{
    __shared__ float s[64];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        s[threadIdx.x] = x[i]; // late_barrier
        __syncthreads();
        for (int k = 30; k < 34; k++)
            sum += s[(threadIdx.x + k) % 64]; // late_barrier-other
        if (i != 6)
            __syncthreads();
    }
    y[blockIdx.x * 64 + threadIdx.x] = sum;
}
FAULT(late_barrier, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(264); late_barrier<<<4, 64>>>(x, x + 8, 8);
      OK(cudaFree(x)))
__global__ void same_half(int rounds)
{
    __shared__ int s[6][64];
    int warp = threadIdx.x / 32;
    for (int i = 0; i < rounds; i++) {
        int half = i == 6 ? 0 : (i + warp) % 2;
        for (int k = 0; k < 6; k++)
            s[k][half * 32 + threadIdx.x % 32] = i; // same_half
        __syncthreads();
    }
}
FAULT(same_half, DLS_CHECK_SHARED_RACE, "two writes", same_half<<<4, 64>>>(8))

__global__ void late_read(float *y, int rounds)
{
    __shared__ float s[6][64];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 6; k++)
            s[k][threadIdx.x] = 1; // late_read
        if (threadIdx.x >= 32 && i == 6)
            sum += s[2][threadIdx.x - 32]; // late_read-other
        __syncthreads();
    }
    y[blockIdx.x * 64 + threadIdx.x] = sum;
}
FAULT(late_read, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *y = device<float>(64); late_read<<<1, 64>>>(y, 8); OK(cudaFree(y)))

__global__ void stray_lanes(int rounds)
{
    __shared__ int s[6][64];
    for (int i = 0; i < rounds; i++) {
        int stray = (i == 6) & (threadIdx.x > 32);
        for (int k = 0; k < 6; k++)
            s[k][threadIdx.x ^ stray << 5] = i; // stray_lanes
        __syncthreads();
    }
}
FAULT(stray_lanes, DLS_CHECK_SHARED_RACE, "two writes", stray_lanes<<<4, 64>>>(8))
__global__ void block_that_forgets(float *x, int rounds)
{
    __shared__ float s[64];
    float sum = 0;
    if (blockIdx.x != 3)
        s[threadIdx.x] = 1;
    __syncthreads();
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 8; k++)
            sum += s[(threadIdx.x + k) % 64]; // block_that_forgets
        __syncthreads();
    }
    x[blockIdx.x * 64 + threadIdx.x] = sum;
}
FAULT(block_that_forgets, DLS_CHECK_UNINITIALISED, "shared array 's'",
      float *x = device<float>(256); block_that_forgets<<<4, 64>>>(x, 4);
      OK(cudaFree(x)))
__global__ void a_look_between(float *x, int rounds, int shift)
{
    __shared__ float s[6][64];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        if (threadIdx.x < 32)
            for (int k = 0; k < 6; k++)
                s[k][threadIdx.x] = 1, s[k][threadIdx.x + 32] = 2; // a_look_between
        else if (i == 6)
            sum += (&s[0][0])[threadIdx.x + shift]; // a_look_between-other
        __syncthreads();
    }
    x[threadIdx.x] = sum;
}
FAULT(a_look_between, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(64); a_look_between<<<1, 64>>>(x, 8, (int)seed);
      OK(cudaFree(x)))
/* race within a warp */
__global__ void no_syncwarp(float *x)
{
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x]; // no_syncwarp
    x[threadIdx.x] = s[31 - threadIdx.x]; // no_syncwarp-other
}
FAULT(no_syncwarp, DLS_CHECK_SHARED_RACE, "'s'", float *x = device<float>(32);
      no_syncwarp<<<1, 32>>>(x); OK(cudaFree(x)))

__global__ void half_a_warp(float *x)
{
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x]; // half_a_warp
    __syncwarp(threadIdx.x < 16 ? 0x0000ffff : 0xffff0000);
    x[threadIdx.x] = s[31 - threadIdx.x]; // half_a_warp-other
}
FAULT(half_a_warp, DLS_CHECK_SHARED_RACE, "'s'", float *x = device<float>(32);
      half_a_warp<<<1, 32>>>(x); OK(cudaFree(x)))

__global__ void warp_for_block(float *x)
{
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x]; // warp_for_block
    __syncwarp();
    x[threadIdx.x] = s[threadIdx.x ^ 32]; // warp_for_block-other
}
FAULT(warp_for_block, DLS_CHECK_SHARED_RACE, "'s'", float *x = device<float>(64);
      warp_for_block<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void same_byte(unsigned char *x)
{
    __shared__ unsigned char s[32];
    s[threadIdx.x] = x[threadIdx.x]; // same_byte
    x[threadIdx.x] = s[threadIdx.x ^ 1]; // same_byte-other
}
FAULT(same_byte, DLS_CHECK_SHARED_RACE, "of 32 bytes",
      unsigned char *x = device<unsigned char>(32); same_byte<<<1, 32>>>(x);
      OK(cudaFree(x)))

__global__ void copy_not_awaited(float *x, const float *y)
{
    __shared__ float s[128];
    dls_cp_async_16(&s[threadIdx.x * 4], &y[threadIdx.x * 4]);
    dls_cp_async_commit();
    __syncthreads(); // a barrier does not wait for the copies
    x[threadIdx.x] = s[127 - threadIdx.x]; // copy_not_awaited-other
    dls_cp_async_wait<0>(); // copy_not_awaited
}
FAULT(copy_not_awaited, DLS_CHECK_SHARED_RACE, "shared array 's'",
      float *x = device<float>(128); float *y = device<float>(128);
      copy_not_awaited<<<1, 32>>>(x, y); OK(cudaFree(x)); OK(cudaFree(y)))
/* race in global memory */
__global__ void in_place_stencil(float *x)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float left = i ? x[i - 1] : 0; // in_place_stencil
    x[i] = left; // in_place_stencil-other
}
FAULT(in_place_stencil, DLS_CHECK_GLOBAL_RACE, "of 512 bytes of device memory",
      float *x = device<float>(128); in_place_stencil<<<2, 64>>>(x);
      OK(cudaFree(x)))

__global__ void no_atomic(int *count)
{
    *count += 1; // no_atomic
}
FAULT(no_atomic, DLS_CHECK_GLOBAL_RACE, "byte 0 of 4 bytes", int *x = device<int>(1);
      no_atomic<<<4, 1>>>(x); OK(cudaFree(x)))

__global__ void between_blocks(float *x)
{
    if (blockIdx.x == 0)
        x[threadIdx.x] = 1.0f; // between_blocks
    else
        x[32 + threadIdx.x] = x[threadIdx.x]; // between_blocks-other
}
FAULT(between_blocks, DLS_CHECK_GLOBAL_RACE, "of 256 bytes",
      float *x = device<float>(64); between_blocks<<<2, 32>>>(x); OK(cudaFree(x)))

__global__ void within_a_block(float *x)
{
    x[threadIdx.x] = (float)threadIdx.x; // within_a_block
    x[64 + threadIdx.x] = x[63 - threadIdx.x]; // within_a_block-other
}
FAULT(within_a_block, DLS_CHECK_GLOBAL_RACE, "of 512 bytes",
      float *x = device<float>(128); within_a_block<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void plain_and_atomic(int *count, int *seen)
{
    atomicAdd(count, 1); // plain_and_atomic
    seen[blockIdx.x] = *count; // plain_and_atomic-other
}
FAULT(plain_and_atomic, DLS_CHECK_GLOBAL_RACE, "byte 0 of 4 bytes",
      int *x = device<int>(1); int *y = device<int>(4); plain_and_atomic<<<4, 1>>>(x, y);
      OK(cudaFree(x)); OK(cudaFree(y)))

__global__ void neighbours_in_halves(short *x)
{
    x[threadIdx.x] = 1; // neighbours_in_halves
    x[threadIdx.x ^ 1] += 1; // neighbours_in_halves-other
}
FAULT(neighbours_in_halves, DLS_CHECK_GLOBAL_RACE, "of 128 bytes",
      short *x = device<short>(64); neighbours_in_halves<<<1, 2>>>(x); OK(cudaFree(x)))
/* forget a fence */
__global__ void last_block(float *part, int *count, float *out)
{
    __shared__ int last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = 1.0f; // last_block
        last = atomicAdd(count, 1) == (int)gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x < gridDim.x)
        out[threadIdx.x] = part[threadIdx.x]; // last_block-other
}
FAULT(last_block, DLS_CHECK_GLOBAL_RACE, "of 16 bytes", float *x = device<float>(4);
      float *y = device<float>(4); int *n = device<int>(1);
      last_block<<<4, 32>>>(x, n, y); OK(cudaFree(x)); OK(cudaFree(y)); OK(cudaFree(n)))

__global__ void narrow_fence(float *data, volatile int *flag, float *out)
{
    if (blockIdx.x == 0) {
        *data = 1.0f; // narrow_fence
        __threadfence_block();
        *flag = 1;
    } else {
        while (*flag == 0)
            ;
        *out = *data; // narrow_fence-other
    }
}
FAULT(narrow_fence, DLS_CHECK_GLOBAL_RACE, "byte 0 of 4 bytes",
      float *x = device<float>(1); float *y = device<float>(1); int *f = device<int>(1);
      narrow_fence<<<2, 1>>>(x, f, y); OK(cudaFree(x)); OK(cudaFree(y)); OK(cudaFree(f)))

__global__ void fence_too_early(float *data, int *flag, float *out)
{
    if (blockIdx.x == 0) {
        __threadfence();
        *data = 1.0f; // fence_too_early
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0)
            ;
        *out = *data; // fence_too_early-other
    }
}
FAULT(fence_too_early, DLS_CHECK_GLOBAL_RACE, "byte 0 of 4 bytes",
      float *x = device<float>(1); float *y = device<float>(1); int *f = device<int>(1);
      fence_too_early<<<2, 1>>>(x, f, y); OK(cudaFree(x)); OK(cudaFree(y));
      OK(cudaFree(f)))
/* meet wrongly */
__global__ void two_barriers(float *x)
{
    if (threadIdx.x < 32)
        __syncthreads(); // two_barriers
    else
        __syncthreads(); // two_barriers-other
    x[threadIdx.x] = 1.0f;
}
FAULT(two_barriers, DLS_CHECK_BARRIER, "different barriers", float *x = device<float>(64);
      two_barriers<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void returned_early(float *x, int n)
{
    if ((int)threadIdx.x >= n)
        return;
    x[threadIdx.x] = 1.0f;
    __syncthreads(); // returned_early
    x[threadIdx.x] += 1.0f;
}
FAULT(returned_early, DLS_CHECK_BARRIER, "has returned before a barrier",
      float *x = device<float>(64); returned_early<<<1, 64>>>(x, 50); OK(cudaFree(x)))

__global__ void never_comes(float *x)
{
    if (threadIdx.x < 16)
        __syncwarp(); // never_comes
    else
        __syncthreads();
    x[threadIdx.x] = 1.0f;
}
Test(check_faults, never_comes)
{
    CHECKED(seed)
    {
        float *x = device<float>(32);
        never_comes<<<1, 32>>>(x);
        cr_assert_neq((int)cudaDeviceSynchronize(), 0);
        const dls_check_report *r = only_report(DLS_CHECK_DEADLOCK, "never_comes");
        cr_assert(strstr(r->here.what, "every thread waits"), "%s", r->here.what);
        cudaDeviceReset();
    }
}

__global__ void not_in_the_mask(int *x)
{
    x[threadIdx.x] = __shfl_sync(0x0000ffff, (int)threadIdx.x, 0); // not_in_the_mask
}
FAULT(not_in_the_mask, DLS_CHECK_MASK, "in which it is not", int *x = device<int>(32);
      not_in_the_mask<<<1, 32>>>(x); cudaDeviceSynchronize(); cudaDeviceReset())

__global__ void other_masks(int *x)
{
    unsigned mask = threadIdx.x < 8 ? 0x000001ffu : 0xffffffffu;
    x[threadIdx.x] = __any_sync(mask, 1); // other_masks
}
FAULT(other_masks, DLS_CHECK_MASK, "disagree", int *x = device<int>(32);
      other_masks<<<1, 32>>>(x); cudaDeviceSynchronize(); cudaDeviceReset())

__global__ void odd_width(int *x)
{
    x[threadIdx.x] = __shfl_down_sync(~0u, (int)threadIdx.x, 1, 3); // odd_width
}
FAULT(odd_width, DLS_CHECK_MASK, "width 3", int *x = device<int>(32);
      odd_width<<<1, 32>>>(x); cudaDeviceSynchronize(); cudaDeviceReset())

__global__ void absent_source(int *x)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_sync(0x0000ffff, (int)threadIdx.x, 20); // absent_source
}
FAULT(absent_source, DLS_CHECK_SOURCE_LANE, "lane 20", int *x = device<int>(32);
      absent_source<<<1, 32>>>(x); OK(cudaFree(x)))

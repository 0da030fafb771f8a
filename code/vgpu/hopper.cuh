/* code/vgpu/hopper.cuh: from chapters/A-virtual-gpu-simt-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* Instructions of compute capability 9.0: inline PTX under nvcc (sm_90a), emulated
 * otherwise. Barriers count arrivals and bytes; TMA copies tiles, whose rows of 128 bytes
 * it swizzles; wgmma multiplies them for the 128 threads of a warpgroup.
 *
 *   tile in shared memory: 1024-byte aligned rows of 128 bytes, 64 elements; row r keeps
 *   its 16-byte piece p at place p ^ (r % 8)
 */
#ifndef DLS_VGPU_HOPPER_CUH
#define DLS_VGPU_HOPPER_CUH

#include "base/status.h"
#include "vgpu/ptx.cuh"

#ifdef DLS_VIRTUAL_GPU
#include "vgpu/simt_hopper.h"

/* emulate barriers and copies */
#define DLS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
static inline unsigned dls_shared_address(const void *p)
{
    return dls_simt_shared_offset(p);
}

static inline void dls_mbarrier_init(uint64_t *bar, unsigned count, DLS_HERE)
{
    dls_simt_mbarrier_init(bar, count, file, line);
}
static inline void dls_mbarrier_visible() {}
static inline void dls_mbarrier_arrive(uint64_t *bar, DLS_HERE)
{
    dls_simt_mbarrier_arrive(bar, 0, file, line);
}
static inline void dls_mbarrier_arrive_expect(uint64_t *bar, unsigned bytes, DLS_HERE)
{
    dls_simt_mbarrier_arrive(bar, bytes, file, line);
}
static inline void dls_mbarrier_wait(uint64_t *bar, unsigned parity, DLS_HERE)
{
    dls_simt_mbarrier_wait(bar, parity, file, line);
}
static inline void dls_named_barrier_sync(int id, int threads, DLS_HERE)
{
    dls_simt_named_barrier(id, threads, 1, file, line);
}
static inline void dls_named_barrier_arrive(int id, int threads, DLS_HERE)
{
    dls_simt_named_barrier(id, threads, 0, file, line);
}
template <int N> static inline void dls_registers_release()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a number of registers");
}
template <int N> static inline void dls_registers_claim() { dls_registers_release<N>(); }

static inline void dls_tma_load_4d(void *tile, const dls_tensor_map *map, uint64_t *bar,
                                   int x, int y, int z, int w, DLS_HERE)
{
    const int at[5] = {x, y, z, w, 0};
    dls_simt_tma_load(tile, map, bar, at, file, line);
}
static inline void dls_tma_prefetch(const dls_tensor_map *) {}

/* emulate the warpgroup products */
static inline void dls_wgmma_fence() { dls_simt_wgmma_fence(); }
static inline void dls_wgmma_commit() { dls_simt_wgmma_commit(); }
template <int N> static inline void dls_wgmma_wait(DLS_HERE)
{
    static_assert(N >= 0, "a number of groups");
    dls_simt_wgmma_wait(N, file, line);
}
template <int N> static inline void dls_wgmma_arrived(float (*)[4]) {}

#define DLS_WGMMA(name, N, fp16)                                                  \
    static inline void name(float (*d)[4], uint64_t a_tile, uint64_t b_tile,      \
                            int accumulate, DLS_HERE)                             \
    {                                                                             \
        const dls_wgmma p = {d[0], N, fp16, 0, accumulate, {}, a_tile, b_tile};   \
        dls_simt_wgmma(&p, file, line);                                           \
    }
DLS_WGMMA(dls_wgmma_m64n128k16_bf16, 128, 0)
DLS_WGMMA(dls_wgmma_m64n128k16_fp16, 128, 1)
#undef DLS_WGMMA

#define DLS_WGMMA(name, N, fp16)                                                  \
    static inline void name(float (*d)[4], const uint32_t *a, uint64_t b_tile,    \
                            int accumulate, DLS_HERE)                             \
    {                                                                             \
        const dls_wgmma p = {d[0], N, fp16, 1, accumulate,                        \
                             {a[0], a[1], a[2], a[3]}, 0, b_tile};                \
        dls_simt_wgmma(&p, file, line);                                           \
    }
DLS_WGMMA(dls_wgmma_m64n64k16_bf16_rows, 64, 0)
DLS_WGMMA(dls_wgmma_m64n64k16_fp16_rows, 64, 1)
DLS_WGMMA(dls_wgmma_m64n128k16_bf16_rows, 128, 0)
DLS_WGMMA(dls_wgmma_m64n128k16_fp16_rows, 128, 1)
#undef DLS_WGMMA
#undef DLS_HERE
#else
#include <cuda.h>

/* describe a tensor to the driver */
typedef CUtensorMap dls_tensor_map;

/* Host. Describes 16-bit elements at `base` (16-byte aligned): size[i] in dimension i,
 * the innermost first, step[i] bytes apart (multiples of 16; step[0] is not read). A copy
 * takes box[i] of them; box[0] is 64, for rows of 128 swizzled bytes. */
static inline dls_status dls_tensor_map_16bit(dls_tensor_map *map, const void *base,
                                              int rank, const uint64_t *size,
                                              const uint64_t *step, const uint32_t *box)
{
    typedef CUresult (*encoder)(
        CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
        const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
        CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
        CUtensorMapFloatOOBfill);
    const cuuint32_t every[5] = {1, 1, 1, 1, 1};
    void *encode = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                         cudaEnableDefault, &found) || !encode)
        return DLS_FAIL(DLS_ERR_DEVICE, "the driver has no cuTensorMapEncodeTiled");
    CUresult result = ((encoder)encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_UINT16, rank, (void *)base, size, step + 1, box,
        every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result ? DLS_FAIL(DLS_ERR_STATE, "cuTensorMapEncodeTiled: error %d", result)
                  : DLS_OK;
}

/* write the barriers in ptx */
/* `count` arrivals end each phase. One thread initialises; then dls_mbarrier_visible and
 * a __syncthreads before others use it. */
static __device__ inline void dls_mbarrier_init(uint64_t *bar, unsigned count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 : : "r"(dls_shared_address(bar)), "r"(count) : "memory");
}

/* Makes initialised barriers known to the copy machine. */
static __device__ inline void dls_mbarrier_visible()
{
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

static __device__ inline void dls_mbarrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                 : : "r"(dls_shared_address(bar)) : "memory");
}

/* Arrives, and announces `bytes` that copies will bring. */
static __device__ inline void dls_mbarrier_arrive_expect(uint64_t *bar, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 : : "r"(dls_shared_address(bar)), "r"(bytes) : "memory");
}

/* Waits until the phase of this parity (0 or 1) is over. */
static __device__ inline void dls_mbarrier_wait(uint64_t *bar, unsigned parity)
{
    unsigned over;
    do
        asm volatile("{\n"
                     ".reg .pred over;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, over;\n"
                     "}"
                     : "=r"(over) : "r"(dls_shared_address(bar)), "r"(parity)
                     : "memory");
    while (!over);
}

/* Waits until `threads` threads have come to barrier `id` (1 ... 15), whole warps. */
static __device__ inline void dls_named_barrier_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

/* Counts as one of them and goes on. */
static __device__ inline void dls_named_barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

/* All warps of a warpgroup: keep N registers per thread, give the others to the pool; or
 * wait until the pool has enough to hold N. N is a multiple of 8, 24 to 256. */
template <int N> static __device__ inline void dls_registers_release()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(N));
}

template <int N> static __device__ inline void dls_registers_claim()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(N));
}

/* write the tile copies in ptx */
/* One thread copies the box at (x, y, z, w) to `tile`, 1024-byte aligned, and tells `bar`
 * of all its bytes, those outside the tensor included. `map` is a __grid_constant__. */
static __device__ inline void dls_tma_load_4d(void *tile, const dls_tensor_map *map,
                                              uint64_t *bar, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global"
                 ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 : : "r"(dls_shared_address(tile)), "l"(map),
                     "r"(dls_shared_address(bar)), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

/* Fetches a map ahead of its first use. */
static __device__ inline void dls_tma_prefetch(const dls_tensor_map *map)
{
    asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
}

/* write the warpgroup products in ptx */
static __device__ inline void dls_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

static __device__ inline void dls_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

template <int N> static __device__ inline void dls_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(N) : "memory");
}

/* Tells the compiler that the registers changed: after a wait, before they are read. */
template <int N> static __device__ inline void dls_wgmma_arrived(float d[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            asm volatile("" : "+f"(d[i][e]) : : "memory");
}
#define DLS_F4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define DLS_F16(d, i) DLS_F4(d, i), DLS_F4(d, i + 1), DLS_F4(d, i + 2), DLS_F4(d, i + 3)
#define DLS_OUT_64(d) DLS_F16(d, 0), DLS_F16(d, 4)
#define DLS_OUT_128(d) DLS_OUT_64(d), DLS_F16(d, 8), DLS_F16(d, 12)
#define DLS_NAMES_64                                                              \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DLS_NAMES_128                                                             \
    DLS_NAMES_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
    "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
    "%59, %60, %61, %62, %63"
/* d (64 x N) = [d +] A (64 x 16) B^T, B (N x 16). */
#define DLS_WGMMA(name, N, type, p, a, b)                                         \
    static __device__ inline void name(float d[N / 8][4], uint64_t a_tile,        \
                                       uint64_t b_tile, int accumulate)           \
    {                                                                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" p ", 0;\n"              \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "."   \
                     type " {" DLS_NAMES_##N "}, %" a ", %" b                     \
                     ", p, 1, 1, 0, 0;\n}"                                        \
                     : DLS_OUT_##N(d)                                             \
                     : "l"(a_tile), "l"(b_tile), "r"(accumulate));                \
    }
DLS_WGMMA(dls_wgmma_m64n128k16_bf16, 128, "bf16", "66", "64", "65")
DLS_WGMMA(dls_wgmma_m64n128k16_fp16, 128, "f16", "66", "64", "65")
#undef DLS_WGMMA

/* d (64 x N) = [d +] A (64 x 16, in registers) B, B (16 x N). */
#define DLS_WGMMA(name, N, type, p, a0, a1, a2, a3, b)                            \
    static __device__ inline void name(float d[N / 8][4], const uint32_t a[4],    \
                                       uint64_t b_tile, int accumulate)           \
    {                                                                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" p ", 0;\n"              \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "."   \
                     type " {" DLS_NAMES_##N "}, {%" a0 ", %" a1 ", %" a2 ", %" a3 \
                     "}, %" b ", p, 1, 1, 1;\n}"                                  \
                     : DLS_OUT_##N(d)                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile),   \
                       "r"(accumulate));                                          \
    }
DLS_WGMMA(dls_wgmma_m64n64k16_bf16_rows, 64, "bf16", "37", "32", "33", "34", "35", "36")
DLS_WGMMA(dls_wgmma_m64n64k16_fp16_rows, 64, "f16", "37", "32", "33", "34", "35", "36")
DLS_WGMMA(dls_wgmma_m64n128k16_bf16_rows, 128, "bf16", "69", "64", "65", "66", "67",
          "68")
DLS_WGMMA(dls_wgmma_m64n128k16_fp16_rows, 128, "f16", "69", "64", "65", "66", "67", "68")
#undef DLS_WGMMA
#endif

/* describe a tile to wgmma */
/* The descriptor of a swizzled tile for wgmma. stride: bytes from 8 rows to the next 8;
 * leading: bytes from 64 columns to the next 64, where the tile is read down its rows. */
static __device__ inline uint64_t dls_wgmma_tile(const void *tile, unsigned leading,
                                                 unsigned stride)
{
    uint64_t address = dls_shared_address(tile) & 0x3ffffu;
    return address >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* The same tile, `bytes` further on: 32 per 16 columns, 2048 per 16 rows. */
static __device__ inline uint64_t dls_wgmma_step(uint64_t tile, unsigned bytes)
{
    return tile + (bytes >> 4);
}
#endif

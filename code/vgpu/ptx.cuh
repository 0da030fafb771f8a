/* code/vgpu/ptx.cuh: from chapters/A-virtual-gpu-simt-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Instructions that CUDA C++ has no names for: inline PTX under nvcc, emulated otherwise.
 * All of ldmatrix and mma are for whole warps: the 32 lanes must call them together.
 *
 * Fragments, with g = lane / 4 and t = lane % 4 (PTX ISA 8.x, "Matrix Fragments for
 * mma.m16n8k16", "... k8", "... k32"); D is laid out like C:
 *
 *           16-bit, k = 16          tf32, k = 8      8-bit, k = 32         C: 32-bit
 *   a[0]    (g, 2t) (g, 2t+1)       (g, t)           (g, 4t .. 4t+3)       c[0] (g, 2t)
 *   a[1]    (g+8, 2t) ...           (g+8, t)         (g+8, 4t ..)          c[1] (g, 2t+1)
 *   a[2]    (g, 2t+8) ...           (g, t+4)         (g, 4t+16 ..)         c[2] (g+8, 2t)
 *   a[3]    (g+8, 2t+8) ...         (g+8, t+4)       (g+8, 4t+16 ..)       c[3] next
 *   b[0]    (2t, g) (2t+1, g)       (t, g)           (4t .. 4t+3, g)
 *   b[1]    (2t+8, g) (2t+9, g)     (t+4, g)         (4t+16 .., g)
 */
#ifndef DLS_VGPU_PTX_CUH
#define DLS_VGPU_PTX_CUH

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

/* #pragma unroll for headers, in which the rewriter does not spell it as gcc does. */
#ifdef __CUDACC__
#define DLS_UNROLL _Pragma("unroll")
#else
#define DLS_UNROLL
#endif

#ifdef DLS_VIRTUAL_GPU
/* emulate the instructions */
extern "C" {
void dls_simt_copy_async(void *shared, const void *global, int size, int bytes,
                         const char *file, int line);
void dls_simt_copy_commit(void);
void dls_simt_copy_wait(int groups);  // -1: everything, committed or not
void dls_simt_ldmatrix(uint32_t *r, const void *row, int matrices, int transpose,
                       const char *file, int line);
void dls_simt_mma(int shape, void *d, const uint32_t *a, const uint32_t *b, const void *c,
                  const char *file, int line);
uint32_t dls_simt_tf32(float x);
}
enum { DLS_MMA_BF16, DLS_MMA_FP16, DLS_MMA_TF32, DLS_MMA_S8 };

#define DLS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
static inline void dls_cp_async_16(void *shared, const void *global, DLS_HERE)
{
    dls_simt_copy_async(shared, global, 16, 16, file, line);
}
static inline void dls_cp_async_16_zfill(void *shared, const void *global, int bytes,
                                         DLS_HERE)
{
    dls_simt_copy_async(shared, global, 16, bytes, file, line);
}
static inline void dls_cp_async_8(void *shared, const void *global, DLS_HERE)
{
    dls_simt_copy_async(shared, global, 8, 8, file, line);
}
static inline void dls_cp_async_4(void *shared, const void *global, DLS_HERE)
{
    dls_simt_copy_async(shared, global, 4, 4, file, line);
}
static inline void dls_cp_async_commit() { dls_simt_copy_commit(); }
template <int N> static inline void dls_cp_async_wait()
{
    static_assert(N >= 0, "a number of groups");
    dls_simt_copy_wait(N);
}
static inline void dls_cp_async_wait_all() { dls_simt_copy_wait(-1); }

#define DLS_LDMATRIX(name, matrices, transpose)                                   \
    static inline void name(uint32_t *r, const void *row, DLS_HERE)               \
    {                                                                             \
        dls_simt_ldmatrix(r, row, matrices, transpose, file, line);               \
    }
DLS_LDMATRIX(dls_ldmatrix_x1, 1, 0)
DLS_LDMATRIX(dls_ldmatrix_x1_trans, 1, 1)
DLS_LDMATRIX(dls_ldmatrix_x2, 2, 0)
DLS_LDMATRIX(dls_ldmatrix_x2_trans, 2, 1)
DLS_LDMATRIX(dls_ldmatrix_x4, 4, 0)
DLS_LDMATRIX(dls_ldmatrix_x4_trans, 4, 1)
#undef DLS_LDMATRIX
#define DLS_MMA(name, shape, T)                                                   \
    static inline void name(T *d, const uint32_t *a, const uint32_t *b, const T *c, \
                            DLS_HERE)                                             \
    {                                                                             \
        dls_simt_mma(shape, d, a, b, c, file, line);                              \
    }
DLS_MMA(dls_mma_m16n8k16_bf16, DLS_MMA_BF16, float)
DLS_MMA(dls_mma_m16n8k16_fp16, DLS_MMA_FP16, float)
DLS_MMA(dls_mma_m16n8k8_tf32, DLS_MMA_TF32, float)
DLS_MMA(dls_mma_m16n8k32_s8, DLS_MMA_S8, int)
#undef DLS_MMA
#undef DLS_HERE

static inline uint32_t dls_to_tf32(float x) { return dls_simt_tf32(x); }
static inline float dls_ex2(float x) { return x < -126 ? 0.0f : exp2f(x); }
#else
/* write the copies in ptx */
static __device__ inline unsigned dls_shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Copies 16 bytes, both addresses aligned to 16, past the L1 cache. They have arrived
 * only after a wait, and for other threads after a barrier behind it. */
static __device__ inline void dls_cp_async_16(void *shared, const void *global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 : : "r"(dls_shared_address(shared)), "l"(global) : "memory");
}

/* The same, but only `bytes` (0 to 16) are read and the rest becomes zero. */
static __device__ inline void dls_cp_async_16_zfill(void *shared, const void *global,
                                                    int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 : : "r"(dls_shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}

static __device__ inline void dls_cp_async_8(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;"
                 : : "r"(dls_shared_address(shared)), "l"(global) : "memory");
}

static __device__ inline void dls_cp_async_4(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                 : : "r"(dls_shared_address(shared)), "l"(global) : "memory");
}

/* Ends a group: what this thread has copied since the last commit. */
static __device__ inline void dls_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* Waits until at most the N youngest groups of this thread are still on their way. */
template <int N> static __device__ inline void dls_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

static __device__ inline void dls_cp_async_wait_all()
{
    asm volatile("cp.async.wait_all;" : : : "memory");
}
/* write the loads in ptx */
#define DLS_LDMATRIX(name, ptx, outputs, last, ...)                               \
    static __device__ inline void name(uint32_t *r, const void *row)              \
    {                                                                             \
        asm volatile("ldmatrix.sync.aligned.m8n8." ptx ".shared.b16 {" outputs    \
                     "}, [" last "];"                                             \
                     : __VA_ARGS__ : "r"(dls_shared_address(row)) : "memory");    \
    }
DLS_LDMATRIX(dls_ldmatrix_x1, "x1", "%0", "%1", "=r"(r[0]))
DLS_LDMATRIX(dls_ldmatrix_x1_trans, "x1.trans", "%0", "%1", "=r"(r[0]))
DLS_LDMATRIX(dls_ldmatrix_x2, "x2", "%0, %1", "%2", "=r"(r[0]), "=r"(r[1]))
DLS_LDMATRIX(dls_ldmatrix_x2_trans, "x2.trans", "%0, %1", "%2", "=r"(r[0]), "=r"(r[1]))
DLS_LDMATRIX(dls_ldmatrix_x4, "x4", "%0, %1, %2, %3", "%4", "=r"(r[0]), "=r"(r[1]),
             "=r"(r[2]), "=r"(r[3]))
DLS_LDMATRIX(dls_ldmatrix_x4_trans, "x4.trans", "%0, %1, %2, %3", "%4", "=r"(r[0]),
             "=r"(r[1]), "=r"(r[2]), "=r"(r[3]))
#undef DLS_LDMATRIX
/* write the products in ptx */
#define DLS_MMA(name, ptx, T, constraint)                                         \
    static __device__ inline void name(T *d, const uint32_t *a, const uint32_t *b, \
                                       const T *c)                                \
    {                                                                             \
        asm volatile("mma.sync.aligned." ptx " {%0, %1, %2, %3}, "                \
                     "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"          \
                     : "=" constraint(d[0]), "=" constraint(d[1]),                \
                       "=" constraint(d[2]), "=" constraint(d[3])                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]),     \
                       "r"(b[1]), constraint(c[0]), constraint(c[1]),             \
                       constraint(c[2]), constraint(c[3]));                       \
    }
DLS_MMA(dls_mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32", float, "f")
DLS_MMA(dls_mma_m16n8k16_fp16, "m16n8k16.row.col.f32.f16.f16.f32", float, "f")
DLS_MMA(dls_mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32", float, "f")
DLS_MMA(dls_mma_m16n8k32_s8, "m16n8k32.row.col.s32.s8.s8.s32", int, "r")
#undef DLS_MMA

/* The nearest number with tf32's 10 digits behind the point, halves away from zero, as
 * the operand bits of the tf32 product. */
static __device__ inline uint32_t dls_to_tf32(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

/* 2^x to within 2^-22 of itself; 0 where the result is below 2^-126, and for -inf. */
static __device__ inline float dls_ex2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif
#endif

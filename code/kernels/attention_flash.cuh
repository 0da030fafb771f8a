/* code/kernels/attention_flash.cuh: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* What the forward and the backward kernel of flash attention share: tiles in shared
 * memory, and the two products of a block of 16 x 16 threads.
 *
 *          x ─► columns x, x + 16, …
 *        y ┌────────────┐
 *        ▼ │ own tile   │   thread (x, y) owns rows y, y + 16, …: the 16 threads of a
 *     rows │ R = 16 TR  │   row are half a warp, and see each other without a barrier
 *          └────────────┘
 *
 * Everything in shared memory and in registers has the accumulator's type. Included by
 * .cu files only. */
#ifndef DLS_KERNELS_ATTENTION_FLASH_CUH
#define DLS_KERNELS_ATTENTION_FLASH_CUH

#include <math.h>

#include "kernels/attention_ways.h"
#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

enum { FLASH_THREADS = 256 };

/* ask for unrolled loops */
#ifdef __CUDACC__
#define FLASH_UNROLL _Pragma("unroll")
#define FLASH_UNROLL_TWO _Pragma("unroll 2")
#elif defined __SANITIZE_THREAD__  // every copy of a loop is one more place to watch
#define FLASH_UNROLL
#define FLASH_UNROLL_TWO
#else
#define FLASH_UNROLL _Pragma("GCC unroll 16")
#define FLASH_UNROLL_TWO
#endif

/* choose the tiles */
/* Rows per thread of the own and of the other tile; W is the padded head size. */
template <typename acc, int W>
struct flash_tile {
    static constexpr int TR = sizeof(acc) == 4 ? (W <= 128 ? 4 : 2) : (W <= 128 ? 2 : 1);
    static constexpr int TC = sizeof(acc) == 4 && W <= 128 ? 2 : 1;
    static constexpr int R = 16 * TR, C = 16 * TC, PER = 16 / (int)sizeof(acc);
    static constexpr int PITCH = W + PER;     // of a row of q, k, v, dO in shared memory
    static constexpr int WEIGHTS = C % 32 ? C : C + 16;  // of a row of weights
    static constexpr size_t forward_bytes =
        sizeof(acc) * ((R + 2 * C) * PITCH + R * WEIGHTS);
    static constexpr size_t backward_bytes =
        sizeof(acc) * (2 * (R + C) * PITCH + R * WEIGHTS + 2 * (R > C ? R : C));
};

/* find a head in its array */
/* A head of a sequence: rows of D elements, `row` apart. */
template <typename real>
struct flash_rows {
    real *data;
    size_t row;
    int count;
};

template <typename real>
__device__ inline flash_rows<real> flash_head(real *data, const int *starts,
                                              size_t sequence,
                                              size_t row, int b, int h, int D, int count)
{
    size_t at = dls_attention_at(starts, sequence, row, b) + (size_t)h * D;
    return {data + at, row, count};
}

/* load rows */
/* tile[r][d] = factor * x[first + r][d] for r < rows, d < W; zero outside of x. */
template <int W, int rows, typename acc, typename real>
__device__ inline void flash_load(acc *tile, const flash_rows<real> &x, int first, int D,
                                  acc factor)
{
    for (int n = threadIdx.x; n < rows * W; n += FLASH_THREADS) {
        int r = n / W, d = n % W;
        bool inside = first + r < x.count && d < D;
        tile[r * flash_tile<acc, W>::PITCH + d] =
            inside ? factor * acc(x.data[(size_t)(first + r) * x.row + d]) : acc(0);
    }
}

/* multiply rows by rows */
template <typename acc>
struct alignas(16) flash_quad {
    acc at[16 / sizeof(acc)];
};

/* sum[i][j] += own row y + 16 i times other row x + 16 j, over W channels. */
template <int W, int TR, int TC, typename acc>
__device__ inline void flash_multiply(acc (&sum)[TR][TC], const acc *own,
                                      const acc *other)
{
    const int pitch = flash_tile<acc, W>::PITCH, per = flash_tile<acc, W>::PER;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    FLASH_UNROLL_TWO
    for (int d = 0; d < W; d += per) {
        flash_quad<acc> a[TR], b[TC];
        /* fetch quads of both tiles */
        FLASH_UNROLL
        for (int i = 0; i < TR; i++)
            a[i] = *(const flash_quad<acc> *)&own[(y + 16 * i) * pitch + d];
        FLASH_UNROLL
        for (int j = 0; j < TC; j++)
            b[j] = *(const flash_quad<acc> *)&other[(x + 16 * j) * pitch + d];
        FLASH_UNROLL
        for (int i = 0; i < TR; i++)
            FLASH_UNROLL
            for (int j = 0; j < TC; j++)
                FLASH_UNROLL
                for (int e = 0; e < per; e++)
                    sum[i][j] += a[i].at[e] * b[j].at[e];
    }
}

/* add weighted rows of a tile */
/* sum[i][n] += over k < C: weights[y + 16 i][k] * rows[k][x + 16 n]. */
template <int W, int TR, typename acc>
__device__ inline void flash_add_weighted(acc (&sum)[TR][W / 16], const acc *weights,
                                          const acc *rows)
{
    typedef flash_tile<acc, W> tile;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    FLASH_UNROLL_TWO
    for (int k = 0; k < tile::C; k += tile::PER) {
        flash_quad<acc> w[TR];
        FLASH_UNROLL
        for (int i = 0; i < TR; i++)
            w[i] = *(const flash_quad<acc> *)&weights[(y + 16 * i) * tile::WEIGHTS + k];
        /* add a few weighted rows */
        FLASH_UNROLL
        for (int e = 0; e < tile::PER; e++)
            FLASH_UNROLL
            for (int n = 0; n < W / 16; n++) {
                acc value = rows[(k + e) * tile::PITCH + x + 16 * n];
                FLASH_UNROLL
                for (int i = 0; i < TR; i++)
                    sum[i][n] += w[i].at[e] * value;
            }
    }
}

template <int W, int TR, int TC, typename acc>
__device__ inline void flash_write_weights(acc *weights, const acc (&p)[TR][TC])
{
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int i = 0; i < TR; i++)
        for (int j = 0; j < TC; j++)
            weights[(y + 16 * i) * flash_tile<acc, W>::WEIGHTS + x + 16 * j] = p[i][j];
}

/* x[first + y + 16 i][x + 16 n] = factor * sum[i][n], where there is such an element. */
template <int W, int TR, typename acc, typename real>
__device__ inline void flash_store(const flash_rows<real> &to,
                                   const acc (&sum)[TR][W / 16],
                                   int first, int D, acc factor)
{
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int i = 0; i < TR; i++)
        for (int n = 0; n < W / 16; n++)
            if (first + y + 16 * i < to.count && x + 16 * n < D)
                to.data[(size_t)(first + y + 16 * i) * to.row + x + 16 * n] =
                    real(factor * sum[i][n]);
}

/* choose the width */
/* Evaluates an expression with W, the least of the five widths that holds D. */
#define FLASH_WITH_WIDTH(width, ...)                                                 \
    [&]() -> dls_status { constexpr int W = width; return __VA_ARGS__; }()
#define FLASH_BY_WIDTH(D, ...)                                                       \
    ((D) <= 32    ? FLASH_WITH_WIDTH(32, __VA_ARGS__)                                \
     : (D) <= 64  ? FLASH_WITH_WIDTH(64, __VA_ARGS__)                                \
     : (D) <= 96  ? FLASH_WITH_WIDTH(96, __VA_ARGS__)                                \
     : (D) <= 128 ? FLASH_WITH_WIDTH(128, __VA_ARGS__)                               \
                  : FLASH_WITH_WIDTH(256, __VA_ARGS__))

/* announce a cost */
static inline void flash_announce(const char *name, dls_flash_cost cost)
{
    dls_gpu_cost_of(DLS_WORK_ATTENTION_F32, name, cost.flops, cost.bytes);
}

#endif

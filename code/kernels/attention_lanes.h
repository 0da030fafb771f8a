/* code/kernels/attention_lanes.h: from chapters/10-flash-attention-host.md. Edit the chapter, or edit here and run "make untangle". */
/* Tiles for attention on the host, turned so that a query is a lane of a vector:
 *
 *            queries ─► 64 lanes, 256 bytes
 *          ┌──────────────────────────────┐
 *   keys   │  S^T = K Q^T, then P^T       │   no maximum and no sum crosses lanes
 *    │     └──────────────────────────────┘
 *    ▼
 * Everything is a sum of numbers times rows; add_products does all of it. What is turned
 * into lanes stays for a whole walk, and what belongs to it is complete at the end: the
 * output forward, where lanes are queries; dK and dV backward, where lanes are keys. */
#ifndef DLS_KERNELS_ATTENTION_LANES_H
#define DLS_KERNELS_ATTENTION_LANES_H

#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/real_math.h"

/* size the tiles of the host */
#ifdef __AVX512F__
enum { VECTOR = 64, WIDE = 4 };  // bytes of a register; registers of a row at a time
#else
enum { VECTOR = 32, WIDE = 2 };
#endif
enum {
    VEC = VECTOR / sizeof(acc),
    LANES = 256 / sizeof(acc),   // queries of a tile; backward: keys
    ROWS = LANES,                // the others, of a step
    MOST = 256                   // channels of a head
};

typedef acc vec __attribute__((vector_size(VECTOR), may_alias));
typedef acc tile[MOST][LANES] __attribute__((aligned(64)));

/* add products */
/* Four rows of out, n vectors of each: out[m] += sum over k of a[m, k] * b[k]. */
static inline __attribute__((always_inline))
void add_block(acc *out, size_t out_row, const acc *a, size_t a_m, size_t a_k,
               const acc *b, size_t b_row, int K, const int n)
{
    vec sum[4][WIDE];
    #pragma GCC unroll 4
    for (int m = 0; m < 4; m++)
        #pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            sum[m][j] = *(const vec *)(out + m * out_row + j * VEC);
    for (int k = 0; k < K; k++) {
        /* add four numbers times a row */
        vec row[WIDE];
        #pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            row[j] = *(const vec *)(b + k * b_row + j * VEC);
        #ifdef __x86_64__
            __asm__("" : "+v"(row[j]));  // once into a register, not four times from memory
        #endif
        }
        #pragma GCC unroll 4
        for (int m = 0; m < 4; m++) {
            const acc weight = a[m * a_m + k * a_k];
            #pragma GCC unroll 4
            for (int j = 0; j < n; j++)
                sum[m][j] += weight * row[j];
        }
    }
    #pragma GCC unroll 4
    for (int m = 0; m < 4; m++)
        #pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            *(vec *)(out + m * out_row + j * VEC) = sum[m][j];
}

/* out (M, N) += a (M, K) b (K, N); element (m, k) of a lies at a[m * a_m + k * a_k]. M is
 * rounded up to 4, N a multiple of VEC; rows are 64-byte aligned. */
static void add_products(acc *out, size_t out_row, const acc *a, size_t a_m, size_t a_k,
                         const acc *b, size_t b_row, int M, int N, int K)
{
    for (int m = 0; m < M; m += 4) {
        int n = 0;
        for (; n + WIDE * VEC <= N; n += WIDE * VEC)
            add_block(out + m * out_row + n, out_row, a + m * a_m, a_m, a_k, b + n, b_row,
                      K, WIDE);
        if (N - n >= 2 * VEC) {
            add_block(out + m * out_row + n, out_row, a + m * a_m, a_m, a_k, b + n, b_row,
                      K, 2);
            n += 2 * VEC;
        }
        if (n < N)
            add_block(out + m * out_row + n, out_row, a + m * a_m, a_m, a_k, b + n, b_row,
                      K, 1);
    }
}

/* bring rows into tiles */
/* to[r][d] = x[r][d], `rows` of them; zero up to `padded` rows and `width` channels. */
static void copy_rows(acc *to, int width, const real *x, size_t x_row, int rows, int D,
                      int padded)
{
    for (int r = 0; r < padded; r++, to += width) {
        int count = r < rows ? D : 0;
        const real *from = x + r * x_row;
        #pragma omp simd
        for (int d = 0; d < count; d++)
            to[d] = widen(from[d]);
        memset(to + count, 0, sizeof(acc) * (width - count));
    }
}

/* The rows and columns of a square of registers change places. */
static inline __attribute__((always_inline)) void turn_square(vec *r)
{
    typedef __typeof__(r[0] < r[0]) places;
    #pragma GCC unroll 4
    for (int half = VEC / 2; half > 0; half /= 2) {
        places low, high;
        for (int c = 0; c < VEC; c++) {
            low[c] = c & half ? VEC + c - half : c;
            high[c] = c & half ? VEC + c : c + half;
        }
        #pragma GCC unroll 16
        for (int i = 0; i < VEC; i++)
            if (!(i & half)) {
                vec a = r[i], b = r[i + half];
                r[i] = __builtin_shuffle(a, b, low);
                r[i + half] = __builtin_shuffle(a, b, high);
            }
    }
}

/* VEC elements from `from` on, those from `count` on zero. */
static inline vec load_some(const real *from, int count)
{
    acc x[VEC] __attribute__((aligned(VECTOR))) = {0};
    if (count >= VEC)
        #pragma omp simd
        for (int i = 0; i < VEC; i++)
            x[i] = widen(from[i]);
    else
        for (int i = 0; i < count; i++)
            x[i] = widen(from[i]);
    return *(const vec *)x;
}

/* to[d][r] = factor * x[r][d]; zero in lanes without a row. D is rounded up to VEC. */
static void turn_rows(tile to, const real *x, size_t x_row, int rows, int D, acc factor)
{
    for (int r = 0; r < LANES; r += VEC)
        for (int d = 0; d < D; d += VEC) {
            vec square[VEC];
            #pragma GCC unroll 16
            for (int i = 0; i < VEC; i++)
                square[i] = r + i < rows ? load_some(x + (r + i) * x_row + d, D - d)
                                         : (vec){0};
            turn_square(square);
            #pragma GCC unroll 16
            for (int i = 0; i < VEC; i++)
                *(vec *)&to[d + i][r] = factor * square[i];
        }
}

static inline void store_some(real *to, vec v, int count)
{
    if (count >= VEC)
        #pragma omp simd
        for (int i = 0; i < VEC; i++)
            to[i] = narrow(v[i]);
    else
        for (int i = 0; i < count; i++)
            to[i] = narrow(v[i]);
}

/* x[r][d] = to[d][r] * factor[r]. */
static void turn_back(real *x, size_t x_row, tile from, const acc *factor, int rows,
                      int D)
{
    for (int r = 0; r < rows; r += VEC)
        for (int d = 0; d < D; d += VEC) {
            vec square[VEC], times;
            memcpy(&times, factor + r, sizeof times);
            #pragma GCC unroll 16
            for (int i = 0; i < VEC; i++)
                square[i] = *(const vec *)&from[d + i][r] * times;
            turn_square(square);
            for (int i = 0; i < VEC && r + i < rows; i++)
                store_some(x + (r + i) * x_row + d, square[i], D - d);
        }
}

static int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
static int least(int a, int b) { return a < b ? a : b; }

/* find a host head */
/* The first element of head h of sequence b. */
static size_t head_at(const int *starts, size_t sequence, size_t row, int b, int h, int D)
{
    return dls_attention_at(starts, sequence, row, b) + (size_t)h * D;
}

#endif

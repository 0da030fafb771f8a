/* code/kernels/attention_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Causal attention in plain C. All six products are weighted sums of rows:
 *
 *     dst[0..n) += sum over k of w[k] * rows[k][0..n)
 *
 * where for the scores the rows are those of a transposed tile of keys. Dot products were
 * tried first: the horizontal sums at their ends made them three times slower at D = 32.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/real_math.h"

#include "kernels/attention_host.h"

enum {
    WIDTH = 128 / sizeof(real), /* columns whose sums stay in registers */
    TILE = 64                   /* keys, and channels, of a transposed tile */
};

/* add weighted rows */
/* dst[j] += sum over k < count of w[k * w_step] * rows[k * row_step + j], for j < n. */
__attribute__((noinline))
static void add_weighted_rows(real *dst, int n, const real *w, size_t w_step,
                              const real *rows, size_t row_step, int count)
{
    int j = 0;
    for (; j + WIDTH <= n; j += WIDTH) {
        real sum[WIDTH] = {0};
        for (int k = 0; k < count; k++) {
            const real weight = w[k * w_step], *row = rows + k * row_step + j;
            #pragma omp simd
            for (int i = 0; i < WIDTH; i++)
                sum[i] += weight * row[i];
        }
        #pragma omp simd
        for (int i = 0; i < WIDTH; i++)
            dst[j + i] += sum[i];
    }
    /* add weighted rows of the last columns */
    if (j == n)
        return;
    real sum[WIDTH] = {0};
    for (int k = 0; k < count; k++) {
        const real weight = w[k * w_step], *row = rows + k * row_step + j;
        #pragma omp simd
        for (int i = 0; i < n - j; i++)
            sum[i] += weight * row[i];
    }
    for (int i = 0; i < n - j; i++)
        dst[j + i] += sum[i];
}

/* multiply by a transpose */
/* out[t][j] = a[t] . b[j] for j <= t; what lies above the diagonal is undefined. */
static void multiply_by_transpose(real *out, const real *a, size_t a_row, const real *b,
                                  size_t b_row, int T, int D)
{
    real tile[TILE][TILE];
    memset(out, 0, sizeof(real) * T * T);
    for (int j = 0; j < T; j += TILE) {
        int keys = T - j < TILE ? T - j : TILE;
        for (int d = 0; d < D; d += TILE) {
            int channels = D - d < TILE ? D - d : TILE;
            for (int k = 0; k < keys; k++)
                for (int i = 0; i < channels; i++)
                    tile[i][k] = b[(j + k) * b_row + d + i];
            for (int t = j; t < T; t++) {
                int seen = (t - j) / WIDTH * WIDTH + WIDTH;
                add_weighted_rows(out + (size_t)t * T + j, seen < keys ? seen : keys,
                                  a + t * a_row + d, 1, tile[0], TILE, channels);
            }
        }
    }
}

/* take softmax of rows on the host */
/* The end of row t's loops: at least t + 1, a multiple of 16 where the row is long
 * enough. */
static int padded(int t, int T)
{
    int end = (t / 16 + 1) * 16;
    return end < T ? end : T;
}

static void softmax_rows(real *att, real scale, int T)
{
    for (int t = 0; t < T; t++) {
        real *row = att + (size_t)t * T, largest = row[0], sum = 0;
        int end = padded(t, T);
        for (int j = t + 1; j < end; j++)
            row[j] = -INFINITY;
        /* replace a row by exponentials */
        #pragma omp simd reduction(max : largest)
        for (int j = 0; j < end; j++)
            largest = row[j] > largest ? row[j] : largest;
        #pragma omp simd reduction(+ : sum)
        for (int j = 0; j < end; j++) {
            row[j] = real_exp(scale * (row[j] - largest));
            sum += row[j];
        }
        const real inverse = 1 / sum;
        #pragma omp simd
        for (int j = 0; j < end; j++)
            row[j] *= inverse;
        memset(row + end, 0, sizeof(real) * (T - end));
    }
}

/* pass the gradient through softmax on the host */
static void softmax_rows_backward(real *dscores, const real *att, real scale, int T)
{
    for (int t = 0; t < T; t++) {
        real *row = dscores + (size_t)t * T, average = 0;
        const real *weights = att + (size_t)t * T;
        int end = padded(t, T);
        memset(row + t + 1, 0, sizeof(real) * (T - t - 1));
        #pragma omp simd reduction(+ : average)
        for (int j = 0; j < end; j++)
            average += weights[j] * row[j];
        #pragma omp simd
        for (int j = 0; j < end; j++)
            row[j] = scale * weights[j] * (row[j] - average);
    }
}

/* attend on the host */
void DLS_HOST_NAME(dls_attention_forward)(real *out, real *att, const real *qkv, int B,
                                          int T, int C, int H)
{
    int D = C / H;
    size_t width = 3 * (size_t)C;
    const real scale = 1 / real_sqrt((real)D);
    for (int n = 0; n < B * H; n++) {
        int b = n / H, h = n % H;
        const real *q = qkv + b * T * width + h * D, *k = q + C, *v = k + C;
        real *o = out + (size_t)b * T * C + h * D, *weights = att + (size_t)n * T * T;
        multiply_by_transpose(weights, q, width, k, width, T, D);
        softmax_rows(weights, scale, T);
        for (int t = 0; t < T; t++) {
            memset(o + (size_t)t * C, 0, sizeof(real) * D);
            add_weighted_rows(o + (size_t)t * C, D, weights + (size_t)t * T, 1, v, width,
                              t + 1);
        }
    }
}

void DLS_HOST_NAME(dls_attention_backward)(real *dqkv, real *scratch, const real *dout,
                                           const real *qkv, const real *att, int B, int T,
                                           int C, int H)
{
    int D = C / H;
    size_t width = 3 * (size_t)C;
    const real scale = 1 / real_sqrt((real)D);
    memset(dqkv, 0, sizeof(real) * B * T * width);
    for (int n = 0; n < B * H; n++) {
        int b = n / H, h = n % H;
        size_t at = b * T * width + h * D, square = (size_t)n * T * T;
        const real *q = qkv + at, *k = q + C, *v = k + C, *weights = att + square;
        const real *d_o = dout + (size_t)b * T * C + h * D;
        real *dq = dqkv + at, *dk = dq + C, *dv = dk + C, *ds = scratch + square;
        multiply_by_transpose(ds, d_o, C, v, width, T, D);
        softmax_rows_backward(ds, weights, scale, T);
        /* add the three gradients of a head */
        for (int t = 0; t < T; t++) {
            size_t diagonal = (size_t)t * T + t;
            add_weighted_rows(dq + t * width, D, ds + (size_t)t * T, 1, k, width, t + 1);
            add_weighted_rows(dk + t * width, D, ds + diagonal, T, q + t * width, width, T - t);
            add_weighted_rows(dv + t * width, D, weights + diagonal, T, d_o + (size_t)t * C, C,
                              T - t);
        }
    }
}

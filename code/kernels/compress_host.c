/* code/kernels/compress_host.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Compressors in plain C; see compress.h. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/compress.h"
#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/compress_host.h"

/* take the largest on the host */
static size_t size_of_chunk(size_t n, size_t first)
{
    return n <= first ? 0 : n - first < DLS_CHUNK ? n - first : DLS_CHUNK;
}

static acc key(real x)
{
    acc size = (acc)fabs((double)widen(x));
    return isnan(size) ? (acc)INFINITY : size;
}

/* The k-th largest of keys (n), 1 <= k <= n, which are reordered. Hoare's quickselect. */
static acc kth_largest(acc *keys, int n, int k)
{
    for (int low = 0, high = n - 1;;) {
        acc pivot = keys[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (keys[i] > pivot) i++;
            while (keys[j] < pivot) j--;
            if (i > j)
                break;
            acc t = keys[i];
            keys[i++] = keys[j];
            keys[j--] = t;
        }
        if (k - 1 <= j) high = j;
        else if (k - 1 >= i) low = i;
        else return pivot;
    }
}

static void top_k_of_chunk(real *values, int *indices, real *x, size_t first, int size,
                           int k)
{
    acc keys[DLS_CHUNK];
    int above = 0, out = 0;
    for (int i = 0; i < size; i++)
        keys[i] = key(x[i]);
    acc threshold = kth_largest(keys, size, k);
    for (int i = 0; i < size; i++)
        above += key(x[i]) > threshold;
    int equals = k - above;
    for (int i = 0; i < size && out < k; i++) {
        acc mine = key(x[i]);
        if (mine < threshold || (mine == threshold && equals-- <= 0))
            continue;
        values[out] = x[i];
        indices[out++] = (int)first + i;
        x[i] = narrow(0);
    }
}

void DLS_HOST_NAME(dls_top_k)(real *values, int *indices, real *x, size_t n, double keep)
{
    size_t full = (size_t)ceil(keep * DLS_CHUNK);
    DLS_PARALLEL(n)
    for (size_t first = 0; first < n; first += DLS_CHUNK) {
        int size = (int)size_of_chunk(n, first), k = (int)ceil(keep * size);
        size_t out = first / DLS_CHUNK * full;
        top_k_of_chunk(values + out, indices + out, x + first, first, size, k);
    }
}

void DLS_HOST_NAME(dls_top_k_sum)(real *out, const real *values, const int *indices,
                                  int ranks, size_t n, double keep)
{
    size_t count = dls_top_k_count(n, keep);
    memset(out, 0, n * sizeof *out);
    for (int r = 0; r < ranks; r++)
        for (size_t i = 0; i < count; i++) {
            real *to = &out[indices[(size_t)r * count + i]];
            *to = narrow(widen(*to) + widen(values[(size_t)r * count + i]));
        }
}

void DLS_HOST_NAME(dls_add_scaled)(real *y, real a, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = narrow(widen(y[i]) + widen(a) * widen(x[i]));
}

/* pack signs on the host */
static void signs_of_chunk(int *words, real *x, int size)
{
    double sum = 0;
    for (int i = 0; i < size; i++)
        sum += fabs((double)widen(x[i]));
    float scale = size > 0 ? (float)(sum / size) : 0.0f;
    memset(words, 0, DLS_CHUNK_WORDS * sizeof *words);
    memcpy(words, &scale, sizeof scale);
    for (int i = 0; i < size; i++) {
        int positive = !(widen(x[i]) < 0);
        words[1 + i / 32] |= (int)((unsigned)positive << i % 32);
        x[i] = narrow(widen(x[i]) - (acc)(positive ? scale : -scale));
    }
}

void DLS_HOST_NAME(dls_signs_pack)(int *words, real *x, size_t n, size_t chunks)
{
    DLS_PARALLEL(n)
    for (size_t c = 0; c < chunks; c++) {
        size_t first = c * DLS_CHUNK, at = first < n ? first : n;
        signs_of_chunk(words + c * DLS_CHUNK_WORDS, x + at,
                       (int)size_of_chunk(n, first));
    }
}

static acc sign_at(const int *words, size_t i)
{
    float scale;
    unsigned bits = (unsigned)words[1 + i / 32];
    memcpy(&scale, words, sizeof scale);
    return (acc)(bits >> (i % 32) & 1 ? scale : -scale);
}

void DLS_HOST_NAME(dls_signs_sum)(real *out, const int *words, int ranks, size_t n,
                                  size_t chunks, int add)
{
    DLS_PARALLEL(n)
    for (size_t i = 0; i < n; i++) {
        acc sum = add ? widen(out[i]) : 0;
        for (int r = 0; r < ranks; r++)
            sum += sign_at(words + ((size_t)r * chunks + i / DLS_CHUNK) * DLS_CHUNK_WORDS,
                           i % DLS_CHUNK);
        out[i] = narrow(sum);
    }
}

/* code/kernels/compress.cu: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Compressors on the device, a block per chunk; see compress.h. */
#include "kernels/compress.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/compress_host.h"
#include "kernels/host_pair.h"

constexpr int THREADS = 256, EACH = DLS_CHUNK / THREADS;

/* find the range of a chunk */
static __host__ __device__ inline size_t size_of_chunk(size_t n, size_t chunk)
{
    size_t first = chunk * DLS_CHUNK, whole = DLS_CHUNK;
    return n <= first ? 0 : n - first < whole ? n - first : whole;
}

static __host__ __device__ inline int kept(size_t n, size_t chunk, double keep)
{
    return (int)ceil(keep * (double)size_of_chunk(n, chunk));
}

static __host__ __device__ inline size_t chunks_of(size_t n)
{
    return (n + DLS_CHUNK - 1) / DLS_CHUNK;
}

/* take the largest on the device */
/* keys (DLS_CHUNK) shared: magnitudes, -1 behind the end; NaN counts as infinite. */
template <typename real>
__device__ inline void load_keys(real *keys, const real *x, size_t first, size_t n)
{
    for (int e = 0; e < EACH; e++) {
        size_t i = first + threadIdx.x + (size_t)e * THREADS;
        real size = i < n ? fabs(x[i]) : real(-1);
        keys[threadIdx.x + e * THREADS] = isnan(size) ? real(INFINITY) : size;
    }
}

template <typename real>
__device__ inline int is_taken(const real *keys, int i, int k)
{
    int larger = 0;
    for (int j = 0; j < DLS_CHUNK; j++)
        larger += keys[j] > keys[i] || (keys[j] == keys[i] && j < i);
    return larger < k;
}

template <typename real>
__global__ void top_k_kernel(real *values, int *indices, real *x, size_t n, double keep,
                             int full)
{
    __shared__ real keys[DLS_CHUNK];
    __shared__ unsigned char taken[DLS_CHUNK];
    size_t first = (size_t)blockIdx.x * DLS_CHUNK, out = (size_t)blockIdx.x * full;
    int k = kept(n, blockIdx.x, keep);
    load_keys(keys, x, first, n);
    __syncthreads();
    for (int i = threadIdx.x; i < DLS_CHUNK; i += THREADS)
        taken[i] = (unsigned char)is_taken(keys, i, k);
    __syncthreads();
    for (int i = threadIdx.x; i < DLS_CHUNK; i += THREADS) {
        int before = 0;
        for (int j = 0; j < i; j++)
            before += taken[j];
        if (!taken[i])
            continue;
        values[out + before] = x[first + i];
        indices[out + before] = (int)(first + i);
        x[first + i] = 0;
    }
}

/* pack signs on the device */
template <typename real>
__global__ void signs_pack_kernel(int *words, real *x, size_t n)
{
    __shared__ double partial[32];
    size_t first = (size_t)blockIdx.x * DLS_CHUNK;
    int *out = words + (size_t)blockIdx.x * DLS_CHUNK_WORDS;
    size_t size = size_of_chunk(n, blockIdx.x);
    double sum = 0;
    for (int i = threadIdx.x; i < (int)size; i += THREADS)
        sum += fabs((double)x[first + i]);
    sum = dls_block_sum(sum, partial);
    float scale = size > 0 ? (float)(sum / (double)size) : 0.0f;
    for (int i = threadIdx.x; i < DLS_CHUNK; i += THREADS) {
        int positive = i < (int)size && !(x[first + i] < 0);
        unsigned bits = __ballot_sync(0xffffffffu, positive);
        if (i % 32 == 0)
            out[1 + i / 32] = (int)bits;
        if (i < (int)size)
            x[first + i] -= real(positive ? scale : -scale);
    }
    if (threadIdx.x == 0)
        out[0] = __float_as_int(scale);
}

/* add up what arrived on the device */
template <typename real>
__global__ void top_k_sum_kernel(real *out, const real *values, const int *indices,
                                 int ranks, size_t n, double keep, int full, size_t count)
{
    __shared__ real sum[DLS_CHUNK];
    size_t first = (size_t)blockIdx.x * DLS_CHUNK;
    int k = kept(n, blockIdx.x, keep);
    for (int i = threadIdx.x; i < DLS_CHUNK; i += THREADS)
        sum[i] = 0;
    for (int r = 0; r < ranks; r++) {
        size_t from = (size_t)r * count + (size_t)blockIdx.x * full;
        __syncthreads();
        for (int i = threadIdx.x; i < k; i += THREADS)
            sum[indices[from + i] - first] += values[from + i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < DLS_CHUNK; i += THREADS)
        if (first + i < n)
            out[first + i] = sum[i];
}

template <typename real>
__global__ void signs_sum_kernel(real *out, const int *words, int ranks, size_t n,
                                 size_t chunks, int add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    real sum = add ? out[i] : real(0);
    for (int r = 0; r < ranks; r++) {
        const int *from = words + (r * chunks + i / DLS_CHUNK) * DLS_CHUNK_WORDS;
        unsigned bits = (unsigned)from[1 + i % DLS_CHUNK / 32];
        float scale = __int_as_float(from[0]);
        sum += real(bits >> (i % 32) & 1 ? scale : -scale);
    }
    out[i] = sum;
}

template <typename real>
__global__ void add_scaled_kernel(real *y, real a, const real *x, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] += a * x[i];
}

/* launch the compressors */
template <typename real>
static dls_status top_k(dls_ctx *ctx, real *values, int *indices, real *x, size_t n,
                        double keep)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "top k", 1.0 * DLS_CHUNK * n,
                    2.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_top_k, values, indices, x, n, keep);
    top_k_kernel<<<(unsigned)chunks_of(n), THREADS, 0, ctx->stream>>>(
        values, indices, x, n, keep, kept(DLS_CHUNK, 0, keep));
    return dls_launched();
}

template <typename real>
static dls_status top_k_sum(dls_ctx *ctx, real *out, const real *values,
                            const int *indices, int ranks, size_t n, double keep)
{
    size_t count = dls_top_k_count(n, keep);
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "top k sum", 1.0 * ranks * count,
                    (n + 1.0 * ranks * count) * (sizeof(real) + 4));
    DLS_RUN_ON_HOST(ctx, dls_top_k_sum, out, values, indices, ranks, n, keep);
    top_k_sum_kernel<<<(unsigned)chunks_of(n), THREADS, 0, ctx->stream>>>(
        out, values, indices, ranks, n, keep, kept(DLS_CHUNK, 0, keep), count);
    return dls_launched();
}

template <typename real>
static dls_status signs_pack(dls_ctx *ctx, int *words, real *x, size_t n, size_t chunks)
{
    if (chunks == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "pack signs", 3.0 * n, 3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_signs_pack, words, x, n, chunks);
    signs_pack_kernel<<<(unsigned)chunks, THREADS, 0, ctx->stream>>>(words, x, n);
    return dls_launched();
}

template <typename real>
static dls_status signs_sum(dls_ctx *ctx, real *out, const int *words, int ranks,
                            size_t n, size_t chunks, int add)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "sum signs", 1.0 * ranks * n,
                    (sizeof(real) + ranks / 8.0) * n);
    DLS_RUN_ON_HOST(ctx, dls_signs_sum, out, words, ranks, n, chunks, add);
    signs_sum_kernel<<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, words, ranks, n,
                                                                  chunks, add);
    return dls_launched();
}

template <typename real>
static dls_status add_scaled(dls_ctx *ctx, real *y, real a, const real *x, size_t n)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "add scaled", 2.0 * n, 3.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_add_scaled, y, a, x, n);
    add_scaled_kernel<<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(y, a, x, n);
    return dls_launched();
}

/* expose the compressors */
#define BY_WIDE_TYPE(ctx, ...)                                                       \
    ((ctx)->dtype == DLS_F32   ? DLS_AS_TYPE(float, __VA_ARGS__)                     \
     : (ctx)->dtype == DLS_F64 ? DLS_AS_TYPE(double, __VA_ARGS__)                    \
                               : DLS_FAIL(DLS_ERR_INPUT, "compress: f32 or f64"))

extern "C" size_t dls_top_k_count(size_t n, double keep)
{
    size_t last = n % DLS_CHUNK ? (size_t)kept(n, n / DLS_CHUNK, keep) : 0;
    return n / DLS_CHUNK * (size_t)kept(DLS_CHUNK, 0, keep) + last;
}

extern "C" dls_status dls_top_k(dls_ctx *ctx, void *values, int *indices, void *x,
                                size_t n, double keep)
{
    return BY_WIDE_TYPE(ctx, top_k(ctx, (real *)values, indices, (real *)x, n, keep));
}

extern "C" dls_status dls_top_k_sum(dls_ctx *ctx, void *out, const void *values,
                                    const int *indices, int ranks, size_t n, double keep)
{
    return BY_WIDE_TYPE(ctx, top_k_sum(ctx, (real *)out, (const real *)values, indices,
                                       ranks, n, keep));
}

extern "C" dls_status dls_signs_pack(dls_ctx *ctx, int *words, void *x, size_t n,
                                     size_t chunks)
{
    return BY_WIDE_TYPE(ctx, signs_pack(ctx, words, (real *)x, n, chunks));
}

extern "C" dls_status dls_signs_sum(dls_ctx *ctx, void *out, const int *words, int ranks,
                                    size_t n, size_t chunks, int add)
{
    return BY_WIDE_TYPE(ctx, signs_sum(ctx, (real *)out, words, ranks, n, chunks, add));
}

extern "C" dls_status dls_add_scaled(dls_ctx *ctx, void *y, double a, const void *x,
                                     size_t n)
{
    return BY_WIDE_TYPE(ctx, add_scaled(ctx, (real *)y, (real)a, (const real *)x, n));
}

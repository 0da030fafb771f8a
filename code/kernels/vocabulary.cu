/* code/kernels/vocabulary.cu: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* The cut cross-entropy on the device: a block of 256 threads per row of a band. */
#include "kernels/vocabulary.h"

#include "kernels/cross_entropy.cuh"
#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/vocabulary_host.h"
#include "kernels/host_pair.h"

/* scan a band on the device */
template <int width, typename real, typename acc = dls_acc<real>>
__global__ void vocabulary_scan_kernel(acc *own, acc *most, acc *sum, acc *right,
                                       const real *logits, const int *targets,
                                       dls_band band)
{
    __shared__ running<acc> shared[32];
    const real *row = logits + (size_t)blockIdx.x * band.V;
    running<acc> r = see_row<width>(row, band.V, shared);
    if (threadIdx.x != 0)
        return;
    int target = targets[blockIdx.x], at = target - band.first;
    own[blockIdx.x] = most[blockIdx.x] = r.largest;
    sum[blockIdx.x] = r.sum;
    right[blockIdx.x] = target >= band.whole         ? acc(NAN)
                        : at >= 0 && at < band.V ? acc(row[at]) : acc(0);
}

template <typename acc>
__global__ void vocabulary_rescale_kernel(acc *sum, const acc *own, const acc *most,
                                          int N)
{
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n < N)
        sum[n] *= exp(own[n] - most[n]);
}

/* finish a band on the device */
__host__ __device__ static inline int target_in(dls_band band, int target)
{
    int at = target - band.first;
    return target < 0 ? -1 : at >= 0 && at < band.V ? at : band.V;
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void vocabulary_finish_kernel(acc *losses, real *logits, const acc *most,
                                         const acc *sum, const acc *right,
                                         const int *targets, dls_band band, acc scale)
{
    int n = blockIdx.x, target = targets[n];
    real *row = logits + (size_t)n * band.V;
    if (threadIdx.x == 0)
        losses[n] = target < 0 ? acc(0) : log(sum[n]) + (most[n] - right[n]);
    push_row<width>(row, row, most[n], acc(1) / sum[n], scale, target_in(band, target),
                    band.V, band.V);
}

/* launch the cut cross entropy */
template <typename real, typename acc = dls_acc<real>>
static dls_status scan(dls_ctx *ctx, acc *own, acc *most, acc *sum, acc *right,
                       const real *logits, const int *targets, dls_band band, int N)
{
    double count = (double)N * band.V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "vocabulary scan", 4 * count,
                    count * sizeof(real) + N * (4.0 * sizeof(acc) + 4));
    DLS_RUN_ON_HOST(ctx, dls_vocabulary_scan, own, most, sum, right, logits, targets,
                    band.first, band.V, band.whole, N);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, band.V, logits),
                 vocabulary_scan_kernel<width, real>
                     <<<(unsigned)N, 256, 0, ctx->stream>>>(own, most, sum, right, logits,
                                                            targets, band));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status rescale(dls_ctx *ctx, acc *sum, const acc *own, const acc *most, int N)
{
    if (N == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "vocabulary rescale", 3.0 * N,
                    4.0 * N * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_vocabulary_rescale, sum, own, most, N);
    vocabulary_rescale_kernel<acc>
        <<<dls_blocks(N, 256), 256, 0, ctx->stream>>>(sum, own, most, N);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status finish(dls_ctx *ctx, acc *losses, real *logits, const acc *most,
                         const acc *sum, const acc *right, const int *targets,
                         dls_band band, acc scale, int N)
{
    double count = (double)N * band.V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "vocabulary finish", 4 * count,
                    2 * count * sizeof(real) + N * (4.0 * sizeof(acc) + 4));
    DLS_RUN_ON_HOST(ctx, dls_vocabulary_finish, losses, logits, most, sum, right, targets,
                    band.first, band.V, scale, N);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, band.V, logits),
                 vocabulary_finish_kernel<width, real>
                     <<<(unsigned)N, 256, 0, ctx->stream>>>(losses, logits, most, sum,
                                                            right, targets, band, scale));
    return dls_launched();
}

/* expose the cut cross entropy */
extern "C" dls_status dls_vocabulary_scan(dls_ctx *ctx, void *own, void *most, void *sum,
                                          void *right, const void *logits,
                                          const int *targets, dls_band band, int N)
{
    return DLS_BY_TYPE(ctx, scan(ctx, (acc *)own, (acc *)most, (acc *)sum, (acc *)right,
                                 (const real *)logits, targets, band, N));
}

extern "C" dls_status dls_vocabulary_rescale(dls_ctx *ctx, void *sum, const void *own,
                                             const void *most, int N)
{
    return DLS_BY_TYPE(ctx, rescale<real>(ctx, (acc *)sum, (const acc *)own,
                                          (const acc *)most, N));
}

extern "C" dls_status dls_vocabulary_finish(dls_ctx *ctx, void *losses, void *logits,
                                            const void *most, const void *sum,
                                            const void *right, const int *targets,
                                            dls_band band, double scale, int N)
{
    return DLS_BY_TYPE(ctx, finish(ctx, (acc *)losses, (real *)logits, (const acc *)most,
                                   (const acc *)sum, (const acc *)right, targets, band,
                                   (acc)scale, N));
}

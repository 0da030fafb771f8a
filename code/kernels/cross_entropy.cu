/* code/kernels/cross_entropy.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy on the device: a block of 256 threads per position, one pass
 * for the loss, a second for the gradient. The probabilities are never stored. */
#include "kernels/cross_entropy.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/cross_entropy_host.h"
#include "kernels/host_pair.h"

/* keep a running softmax */
/* Of the logits seen so far: the largest, and the sum of exp(logit - largest). */
template <typename acc>
struct running {
    acc largest, sum;
};

template <typename acc>
__device__ inline void see(running<acc> &r, acc z)
{
    if (z > r.largest) {
        r.sum = r.sum * exp(r.largest - z) + acc(1);
        r.largest = z;
    } else if (z != acc(-INFINITY)) {
        r.sum += exp(z - r.largest);
    }
}

template <typename acc>
__device__ inline running<acc> join(running<acc> a, running<acc> b)
{
    acc m = a.largest > b.largest ? a.largest : b.largest;
    if (m == acc(-INFINITY))
        return {m, a.sum + b.sum};
    return {m, a.sum * exp(a.largest - m) + b.sum * exp(b.largest - m)};
}

/* The row's pair, for all threads of the block. `shared` has room for 32. */
template <typename acc>
__device__ inline running<acc> join_block(running<acc> r, running<acc> *shared)
{
    for (int distance = 16; distance > 0; distance /= 2)
        r = join(r, {__shfl_xor_sync(0xffffffffu, r.largest, distance),
                     __shfl_xor_sync(0xffffffffu, r.sum, distance)});
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = r;
    __syncthreads();
    r = shared[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++)
        r = join(r, shared[warp]);
    return r;
}

template <int width, typename real, typename acc = dls_acc<real>>
__device__ inline running<acc> see_row(const real *row, int V, running<acc> *shared)
{
    running<acc> r = {acc(-INFINITY), acc(0)};
    int whole = V / width * width;
    for (int v = threadIdx.x * width; v < whole; v += blockDim.x * width) {
        dls_pack<real, width> z = dls_load<width>(row + v);
        for (int i = 0; i < width; i++)
            see(r, acc(z.at[i]));
    }
    for (int v = whole + threadIdx.x; v < V; v += blockDim.x)
        see(r, acc(row[v]));
    r = join_block(r, shared);
    if (!isfinite(r.largest))
        r.sum = acc(NAN);
    return r;
}

/* take cross entropy on the device */
template <typename acc>
__device__ inline acc loss_of(running<acc> r, int target, int V, acc right)
{
    return target < 0 ? acc(0) : target < V ? log(r.sum) + (r.largest - right) : acc(NAN);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_forward_kernel(acc *losses, acc *lse, const real *logits,
                                             const int *targets, int V, int stride)
{
    __shared__ running<acc> shared[32];
    const real *row = logits + (size_t)blockIdx.x * stride;
    running<acc> r = see_row<width>(row, V, shared);
    if (threadIdx.x != 0)
        return;
    int target = targets[blockIdx.x];
    acc right = target >= 0 && target < V ? acc(row[target]) : acc(0);
    lse[blockIdx.x] = r.largest + log(r.sum);
    losses[blockIdx.x] = loss_of(r, target, V, right);
}

/* to[v] = scale * (factor * exp(from[v] - shift) - [v == target]), 0 without a target. */
template <typename real, typename acc>
__device__ inline real push(real logit, acc shift, acc factor, acc scale, int hit,
                            int none)
{
    acc p = factor * exp(acc(logit) - shift) - (hit ? acc(1) : acc(0));
    return real(none ? acc(0) : scale * p);
}

template <int width, typename real, typename acc>
__device__ inline void push_row(real *to, const real *from, acc shift, acc factor,
                                acc scale, int target, int V, int stride)
{
    int whole = V / width * width;
    for (int v = threadIdx.x * width; v < whole; v += blockDim.x * width) {
        dls_pack<real, width> z = dls_load<width>(from + v);
        for (int i = 0; i < width; i++)
            z.at[i] = push(z.at[i], shift, factor, scale, v + i == target, target < 0);
        dls_store(to + v, z);
    }
    for (int v = whole + threadIdx.x; v < V; v += blockDim.x)
        to[v] = push(from[v], shift, factor, scale, v == target, target < 0);
    for (int v = V + threadIdx.x; v < stride; v += blockDim.x)
        to[v] = real(acc(0));
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_kernel(acc *losses, real *logits, const int *targets,
                                     acc scale, int V, int stride)
{
    __shared__ running<acc> shared[32];
    real *row = logits + (size_t)blockIdx.x * stride;
    int target = targets[blockIdx.x];
    acc right = target >= 0 && target < V ? acc(row[target]) : acc(0);
    running<acc> r = see_row<width>(row, V, shared);
    if (threadIdx.x == 0)
        losses[blockIdx.x] = loss_of(r, target, V, right);
    push_row<width>(row, row, r.largest, acc(1) / r.sum, scale, target, V, stride);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_backward_kernel(real *dlogits, const real *logits,
                                              const acc *lse, const int *targets,
                                              acc scale, int V, int stride)
{
    size_t row = (size_t)blockIdx.x * stride;
    push_row<width>(dlogits + row, logits + row, lse[blockIdx.x], acc(1), scale,
                    targets[blockIdx.x], V, stride);
}

/* launch the cross entropy */
template <typename real, typename acc = dls_acc<real>>
static dls_status cross_entropy(dls_ctx *ctx, acc *losses, real *logits,
                                const int *targets, acc scale, int N, int V, int row)
{
    double count = (double)N * V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "cross-entropy", 8 * count,
                    (count + (double)N * row) * sizeof(real) + N * (sizeof(acc) + 4.0));
    DLS_RUN_ON_HOST(ctx, dls_cross_entropy, losses, logits, targets, scale, N, V, row);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, row, logits),
                 cross_entropy_kernel<width, real>
                     <<<(unsigned)N, 256, 0, ctx->stream>>>(losses, logits, targets,
                                                            scale, V, row));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status cross_entropy_forward(dls_ctx *ctx, acc *losses, acc *lse,
                                        const real *logits, const int *targets, int N,
                                        int V, int row)
{
    double count = (double)N * V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "cross-entropy forward", 4 * count,
                    count * sizeof(real) + 2.0 * N * sizeof(acc) + 4.0 * N);
    DLS_RUN_ON_HOST(ctx, dls_cross_entropy_forward, losses, lse, logits, targets, N, V,
                    row);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, row, logits),
                 cross_entropy_forward_kernel<width, real>
                     <<<(unsigned)N, 256, 0, ctx->stream>>>(losses, lse, logits, targets,
                                                            V, row));
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status cross_entropy_backward(dls_ctx *ctx, real *dlogits, const real *logits,
                                         const acc *lse, const int *targets, acc scale,
                                         int N, int V, int row)
{
    double count = (double)N * V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "cross-entropy backward", 4 * count,
                    (count + (double)N * row) * sizeof(real) + N * (sizeof(acc) + 4.0));
    DLS_RUN_ON_HOST(ctx, dls_cross_entropy_backward, dlogits, logits, lse, targets, scale,
                    N, V, row);
    DLS_BY_WIDTH(dls_width<real>, dls_packs(dls_width<real>, row, logits, dlogits),
                 cross_entropy_backward_kernel<width, real>
                     <<<(unsigned)N, 256, 0, ctx->stream>>>(dlogits, logits, lse, targets,
                                                            scale, V, row));
    return dls_launched();
}

/* expose the cross entropy */
static dls_status check_row(int V, int row)
{
    if (row < V)
        return DLS_FAIL(DLS_ERR_INPUT, "cross-entropy: rows of %d can not hold %d logits",
                        row, V);
    return DLS_OK;
}

extern "C" dls_status dls_cross_entropy(dls_ctx *ctx, void *losses, void *logits,
                                        const int *targets, double scale, int N, int V,
                                        int row)
{
    DLS_TRY(check_row(V, row));
    return DLS_BY_TYPE(ctx, cross_entropy(ctx, (acc *)losses, (real *)logits, targets,
                                          (acc)scale, N, V, row));
}

extern "C" dls_status dls_cross_entropy_forward(dls_ctx *ctx, void *losses, void *lse,
                                                const void *logits, const int *targets,
                                                int N, int V, int row)
{
    DLS_TRY(check_row(V, row));
    return DLS_BY_TYPE(ctx,
                       cross_entropy_forward(ctx, (acc *)losses, (acc *)lse,
                                             (const real *)logits, targets, N, V, row));
}

extern "C" dls_status dls_cross_entropy_backward(dls_ctx *ctx, void *dlogits,
                                                 const void *logits, const void *lse,
                                                 const int *targets, double scale, int N,
                                                 int V, int row)
{
    DLS_TRY(check_row(V, row));
    return DLS_BY_TYPE(
        ctx, cross_entropy_backward(ctx, (real *)dlogits, (const real *)logits,
                                    (const acc *)lse, targets, (acc)scale, N, V, row));
}

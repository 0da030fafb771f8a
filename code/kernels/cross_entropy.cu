/* code/kernels/cross_entropy.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy on the device: a block of 256 threads per position; the
 * probabilities are recomputed in the backward pass, never stored. */
#include "kernels/cross_entropy.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/cross_entropy_host.h"
#include "kernels/host_pair.h"

/* take cross entropy on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_forward_kernel(acc *losses, acc *lse, const real *logits,
                                             const int *targets, int V)
{
    __shared__ acc partial[32];
    const real *row = logits + (size_t)blockIdx.x * V;
    acc largest = -INFINITY, sum = 0;
    /* sum the exponentials of a row */
    for (int v = threadIdx.x; v < V; v += blockDim.x)
        largest = acc(row[v]) > largest ? acc(row[v]) : largest;
    largest = dls_block_max(largest, partial);
    for (int v = threadIdx.x; v < V; v += blockDim.x)
        sum += exp(acc(row[v]) - largest);
    sum = dls_block_sum(sum, partial);
    if (threadIdx.x != 0)
        return;
    int target = targets[blockIdx.x];
    acc log_sum = log(sum);
    lse[blockIdx.x] = largest + log_sum;
    losses[blockIdx.x] = target < 0 ? acc(0)
                         : target < V ? log_sum + (largest - acc(row[target])) : acc(NAN);
}

template <typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_backward_kernel(real *dlogits, const real *logits,
                                              const acc *lse, const int *targets,
                                              acc scale, int V)
{
    int target = targets[blockIdx.x];
    acc norm = lse[blockIdx.x];
    size_t row = (size_t)blockIdx.x * V;
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
        acc p = exp(acc(logits[row + v]) - norm) - (v == target ? acc(1) : acc(0));
        dlogits[row + v] = real(target < 0 ? acc(0) : scale * p);
    }
}

/* launch the cross entropy */
template <typename real, typename acc = dls_acc<real>>
static dls_status cross_entropy_forward(dls_ctx *ctx, acc *losses, acc *lse,
                                        const real *logits, const int *targets, int N,
                                        int V)
{
    double count = (double)N * V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "cross-entropy forward", 4 * count,
                    count * sizeof(real) + 2.0 * N * sizeof(acc) + 4.0 * N);
    DLS_RUN_ON_HOST(ctx, dls_cross_entropy_forward, losses, lse, logits, targets, N, V);
    cross_entropy_forward_kernel<real>
        <<<(unsigned)N, 256, 0, ctx->stream>>>(losses, lse, logits, targets, V);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status cross_entropy_backward(dls_ctx *ctx, real *dlogits, const real *logits,
                                         const acc *lse, const int *targets, acc scale,
                                         int N, int V)
{
    double count = (double)N * V;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "cross-entropy backward", 4 * count,
                    2 * count * sizeof(real) + N * sizeof(acc) + 4.0 * N);
    DLS_RUN_ON_HOST(ctx, dls_cross_entropy_backward, dlogits, logits, lse, targets, scale,
                    N, V);
    cross_entropy_backward_kernel<real>
        <<<(unsigned)N, 256, 0, ctx->stream>>>(dlogits, logits, lse, targets, scale, V);
    return dls_launched();
}

/* expose the cross entropy */
extern "C" dls_status dls_cross_entropy_forward(dls_ctx *ctx, void *losses, void *lse,
                                                const void *logits, const int *targets,
                                                int N, int V)
{
    return DLS_BY_TYPE(ctx, cross_entropy_forward(ctx, (acc *)losses, (acc *)lse,
                                                  (const real *)logits, targets, N, V));
}

extern "C" dls_status dls_cross_entropy_backward(dls_ctx *ctx, void *dlogits,
                                                 const void *logits, const void *lse,
                                                 const int *targets, double scale, int N,
                                                 int V)
{
    return DLS_BY_TYPE(
        ctx, cross_entropy_backward(ctx, (real *)dlogits, (const real *)logits,
                                    (const acc *)lse, targets, (acc)scale, N, V));
}

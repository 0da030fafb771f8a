/* code/kernels/cross_entropy.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy on the device: a block of 256 threads per position, one pass
 * for the loss, a second for the gradient. The probabilities are never stored. */
#include "kernels/cross_entropy.h"

#include "kernels/cross_entropy.cuh"
#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/cross_entropy_host.h"
#include "kernels/host_pair.h"

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
    running<acc> r = judge(see_row<width>(row, V, shared));
    if (threadIdx.x != 0)
        return;
    int target = targets[blockIdx.x];
    acc right = target >= 0 && target < V ? acc(row[target]) : acc(0);
    lse[blockIdx.x] = r.largest + log(r.sum);
    losses[blockIdx.x] = loss_of(r, target, V, right);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void cross_entropy_kernel(acc *losses, real *logits, const int *targets,
                                     acc scale, int V, int stride)
{
    __shared__ running<acc> shared[32];
    real *row = logits + (size_t)blockIdx.x * stride;
    int target = targets[blockIdx.x];
    acc right = target >= 0 && target < V ? acc(row[target]) : acc(0);
    running<acc> r = judge(see_row<width>(row, V, shared));
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

/* code/kernels/permute.cu: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The permutation on the device, a block per token. */
#include "kernels/permute.h"

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/permute_host.h"
#include "kernels/host_pair.h"

/* permute on the device */
template <typename real>
__global__ void permute_kernel(real *xs, const real *x, const int *place, int k, int C)
{
    const real *from = x + (size_t)blockIdx.x * C;
    for (int j = 0; j < k; j++) {
        int to = place[(size_t)blockIdx.x * k + j];
        if (to < 0)
            continue;
        for (int c = threadIdx.x; c < C; c += blockDim.x)
            xs[(size_t)to * C + c] = from[c];
    }
}

template <typename real, typename acc = dls_acc<real>>
__global__ void unpermute_kernel(real *y, const real *base, const real *ys,
                                 const acc *weight, const int *place, int k, int C)
{
    size_t t = blockIdx.x;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        acc sum = base ? acc(base[t * C + c]) : acc(0);
        for (size_t i = t * k; i < (t + 1) * k; i++)
            if (place[i] >= 0)
                sum += (weight ? weight[i] : acc(1)) * acc(ys[(size_t)place[i] * C + c]);
        y[t * C + c] = real(sum);
    }
}

/* go back through the unpermutation on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void unpermute_backward_kernel(real *dys, acc *dweight, const real *dy,
                                          const real *ys, const acc *weight,
                                          const int *place, int k, int C)
{
    __shared__ acc partial[32];
    size_t t = blockIdx.x;
    for (size_t i = t * k; i < (t + 1) * k; i++) {
        size_t at = (size_t)(place[i] < 0 ? 0 : place[i]) * C;
        acc sum = 0, w = weight[i];
        /* scale a row and multiply it */
        for (int c = threadIdx.x; c < C && place[i] >= 0; c += blockDim.x) {
            acc d = acc(dy[t * C + c]);
            sum += d * acc(ys[at + c]);
            dys[at + c] = real(w * d);
        }
        sum = dls_block_sum(sum, partial);
        if (threadIdx.x == 0)
            dweight[i] = sum;
    }
}

/* launch the permutation */
template <typename real>
static dls_status permute(dls_ctx *ctx, real *xs, const real *x, const int *place, int n,
                          int k, int C)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "permute", 0,
                    (1.0 + k) * n * C * sizeof(real) + 4.0 * n * k);
    DLS_RUN_ON_HOST(ctx, dls_permute, xs, x, place, n, k, C);
    permute_kernel<real><<<(unsigned)n, 256, 0, ctx->stream>>>(xs, x, place, k, C);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status unpermute(dls_ctx *ctx, real *y, const real *base, const real *ys,
                            const acc *weight, const int *place, int n, int k, int C)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "unpermute", 2.0 * n * k * C,
                    ((base ? 2.0 : 1.0) + k) * n * C * sizeof(real)
                        + n * k * (4.0 + sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_unpermute, y, base, ys, weight, place, n, k, C);
    unpermute_kernel<real>
        <<<(unsigned)n, 256, 0, ctx->stream>>>(y, base, ys, weight, place, k, C);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status unpermute_backward(dls_ctx *ctx, real *dys, acc *dweight,
                                     const real *dy, const real *ys, const acc *weight,
                                     const int *place, int n, int k, int C)
{
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "unpermute backward", 3.0 * n * k * C,
                    (1.0 + 2 * k) * n * C * sizeof(real)
                        + n * k * (4.0 + 2 * sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_unpermute_backward, dys, dweight, dy, ys, weight, place, n,
                    k, C);
    unpermute_backward_kernel<real><<<(unsigned)n, 256, 0, ctx->stream>>>(
        dys, dweight, dy, ys, weight, place, k, C);
    return dls_launched();
}

/* expose the permutation */
extern "C" dls_status dls_permute(dls_ctx *ctx, void *xs, const void *x, const int *place,
                                  int n, int k, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, permute(ctx, (real *)xs, (const real *)x, place, n, k, C));
}

extern "C" dls_status dls_unpermute(dls_ctx *ctx, void *y, const void *base,
                                    const void *ys, const void *weight, const int *place,
                                    int n, int k, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, unpermute(ctx, (real *)y, (const real *)base,
                                      (const real *)ys, (const acc *)weight, place, n, k,
                                      C));
}

extern "C" dls_status dls_unpermute_backward(dls_ctx *ctx, void *dys, void *dweight,
                                             const void *dy, const void *ys,
                                             const void *weight, const int *place, int n,
                                             int k, int C)
{
    if (n == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, unpermute_backward(ctx, (real *)dys, (acc *)dweight,
                                               (const real *)dy, (const real *)ys,
                                               (const acc *)weight, place, n, k, C));
}

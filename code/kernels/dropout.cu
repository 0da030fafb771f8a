/* code/kernels/dropout.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Dropout on the device: a block per row, a warp per 128 consecutive elements, one call
 * of Philox per four of them. */
#include "kernels/dropout.cuh"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/dropout_host.h"
#include "kernels/host_pair.h"

/* drop elements on the device */
template <typename real>
__global__ void dropout_kernel(real *out, const real *x, int C, uint64_t first,
                               uint64_t row, dls_dropout_gate gate)
{
    using acc = dls_acc<real>;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    size_t n = blockIdx.x;
    uint64_t start = first + n * row;
    int shift = (int)(start % 4);
    for (int base = 128 * warp - shift; base < C; base += 128 * warps) {
        unsigned bits = dls_dropout_warp(&gate, (start + base) / 4);
        for (int i = 0; i < 4; i++) {
            int c = base + 32 * i + lane;
            if (c >= 0 && c < C)
                out[n * C + c] = bits >> i & 1 ? real(acc(x[n * C + c]) * acc(gate.scale))
                                               : real(acc(0));
        }
    }
}

/* launch dropout */
extern "C" dls_status dls_dropout_check(double p)
{
    if (!(p >= 0 && p <= 1))
        return DLS_FAIL(DLS_ERR_INPUT, "dropout %g; it is a probability, from 0 to 1", p);
    return DLS_OK;
}

template <typename real>
static dls_status dropout_apply(dls_ctx *ctx, real *out, const real *x, int N, int C,
                                const dls_dropout *d)
{
    double count = (double)N * C;
    uint64_t row = d->row > 0 ? d->row : (uint64_t)C;
    DLS_TRY(dls_dropout_check(d->p));
    if (count == 0)
        return DLS_OK;
    dls_dropout_gate gate = dls_dropout_gate_of(d->p, d->seed, d->stream);
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "dropout", count, 2 * count * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_dropout_apply, out, x, N, C, d->first, row, gate);
    dropout_kernel<real><<<N, 128, 0, ctx->stream>>>(out, x, C, d->first, row, gate);
    return dls_launched();
}

extern "C" dls_status dls_dropout_apply(dls_ctx *ctx, void *out, const void *x, int N,
                                        int C, const dls_dropout *dropout)
{
    return DLS_BY_TYPE(ctx,
                       dropout_apply(ctx, (real *)out, (const real *)x, N, C, dropout));
}

/* code/kernels/rope.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Rotary embedding on the device: a block per row, its threads over the pairs of all
 * heads. Backward is forward with the sine's sign changed. */
#include "kernels/rope.h"

#include <math.h>

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/rope_host.h"
#include "kernels/host_pair.h"

/* turn rows on the device */
template <typename real>
__global__ void rope_kernel(real *x, const dls_acc<real> *table, dls_rope_shape s,
                            dls_acc<real> sign)
{
    using acc = dls_acc<real>;
    size_t n = blockIdx.x;
    int half = s.R / 2, at = s.start + (int)(s.T > 0 ? n % s.T : n);
    if (s.positions != nullptr)
        at = s.positions[n];
    bool known = at >= 0 && at < s.length;
    const acc *angles = table + (known ? (size_t)at * s.R : 0);
    for (int i = threadIdx.x; i < s.heads * half; i += blockDim.x) {
        int p = i % half;
        real *a = x + n * s.row + (size_t)(i / half) * s.D + p, *b = a + half;
        acc c = known ? angles[p] : acc(NAN), d = sign * angles[half + p];
        acc low = acc(*a), high = acc(*b);
        *a = real(low * c - high * d);
        *b = real(high * c + low * d);
    }
}

/* launch the rotation */
static dls_status check_shape(const dls_rope_shape *s)
{
    if (s->N < 0 || s->heads < 0 || s->R < 2 || s->R % 2 != 0 || s->R > s->D
        || s->row < (size_t)s->heads * s->D || s->length < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "rope: cannot turn %d channels of %d heads of %d "
                        "in rows of %zu by a table of %d", s->R, s->heads, s->D, s->row,
                        s->length);
    long rows = s->T > 0 && s->T < s->N ? s->T : s->N;
    if (s->positions == NULL && rows > 0
        && (s->start < 0 || s->start + rows > (long)s->length))
        return DLS_FAIL(DLS_ERR_INPUT, "rope: positions %d to %ld; the table has %d",
                        s->start, s->start + rows - 1, s->length);
    return DLS_OK;
}

template <typename real>
static dls_status rope_turn(dls_ctx *ctx, real *x, const dls_acc<real> *table,
                            const dls_rope_shape *s, double sign)
{
    using acc = dls_acc<real>;
    double turned = (double)s->N * s->heads * s->R;
    double angles = (double)(s->N < s->length ? s->N : s->length) * s->R;
    DLS_TRY(check_shape(s));
    if (turned == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, sign > 0 ? "rope forward" : "rope backward",
                    3 * turned, 2 * turned * sizeof(real) + angles * sizeof(acc)
                                    + (s->positions ? 4.0 * s->N : 0));
    DLS_RUN_ON_HOST(ctx, dls_rope_turn, x, table, *s, (acc)sign);
    rope_kernel<real><<<s->N, 128, 0, ctx->stream>>>(x, table, *s, (acc)sign);
    return dls_launched();
}

extern "C" dls_status dls_rope_forward(dls_ctx *ctx, void *x, const void *table,
                                       const dls_rope_shape *shape)
{
    return DLS_BY_TYPE(ctx, rope_turn(ctx, (real *)x, (const acc *)table, shape, 1));
}

extern "C" dls_status dls_rope_backward(dls_ctx *ctx, void *dx, const void *table,
                                        const dls_rope_shape *shape)
{
    return DLS_BY_TYPE(ctx, rope_turn(ctx, (real *)dx, (const acc *)table, shape, -1));
}

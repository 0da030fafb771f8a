/* code/layers/sliced.c: from chapters/06-sequence-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* What cut products do with slices of rows. The rooms in the pass's temporary part:
 *
 *   all rows of x or dy (N, columns) | shares of dx (N, in), if both are there at once
 */
#include "layers/sliced.h"

#include "kernels/kernels.h"
#include "layers/overlap.h"
#include "layers/tensor.h"

/* multiply between slices */
static dls_row_product product_of(const dls_layer *l, const dls_pass *p, int forward)
{
    return (dls_row_product){.N = p->B * p->T, .in = forward ? l->in : l->out,
                             .out = forward ? l->out : l->in, .turned = forward,
                             .weight = dls_pass_value(p, l->weight)};
}

dls_status dls_column_gathered(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    dls_row_product product = product_of(l, p, 1);
    dls_comm *comm;
    product.bias = l->bias < 0 ? NULL : dls_pass_value(p, l->bias);
    DLS_TRY(dls_tensor_comm(p, &comm));
    return dls_gather_product(p->axes, p->ctx, &product, y, p->temporary, x, 0);
}

dls_status dls_column_scattered(const dls_layer *l, dls_pass *p, void *dx, const void *dy)
{
    dls_row_product product = product_of(l, p, 0);
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    return dls_product_scatter(p->axes, p->ctx, &product, dx, p->temporary, dy);
}

dls_status dls_row_scattered(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    dls_row_product product = product_of(l, p, 1);
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    return dls_product_scatter(p->axes, p->ctx, &product, y, p->temporary, x);
}

dls_status dls_row_gathered(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                            const void *pre)
{
    dls_row_product product = product_of(l, p, 0);
    dls_comm *comm;
    product.pre = pre;
    DLS_TRY(dls_tensor_comm(p, &comm));
    return dls_gather_product(p->axes, p->ctx, &product, dx, p->temporary, dy, 1);
}

/* go back through a column product */
/* The two rooms begin at multiples of 128 bytes. */
static size_t room_bytes(const dls_layer *l, size_t rows, dls_dtype dtype)
{
    return (rows * l->in * dls_dtype_size(dtype) + 127) / 128 * 128;
}

void dls_column_room(const dls_layer *l, dls_plan *plan)
{
    size_t rows = (size_t)plan->max_B * plan->max_T;
    if (l->gathers)
        dls_plan_temporary(plan, (1 + l->overlaps) * room_bytes(l, rows, plan->dtype));
}

static dls_status beside_slices(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                                const void *x)
{
    const dls_axes *a = p->axes;
    dls_row_product product = product_of(l, p, 0);
    size_t slice = (size_t)product.N * l->in / a->sharding.tensor;
    void *shares = (char *)p->temporary + room_bytes(l, product.N, p->ctx->dtype);
    DLS_TRY(dls_axes_fork(a, p->ctx));
    DLS_TRY(dls_comm_all_gather(a->tensor, x, p->temporary, slice, p->ctx->dtype,
                                a->stream));
    DLS_CUDA(cudaEventRecord(a->arrived, a->stream));
    DLS_TRY(dls_linear_backward_input(p->ctx, shares, dy, product.weight, product.N,
                                      l->in, l->out));
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, a->arrived, 0));
    DLS_TRY(dls_axes_fork(a, p->ctx));
    DLS_TRY(dls_comm_reduce_scatter(a->tensor, shares, dx, slice, p->ctx->dtype, DLS_SUM,
                                    a->stream));
    DLS_TRY(dls_column_weight(l, p, dy, p->temporary));
    return dls_axes_join(a, p->ctx);
}

static dls_status beside_sum(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                             const void *x)
{
    const dls_axes *a = p->axes;
    int N = p->B * p->T;
    DLS_TRY(dls_linear_backward_input(p->ctx, dx, dy, dls_pass_value(p, l->weight), N,
                                      l->in, l->out));
    DLS_TRY(dls_axes_fork(a, p->ctx));
    DLS_TRY(dls_comm_all_reduce(a->tensor, dx, (size_t)N * l->in, p->ctx->dtype, DLS_SUM,
                                a->stream));
    DLS_TRY(dls_column_weight(l, p, dy, x));
    return dls_axes_join(a, p->ctx);
}

dls_status dls_column_backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                               const void *x, void *y)
{
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    if (l->overlaps)
        return l->gathers ? beside_slices(l, p, dx, dy, x) : beside_sum(l, p, dx, dy, x);
    DLS_TRY(l->kind->backward_input(l, p, dx, dy, x, y));
    return l->kind->backward_weight(l, p, dy, x);
}

/* go back through a row product */
dls_status dls_row_backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                            const void *x, void *y)
{
    if (l->slices > 1) {
        DLS_TRY(dls_row_gathered(l, p, dx, dy, NULL));
        return dls_row_weight(l, p, dy, p->temporary, x);
    }
    DLS_TRY(l->kind->backward_input(l, p, dx, dy, x, y));
    return l->kind->backward_weight(l, p, dy, x);
}

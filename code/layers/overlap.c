/* code/layers/overlap.c: from chapters/06-sequence-parallelism-overlap.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Both products go round the ring of the tensor group, a slice per step, in pieces:
 *
 *   gather    step k: multiply slice r - k, while slice r - k - 1 comes from the left
 *   scatter   step k: multiply slice r - 1 - k, while the left's sum of it comes; add,
 *             and pass it on; the last slice is r, this rank's own
 *
 * With two pieces or more to a slice, a scattered sum is added inside of the product.
 */
#include "layers/overlap.h"

#include "kernels/kernels.h"
#include "tensor/gemm.h"

/* fork and join */
static dls_status order(cudaEvent_t e, cudaStream_t first, cudaStream_t then)
{
    DLS_CUDA(cudaEventRecord(e, first));
    DLS_CUDA(cudaStreamWaitEvent(then, e, 0));
    return DLS_OK;
}

dls_status dls_axes_fork(const dls_axes *axes, dls_ctx *ctx)
{
    return order(axes->ready, ctx->stream, axes->stream);
}

dls_status dls_axes_join(const dls_axes *axes, dls_ctx *ctx)
{
    return order(axes->arrived, axes->stream, ctx->stream);
}

/* multiply some rows */
static void *row_of(const dls_ctx *ctx, const void *base, size_t row, int width)
{
    return base ? (char *)base + row * width * dls_dtype_size(ctx->dtype) : NULL;
}

static dls_status multiply(dls_ctx *ctx, const dls_row_product *p, void *y,
                           const void *x, int first, int rows, int adds)
{
    if (adds)
        return dls_gemm(ctx, 0, p->turned, rows, p->out, p->in, 1, x, p->weight, 1, y);
    if (p->turned)
        return dls_linear_forward(ctx, y, x, p->weight, p->bias, rows, p->in, p->out);
    if (!p->pre)
        return dls_linear_backward_input(ctx, y, x, p->weight, rows, p->out, p->in);
    return dls_linear_gelu_backward_input(ctx, y, x, p->weight,
                                          row_of(ctx, p->pre, first, p->out), rows,
                                          p->out, p->in);
}

/* cut a slice into pieces */
typedef struct ring {
    const dls_axes *axes;
    dls_ctx *ctx;
    int t, rank, rows, pieces;  /* rows of a slice */
} ring;

static ring ring_of(const dls_axes *axes, dls_ctx *ctx, int N)
{
    int t = axes->tensor ? dls_comm_size(axes->tensor) : 1;
    ring r = {axes, ctx, t, axes->tensor ? dls_comm_rank(axes->tensor) : 0, N / t,
              (axes->sharding.chunks + t - 1) / t};
    r.pieces = r.pieces < DLS_AXES_PIECES ? r.pieces : DLS_AXES_PIECES;
    r.pieces = r.pieces < r.rows ? r.pieces : r.rows;
    return r;
}

static dls_status divides(const ring *r, int N)
{
    return N == r->t * r->rows ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "%d rows: expected a multiple of %d, for the slices",
                   N, r->t);
}

/* Piece j of a slice: where it begins in the slice, its rows, where it begins in all. */
static int begin_of(const ring *r, int j)
{
    return (int)((int64_t)r->rows * j / r->pieces);
}

static int rows_of(const ring *r, int j)
{
    return begin_of(r, j + 1) - begin_of(r, j);
}

static int first_of(const ring *r, int slice, int j)
{
    return (slice + 2 * r->t) % r->t * r->rows + begin_of(r, j);
}

/* pass a piece on */
static dls_status pass_on(const ring *r, const void *out, void *in, int rows, int width,
                          int piece)
{
    dls_comm *comm = r->axes->tensor;
    cudaStream_t stream = r->axes->stream;
    size_t count = (size_t)rows * width;
    int right = (r->rank + 1) % r->t, left = (r->rank + r->t - 1) % r->t;
    DLS_TRY(dls_comm_group_begin(comm));
    DLS_TRY(dls_comm_send(comm, out, count, r->ctx->dtype, right, stream));
    DLS_TRY(dls_comm_recv(comm, in, count, r->ctx->dtype, left, stream));
    DLS_TRY(dls_comm_group_end(comm));
    DLS_CUDA(cudaEventRecord(r->axes->piece[piece], stream));
    return DLS_OK;
}

static dls_status await(const ring *r, int piece)
{
    DLS_CUDA(cudaStreamWaitEvent(r->ctx->stream, r->axes->piece[piece], 0));
    return DLS_OK;
}

/* gather and multiply */
static dls_status gather_step(const ring *r, const dls_row_product *p, void *y,
                              void *whole, const void *x, int k, int j)
{
    int first = first_of(r, r->rank - k, j), rows = rows_of(r, j);
    const void *here = k == 0 ? row_of(r->ctx, x, begin_of(r, j), p->in)
                              : row_of(r->ctx, whole, first, p->in);
    void *next = row_of(r->ctx, whole, first_of(r, r->rank - k - 1, j), p->in);
    if (k > 0)
        DLS_TRY(await(r, j));
    if (k + 1 < r->t)
        DLS_TRY(pass_on(r, here, next, rows, p->in, j));
    return multiply(r->ctx, p, row_of(r->ctx, y, first, p->out), here, first,
                    rows, 0);
}

dls_status dls_gather_product(const dls_axes *axes, dls_ctx *ctx,
                              const dls_row_product *p, void *y, void *whole,
                              const void *x, int fill)
{
    ring r = ring_of(axes, ctx, p->N);
    size_t count = (size_t)r.rows * p->in;
    DLS_TRY(divides(&r, p->N));
    if (r.t == 1 || axes->sharding.chunks <= 1 || count == 0) {
        if (axes->tensor)
            DLS_TRY(dls_comm_all_gather(axes->tensor, x, whole, count, ctx->dtype,
                                        ctx->stream));
        return multiply(ctx, p, y, r.t > 1 ? whole : x, 0, p->N, 0);
    }
    DLS_TRY(dls_axes_fork(axes, ctx));
    for (int k = 0; k < r.t; k++)
        for (int j = 0; j < r.pieces; j++)
            DLS_TRY(gather_step(&r, p, y, whole, x, k, j));
    if (fill)
        DLS_CUDA(cudaMemcpyAsync(row_of(ctx, whole, (size_t)r.rank * r.rows, p->in), x,
                                 count * dls_dtype_size(ctx->dtype),
                                 cudaMemcpyDeviceToDevice, ctx->stream));
    return DLS_OK;
}

/* multiply and scatter */
/* Where the sum of piece j is made at step k. */
static void *sum_at(const ring *r, const dls_row_product *p, void *y, void *partial,
                    int k, int j)
{
    return k + 1 == r->t
        ? row_of(r->ctx, y, begin_of(r, j), p->out)
        : row_of(r->ctx, partial, first_of(r, r->rank - 1 - k, j), p->out);
}

static dls_status scatter_step(const ring *r, const dls_row_product *p, void *y,
                               void *partial, const void *x, int k, int j)
{
    int first = first_of(r, r->rank - 1 - k, j), rows = rows_of(r, j);
    int inside = r->pieces > 1;
    void *sum = sum_at(r, p, y, partial, k, j);
    void *apart = row_of(r->ctx, partial, first_of(r, r->rank, j), p->out);
    if (inside && k > 0)
        DLS_TRY(await(r, j));
    DLS_TRY(multiply(r->ctx, p, sum, row_of(r->ctx, x, first, p->in), first, rows,
                     inside && k > 0));
    if (!inside && k > 0) {
        DLS_TRY(await(r, j));
        DLS_TRY(dls_add(r->ctx, sum, apart, sum, (size_t)rows * p->out));
    }
    if (k + 1 == r->t)
        return DLS_OK;
    DLS_TRY(dls_axes_fork(r->axes, r->ctx));
    return pass_on(r, sum, inside ? sum_at(r, p, y, partial, k + 1, j) : apart, rows,
                   p->out, j);
}

dls_status dls_product_scatter(const dls_axes *axes, dls_ctx *ctx,
                               const dls_row_product *p, void *y, void *partial,
                               const void *x)
{
    ring r = ring_of(axes, ctx, p->N);
    DLS_TRY(divides(&r, p->N));
    if (r.t == 1 || axes->sharding.chunks <= 1 || r.rows == 0) {
        DLS_TRY(multiply(ctx, p, r.t > 1 ? partial : y, x, 0, p->N, 0));
        return !axes->tensor ? DLS_OK
            : dls_comm_reduce_scatter(axes->tensor, partial, y, (size_t)r.rows * p->out,
                                      ctx->dtype, DLS_SUM, ctx->stream);
    }
    for (int k = 0; k < r.t; k++)
        for (int j = 0; j < r.pieces; j++)
            DLS_TRY(scatter_step(&r, p, y, partial, x, k, j));
    return DLS_OK;
}

/* code/layers/dispatch_rows.c: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows to the experts and back, on the communication stream:
 *
 *   rows (sent) -> wire -> over the expert group -> over expert_tensor -> arrived
 *   rows (sent) <- wire <- over the expert group <- sum of the shares <- arrived */
#include "layers/dispatch_internal.h"

#include "kernels/elementwise.h"
#include "layers/overlap.h"
#include "vgpu/gpu.h"

/* keep rows under way apart */
static const void *key_of(const dls_pass *p) { return p->host; }

static dls_axes_move *find_move(const dls_axes *a, const void *pass)
{
    for (int i = 0; i < DLS_AXES_MOVES; i++)
        if (a->moves[i].pass == pass)
            return &a->moves[i];
    return NULL;
}

dls_status dls_dispatch_moved(const dls_pass *p)
{
    dls_axes_move *move = find_move(p->axes, key_of(p));
    if (!move)
        move = find_move(p->axes, NULL);
    if (!move)
        return DLS_FAIL(DLS_ERR_STATE, "dispatch: %d passes have rows under way and "
                        "none has waited", DLS_AXES_MOVES);
    move->pass = key_of(p);
    DLS_CUDA(cudaEventRecord(move->done, p->axes->stream));
    return DLS_OK;
}

dls_status dls_dispatch_wait(const dls_pass *p)
{
    if (!p->axes || !p->axes->moves)
        return DLS_OK;
    dls_axes_move *move = find_move(p->axes, key_of(p));
    if (!move)
        return DLS_OK;
    move->pass = NULL;
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, move->done, 0));
    return DLS_OK;
}

/* share the rows */
// First row and number of rows of neighbour t's section in the buffer of arrived rows.
static int section(const dls_dispatch *d, const dls_routes *r, int t, int *first)
{
    int me = r->ranks > 1 ? d->sharding.expert_rank : 0, rows = 0;
    *first = 0;
    for (int source = 0; source < (t + 1) * r->ranks; source++) {
        int n = dls_routes_rows(r, source, me);
        *(source < t * r->ranks ? first : &rows) += n;
    }
    return rows;
}

/* came (r->arrived): from the own section and those of the neighbours. */
static dls_status gather_shares(const dls_pass *p, const dls_dispatch *d, char *came,
                                size_t bytes)
{
    const dls_routes *r = dls_dispatch_routes(p, d);
    dls_comm *comm = p->axes->expert_tensor;
    dls_status s = DLS_OK;
    if (!comm)
        return DLS_OK;
    DLS_TRY(dls_comm_group_begin(comm));
    for (int t = 0, first; t < dls_comm_size(comm) && s == DLS_OK; t++) {
        int rows = section(d, r, t, &first);
        if (t == dls_comm_rank(comm))
            continue;
        if (r->own)
            s = dls_comm_send(comm, came + r->own_first * bytes, r->own * bytes,
                              DLS_COMM_U8, t, p->axes->stream);
        if (rows && s == DLS_OK)
            s = dls_comm_recv(comm, came + first * bytes, rows * bytes, DLS_COMM_U8, t,
                              p->axes->stream);
    }
    dls_status end = dls_comm_group_end(comm);
    return s != DLS_OK ? s : end;
}

/* part (shares - 1, r->own, C): the neighbours' shares of the own section, in order. */
static dls_status exchange_shares(const dls_pass *p, const dls_dispatch *d, char *part,
                                  const char *arrived)
{
    const dls_routes *r = dls_dispatch_routes(p, d);
    dls_comm *comm = p->axes->expert_tensor;
    size_t row = d->columns * dls_dtype_size(p->ctx->dtype), own = r->own * row;
    dls_status s = DLS_OK;
    DLS_TRY(dls_comm_group_begin(comm));
    for (int t = 0, first; t < dls_comm_size(comm) && s == DLS_OK; t++) {
        int rows = section(d, r, t, &first), me = dls_comm_rank(comm);
        if (t == me)
            continue;
        if (rows)
            s = dls_comm_send(comm, arrived + first * row, rows * row, DLS_COMM_U8, t,
                              p->axes->stream);
        if (own && s == DLS_OK)
            s = dls_comm_recv(comm, part + (t - (t > me)) * own, own, DLS_COMM_U8, t,
                              p->axes->stream);
    }
    dls_status end = dls_comm_group_end(comm);
    return s != DLS_OK ? s : end;
}

/* *own: where the sum of all shares of the own section is then. part: room. */
static dls_status sum_shares(const dls_pass *p, const dls_dispatch *d, dls_ctx *ctx,
                             char *part, const char *arrived, const char **own)
{
    const dls_routes *r = dls_dispatch_routes(p, d);
    dls_comm *comm = p->axes->expert_tensor;
    size_t n = (size_t)r->own * d->columns, bytes = n * dls_dtype_size(ctx->dtype);
    *own = arrived + r->own_first * (d->columns * dls_dtype_size(ctx->dtype));
    if (!comm)
        return DLS_OK;
    DLS_TRY(exchange_shares(p, d, part, arrived));
    const char *sum = dls_comm_rank(comm) == 0 ? *own : part;
    for (int t = 1; t < dls_comm_size(comm) && n > 0; t++) {
        int me = dls_comm_rank(comm);
        const char *next = t == me ? *own : part + (t - (t > me)) * bytes;
        DLS_TRY(dls_add(ctx, part, sum, next, n));
        sum = part;
    }
    *own = sum;
    return DLS_OK;
}

/* move the rows */
static dls_status stay(const dls_pass *p, const dls_dispatch *d, void *to,
                       const void *from)
{
    size_t row = d->columns * dls_dtype_size(p->ctx->dtype);
    size_t bytes = dls_dispatch_routes(p, d)->sent * row;
    if (to != from && bytes)
        DLS_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice,
                                 p->ctx->stream));
    return DLS_OK;
}

/* The context, on the communication stream and behind all of its own stream so far. */
static dls_status beside(const dls_pass *p, dls_ctx *out)
{
    *out = *p->ctx;
    out->stream = p->axes->stream;
    return dls_axes_fork(p->axes, p->ctx);
}

dls_status dls_dispatch_rows(const dls_pass *p, const dls_dispatch *d, void *arrived,
                             const void *rows)
{
    const dls_routes *r = dls_dispatch_routes(p, d);
    size_t row = d->columns * dls_dtype_size(p->ctx->dtype);
    dls_ctx ctx;
    if (!dls_dispatch_moves(&d->sharding))
        return stay(p, d, arrived, rows);
    DLS_TRY(beside(p, &ctx));
    DLS_TRY(dls_dispatch_flat(p->axes, r, (char *)arrived + r->own_first * row, rows, row,
                              0));
    DLS_TRY(gather_shares(p, d, arrived, row));
    return dls_dispatch_moved(p);
}

dls_status dls_combine_rows(const dls_pass *p, const dls_dispatch *d, void *rows,
                            const void *arrived)
{
    const dls_routes *r = dls_dispatch_routes(p, d);
    size_t row = d->columns * dls_dtype_size(p->ctx->dtype);
    char *room = (char *)dls_pass_stash(p, d->scratch) + dls_dispatch_counts_bytes(d);
    const char *own;
    dls_ctx ctx;
    if (!dls_dispatch_moves(&d->sharding))
        return stay(p, d, rows, arrived);
    DLS_TRY(beside(p, &ctx));
    DLS_TRY(sum_shares(p, d, &ctx, room, arrived, &own));
    DLS_TRY(dls_dispatch_flat(p->axes, r, rows, own, row, 1));
    return dls_dispatch_moved(p);
}

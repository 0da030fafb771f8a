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
    *first = t * r->own;
    if (r->block)   // all sections are as large
        return r->own;
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

static dls_status move(const dls_pass *p, const dls_dispatch *d, void *to,
                       const void *from, size_t bytes, int back)
{
    dls_dispatch_move *way = d->block ? dls_dispatch_one_sided : dls_dispatch_flat;
    return way(p->axes, dls_dispatch_routes(p, d), to, from, bytes, back);
}


/* A movement: what it needs to know, in one place. */
typedef struct movement {
    const dls_routes *r;
    dls_ctx ctx;                // on the communication stream
    dls_row_type type;
    size_t bytes, row;          // of a row on the wire, and in memory
    char *room;                 // scratch, behind the counts
} movement;

static dls_status begin(const dls_pass *p, const dls_dispatch *d, int back, movement *m)
{
    dls_dtype dtype = p->ctx->dtype;
    char *scratch = dls_pass_stash(p, d->scratch);
    *m = (movement){.r = dls_dispatch_routes(p, d), .ctx = *p->ctx,
                    .type = dls_dispatch_row_type(d, dtype, back),
                    .bytes = dls_dispatch_row_bytes(d, dtype, back),
                    .row = d->columns * dls_dtype_size(dtype),
                    .room = scratch + dls_dispatch_counts_bytes(d)};
    m->ctx.stream = p->axes->stream;
    return dls_axes_fork(p->axes, p->ctx);
}

static char *behind(char *room, size_t bytes) { return room + (bytes + 255) / 256 * 256; }

dls_status dls_dispatch_rows(const dls_pass *p, const dls_dispatch *d, void *arrived,
                             const void *rows)
{
    movement m;
    if (!dls_dispatch_moves(&d->sharding))
        return stay(p, d, arrived, rows);
    DLS_TRY(begin(p, d, 0, &m));
    int wire = m.type != DLS_ROWS_SAME;
    char *came = wire ? behind(m.room, m.r->sent * m.bytes) : arrived;
    if (wire)
        DLS_TRY(dls_dispatch_pack(&m.ctx, m.type, m.room, rows, m.r->sent, d->columns));
    DLS_TRY(move(p, d, came + m.r->own_first * m.bytes, wire ? m.room : rows, m.bytes,
                 0));
    DLS_TRY(gather_shares(p, d, came, m.bytes));
    if (wire)
        DLS_TRY(dls_dispatch_unpack(&m.ctx, m.type, arrived, came, m.r->arrived,
                                    d->columns));
    return dls_dispatch_moved(p);
}

dls_status dls_combine_rows(const dls_pass *p, const dls_dispatch *d, void *rows,
                            const void *arrived)
{
    movement m;
    const char *own;
    if (!dls_dispatch_moves(&d->sharding))
        return stay(p, d, rows, arrived);
    DLS_TRY(begin(p, d, 1, &m));
    DLS_TRY(sum_shares(p, d, &m.ctx, m.room, arrived, &own));
    if (m.type == DLS_ROWS_SAME) {
        DLS_TRY(move(p, d, rows, own, m.row, 1));
        return dls_dispatch_moved(p);
    }
    int shares = dls_at_least_one(d->sharding.expert_tensor);
    char *leaves = behind(m.room, (shares - 1) * m.r->own * m.row);
    char *comes = behind(leaves, m.r->own * m.bytes);
    DLS_TRY(dls_dispatch_pack(&m.ctx, m.type, leaves, own, m.r->own, d->columns));
    DLS_TRY(move(p, d, comes, leaves, m.bytes, 1));
    DLS_TRY(dls_dispatch_unpack(&m.ctx, m.type, rows, comes, m.r->sent, d->columns));
    return dls_dispatch_moved(p);
}

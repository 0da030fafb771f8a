/* code/layers/context_ring.c: from chapters/06-context-parallelism-ring.md. Edit the chapter, or edit here and run "make untangle". */
/* Blocks of keys and values that go round; see context.h. */
#include "comm/comm.h"
#include "layers/context_internal.h"

/* wait for the other stream */
dls_status dls_context_ready(const dls_context_pass *p)
{
    const dls_axes *a = p->r.axes;
    DLS_CUDA(cudaEventRecord(a->ready, p->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(a->stream, a->ready, 0));
    return DLS_OK;
}

dls_status dls_context_arrived(const dls_context_pass *p)
{
    const dls_axes *a = p->r.axes;
    DLS_CUDA(cudaEventRecord(a->arrived, a->stream));
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, a->arrived, 0));
    return DLS_OK;
}

/* pass a block on */
static dls_status exchange(dls_comm *ring, cudaStream_t stream,
                           const dls_context_parcel *x, int columns, int dtype)
{
    int n = dls_comm_size(ring), rank = dls_comm_rank(ring);
    if (x->sent > 0)
        DLS_TRY(dls_comm_send(ring, x->from, (size_t)x->sent * columns, dtype,
                              (rank + 1) % n, stream));
    if (x->got > 0)
        DLS_TRY(dls_comm_recv(ring, x->to, (size_t)x->got * columns, dtype,
                              (rank + n - 1) % n, stream));
    return DLS_OK;
}

dls_status dls_context_pass_on(const dls_context_pass *p, dls_context_parcel parcel,
                               int columns, int dtype)
{
    const dls_axes *a = p->r.axes;
    DLS_TRY(dls_context_ready(p));
    DLS_TRY(dls_comm_group_begin(a->ring));
    dls_status s = exchange(a->ring, a->stream, &parcel, columns, dtype);
    dls_status end = dls_comm_group_end(a->ring);
    return s != DLS_OK ? s : end;
}

/* lay out the buffers */
static char *cut(dls_context_buffers *b, char *memory, size_t bytes)
{
    size_t at = b->bytes;
    b->bytes += (bytes + 255) / 256 * 256;
    return memory ? memory + at : NULL;
}

// The largest block's kernel memory, and its numbers of queries times sequences.
static size_t largest(const dls_member *r, dls_dtype dtype, size_t *queries)
{
    size_t most = 0;
    *queries = 0;
    for (int s = 0; s < r->members; s++) {
        dls_context_block b = dls_context_block_of(r, s, 2 * r->shape.Hk * r->shape.D,
                                                   r->shape.o_row);
        size_t bytes = b.empty ? 0 : r->functions->temporary(&b.shape, dtype);
        size_t count = b.empty ? 0 : (size_t)b.shape.B * b.shape.Tq;
        most = bytes > most ? bytes : most;
        *queries = count > *queries ? count : *queries;
    }
    return most;
}

dls_context_buffers dls_context_lay_out(const dls_member *r, dls_dtype dtype,
                                        char *memory, int gather, int backward)
{
    dls_context_buffers b = {0};
    const dls_attention_shape *s = &r->shape;
    /* count the elements of a block */
    size_t rows = dls_member_rows(r, r->member), queries, temporary;
    size_t kv = (size_t)r->most * 2 * s->Hk * s->D, q = rows * s->H * s->D;
    int blocks = gather ? r->members : 1, second = !gather && r->members > 1;
    if (r->members == 1) {
        /* lay out for one member */
        dls_context_block own = dls_context_block_of(r, 0, s->k_row, s->o_row);
        size_t bytes = backward && !own.empty ? r->functions->temporary(&own.shape, dtype)
                                              : 0;
        b.temporary = cut(&b, memory, bytes);
        return b;
    }
    temporary = largest(r, dtype, &queries);
    /* cut the buffers */
    b.kv[0] = cut(&b, memory, blocks * kv * r->size);
    b.kv[1] = second ? cut(&b, memory, kv * r->size) : b.kv[0];
    b.sum = cut(&b, memory, q * r->wide);
    b.lse = cut(&b, memory, queries * s->H * r->wide);
    if (!backward) {
        b.block = cut(&b, memory, q * r->size);
        return b;
    }
    b.block = cut(&b, memory, kv * r->size);
    b.dkv[0] = cut(&b, memory, blocks * kv * r->wide);
    b.dkv[1] = second ? cut(&b, memory, kv * r->wide) : b.dkv[0];
    b.home = second ? cut(&b, memory, kv * r->wide) : NULL;
    b.temporary = cut(&b, memory, temporary);
    return b;
}

/* pack keys and values */
dls_status dls_context_pack(const dls_context_pass *p, char *to, const char *k,
                            const char *v)
{
    const dls_attention_shape *s = &p->r.shape;
    size_t size = p->r.size, half = (size_t)s->Hk * s->D * size;
    size_t rows = dls_member_rows(&p->r, p->r.member);
    if (rows == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemcpy2DAsync(to, 2 * half, k, s->k_row * size, half, rows,
                               cudaMemcpyDeviceToDevice, p->ctx->stream));
    DLS_CUDA(cudaMemcpy2DAsync(to + half, 2 * half, v, s->v_row * size, half, rows,
                               cudaMemcpyDeviceToDevice, p->ctx->stream));
    return DLS_OK;
}

dls_status dls_context_unpack(const dls_context_pass *p, char *dk, char *dv,
                              const char *sums)
{
    const dls_attention_shape *s = &p->r.shape;
    int rows = dls_member_rows(&p->r, p->r.member), C = s->H * s->D, half = s->Hk * s->D;
    DLS_TRY(dls_merge_store(p->ctx, rows, C, p->dq, s->q_row, p->at.sum, C));
    DLS_TRY(dls_merge_store(p->ctx, rows, half, dk, s->k_row, sums, 2 * half));
    return dls_merge_store(p->ctx, rows, half, dv, s->v_row, sums + half * p->r.wide,
                           2 * half);
}

/* go round forward */
// Sends on the block of step t and receives that of step t + 1.
static dls_status next_block(const dls_context_pass *p, int t)
{
    const dls_member *r = &p->r;
    int n = r->members, s = (r->member - t + n) % n, next = (s + n - 1) % n;
    return dls_context_pass_on(
        p, (dls_context_parcel){p->at.kv[t % 2], p->at.kv[(t + 1) % 2],
                                dls_member_rows(r, s), dls_member_rows(r, next)},
        2 * r->shape.Hk * r->shape.D, p->ctx->dtype);
}

dls_status dls_context_ring_forward(const dls_context_pass *p, char *out, const char *k,
                                    const char *v)
{
    const dls_member *r = &p->r;
    int n = r->members, C = r->shape.H * r->shape.D;
    DLS_TRY(dls_context_pack(p, p->at.kv[0], k, v));
    for (int t = 0; t < n; t++) {
        if (t + 1 < n)
            DLS_TRY(next_block(p, t));
        DLS_TRY(dls_context_attend(p, (r->member - t + n) % n, p->at.kv[t % 2]));
        if (t + 1 < n)
            DLS_TRY(dls_context_arrived(p));
    }
    return dls_merge_store(p->ctx, dls_member_rows(r, r->member), C, out, r->shape.o_row,
                           p->at.sum, C);
}

/* go round backward */
// Sends on the sums of step t and receives those of step t + 1; at the end, home.
static dls_status next_sums(const dls_context_pass *p, int t)
{
    const dls_member *r = &p->r;
    int n = r->members, s = (r->member - t + n) % n, next = (s + n - 1) % n;
    return dls_context_pass_on(
        p, (dls_context_parcel){p->at.dkv[t % 2], p->at.dkv[(t + 1) % 2],
                                dls_member_rows(r, s), dls_member_rows(r, next)},
        2 * r->shape.Hk * r->shape.D, dls_dtype_accumulator(p->ctx->dtype));
}

static dls_status step_back(const dls_context_pass *p, int t)
{
    const dls_member *r = &p->r;
    int n = r->members, s = (r->member - t + n) % n;
    size_t bytes = (size_t)r->most * 2 * r->shape.Hk * r->shape.D * r->wide;
    if (t + 1 < n)
        DLS_TRY(next_block(p, t));
    if (t == 1)
        DLS_CUDA(cudaMemsetAsync(p->at.dkv[1], 0, bytes, p->ctx->stream));
    DLS_TRY(dls_context_walk_back(p, s, p->at.kv[t % 2],
                                  t == 0 ? p->at.home : p->at.dkv[t % 2]));
    return t > 0 ? next_sums(p, t) : DLS_OK;
}

dls_status dls_context_ring_backward(const dls_context_pass *p, char *dk, char *dv,
                                     const char *k, const char *v)
{
    const dls_member *r = &p->r;
    int n = r->members, C = 2 * r->shape.Hk * r->shape.D;
    int rows = dls_member_rows(r, r->member);
    dls_merge_rows all = {.B = 1, .most = rows, .count = rows};
    dls_ctx wide = dls_ctx_accumulator(p->ctx);
    DLS_TRY(dls_context_pack(p, p->at.kv[0], k, v));
    for (int t = 0; t < n; t++)
        DLS_TRY(step_back(p, t));
    DLS_TRY(dls_context_arrived(p));
    DLS_TRY(dls_merge_add(&wide, &all, C, p->at.home, C, p->at.dkv[n % 2], C, 0));
    return dls_context_unpack(p, dk, dv, p->at.home);
}

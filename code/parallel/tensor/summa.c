/* code/parallel/tensor/summa.c: from chapters/06-tensor-2d.md. Edit the chapter, or edit here and run "make untangle". */
/* Broadcasts and reductions on the grid's stream, products on the context's, and two
 * rooms between them that are used in turn:
 *
 *   grid     bring 0 | bring 1 | send 0 | bring 2 | send 1 | ...
 *   compute            product 0          product 1 ...                              */
#include "parallel/tensor/summa.h"

#include "kernels/elementwise.h"
#include "vgpu/gpu.h"

/* find the blocks of a turn */
typedef struct turn {
    int k, M, K, N;             // sizes of the blocks of turn k
    void *x, *w;                // its room
    cudaEvent_t ready, used;
} turn;

static size_t place(size_t elements, dls_dtype dtype)
{
    return (elements * dls_dtype_size(dtype) + 127) / 128 * 128;
}

static size_t x_place(const dls_grid *g, int M, int K, dls_dtype dtype)
{
    size_t widest = (size_t)(K + g->q - 1) / (size_t)g->q;
    return place((size_t)dls_cut_size(M, g->q, g->row) * widest, dtype);
}

static size_t w_place(const dls_grid *g, int K, int N, dls_dtype dtype)
{
    size_t widest = (size_t)(K + g->q - 1) / (size_t)g->q;
    return place((size_t)dls_cut_size(N, g->q, g->column) * widest,
                 dls_dtype_accumulator(dtype));
}

size_t dls_summa_room(const dls_grid *g, int M, int K, int N, dls_dtype dtype)
{
    return 2 * (x_place(g, M, K, dtype) + w_place(g, K, N, dtype));
}

static turn turn_of(const dls_summa *s, int k)
{
    const dls_grid *g = s->grid;
    dls_dtype dtype = s->ctx->dtype;
    size_t x = x_place(g, s->M, s->K, dtype), w = w_place(g, s->K, s->N, dtype);
    char *room = (char *)s->room + (size_t)(k % 2) * (x + w);
    return (turn){.k = k, .M = dls_cut_size(s->M, g->q, g->row),
                  .K = dls_cut_size(s->K, g->q, k),
                  .N = dls_cut_size(s->N, g->q, g->column),
                  .x = room, .w = room + x,
                  .ready = g->ready[k % 2], .used = g->used[k % 2]};
}

/* bring a block */
/* *block: that of the group's rank t->k, here. own: this rank's; place: room for it. */
static dls_status bring(const dls_summa *s, const turn *t, dls_comm *group, int me,
                        const void *own, void *place, size_t n, const void **block)
{
    *block = me == t->k ? own : place;
    return group && n ? dls_comm_broadcast(group, (void *)*block, n, s->ctx->dtype, t->k,
                                           s->grid->stream) : DLS_OK;
}

static dls_status bring_x(const dls_summa *s, const turn *t, const void *X,
                          const void **block)
{
    return bring(s, t, s->grid->in_row, s->grid->column, X, t->x,
                 (size_t)t->M * (size_t)t->K, block);
}

static dls_status bring_w(const dls_summa *s, const turn *t, const void *W,
                          const void **block)
{
    return bring(s, t, s->grid->in_column, s->grid->row, W, t->w,
                 (size_t)t->K * (size_t)t->N, block);
}

static dls_status begin(const dls_summa *s)
{
    for (int i = 0; i < 2; i++)
        DLS_CUDA(cudaEventRecord(s->grid->used[i], s->ctx->stream));
    return DLS_OK;
}

/* The compute stream waits for all that the grid's has to do. */
static dls_status finish(const dls_summa *s)
{
    DLS_CUDA(cudaEventRecord(s->grid->ready[0], s->grid->stream));
    DLS_CUDA(cudaStreamWaitEvent(s->ctx->stream, s->grid->ready[0], 0));
    return DLS_OK;
}

/* multiply forward */
typedef struct pair { const void *x, *w; } pair;

static dls_status bring_both(const dls_summa *s, int k, const void *X, const void *W,
                             pair *blocks)
{
    turn t = turn_of(s, k);
    DLS_CUDA(cudaStreamWaitEvent(s->grid->stream, t.used, 0));
    DLS_TRY(bring_x(s, &t, X, &blocks->x));
    DLS_TRY(bring_w(s, &t, W, &blocks->w));
    DLS_CUDA(cudaEventRecord(t.ready, s->grid->stream));
    return DLS_OK;
}

dls_status dls_summa_forward(const dls_summa *s, void *Y, const void *X, const void *W)
{
    pair blocks[2];
    DLS_TRY(begin(s));
    DLS_TRY(bring_both(s, 0, X, W, &blocks[0]));
    for (int k = 0; k < s->grid->q; k++) {
        turn t = turn_of(s, k);
        if (k + 1 < s->grid->q)
            DLS_TRY(bring_both(s, k + 1, X, W, &blocks[(k + 1) % 2]));
        DLS_CUDA(cudaStreamWaitEvent(s->ctx->stream, t.ready, 0));
        DLS_TRY(dls_gemm(s->ctx, 0, 0, t.M, t.N, t.K, 1, blocks[k % 2].x,
                         blocks[k % 2].w, k > 0, Y));
        DLS_CUDA(cudaEventRecord(t.used, s->ctx->stream));
    }
    return DLS_OK;
}

/* hand a term on */
/* The group's sum of term (n) becomes, or is added to, `out` of its rank t->k. */
static dls_status hand_on(const dls_summa *s, const turn *t, dls_comm *group, int me,
                          void *term, size_t n, dls_dtype dtype, void *out, int add)
{
    dls_ctx c = *s->ctx;
    c.stream = s->grid->stream;
    c.dtype = dtype;
    DLS_CUDA(cudaEventRecord(t->used, s->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(c.stream, t->used, 0));
    if (group && n)
        DLS_TRY(dls_comm_reduce(group, term, n, dtype, DLS_SUM, t->k, c.stream));
    if (me == t->k && n && add)
        DLS_TRY(dls_add(&c, out, out, term, n));
    else if (me == t->k && n)
        DLS_CUDA(cudaMemcpyAsync(out, term, n * dls_dtype_size(dtype),
                                 cudaMemcpyDeviceToDevice, c.stream));
    return DLS_OK;
}

/* multiply for the input */
static dls_status bring_weight(const dls_summa *s, int k, const void *W,
                               const void **block)
{
    turn t = turn_of(s, k);
    DLS_CUDA(cudaStreamWaitEvent(s->grid->stream, t.used, 0));
    DLS_TRY(bring_w(s, &t, W, block));
    DLS_CUDA(cudaEventRecord(t.ready, s->grid->stream));
    return DLS_OK;
}

dls_status dls_summa_input(const dls_summa *s, void *dX, const void *dY, const void *W)
{
    const dls_grid *g = s->grid;
    const void *block[2];
    DLS_TRY(begin(s));
    DLS_TRY(bring_weight(s, 0, W, &block[0]));
    for (int k = 0; k < g->q; k++) {
        turn t = turn_of(s, k);
        if (k + 1 < g->q)
            DLS_TRY(bring_weight(s, k + 1, W, &block[(k + 1) % 2]));
        DLS_CUDA(cudaStreamWaitEvent(s->ctx->stream, t.ready, 0));
        DLS_TRY(dls_gemm(s->ctx, 0, 1, t.M, t.K, t.N, 1, dY, block[k % 2], 0, t.x));
        DLS_TRY(hand_on(s, &t, g->in_row, g->column, t.x, (size_t)t.M * (size_t)t.K,
                        s->ctx->dtype, dX, 0));
    }
    return finish(s);
}

/* multiply for the weight */
static dls_status bring_input(const dls_summa *s, int k, const void *X,
                              const void **block)
{
    turn t = turn_of(s, k);
    DLS_CUDA(cudaStreamWaitEvent(s->grid->stream, t.used, 0));
    DLS_TRY(bring_x(s, &t, X, block));
    DLS_CUDA(cudaEventRecord(t.ready, s->grid->stream));
    return DLS_OK;
}

dls_status dls_summa_weight(const dls_summa *s, void *dW, const void *X, const void *dY)
{
    const dls_grid *g = s->grid;
    dls_dtype wide = dls_dtype_accumulator(s->ctx->dtype);
    const void *block[2];
    DLS_TRY(begin(s));
    DLS_TRY(bring_input(s, 0, X, &block[0]));
    for (int k = 0; k < g->q; k++) {
        turn t = turn_of(s, k);
        if (k + 1 < g->q)
            DLS_TRY(bring_input(s, k + 1, X, &block[(k + 1) % 2]));
        DLS_CUDA(cudaStreamWaitEvent(s->ctx->stream, t.ready, 0));
        DLS_TRY(dls_gemm_into(s->ctx, 1, 0, t.K, t.N, t.M, 1, block[k % 2], dY, 0, t.w,
                              wide));
        DLS_TRY(hand_on(s, &t, g->in_column, g->row, t.w, (size_t)t.K * (size_t)t.N, wide,
                        dW, 1));
    }
    return finish(s);
}

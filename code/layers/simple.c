/* code/layers/simple.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The six simple layers. Each is a thin wrapper: which kernels, on which
 * buffers, with what stash. W always adds, so that micro-batches and tied
 * weights need no special case.
 */
#include <string.h>

#include "base/hash.h"
#include "kernels/attention_decode.h"
#include "kernels/kernels.h"
#include "layers/internal.h"
#include "layers/vocabulary.h"
#include "tensor/gemm.h"

/* linear forward */
static dls_status linear_forward(const dls_layer *l, dls_pass *p, void *y,
                                 const void *x)
{
    int N = dls_pass_rows(l, p);
    if (!y)
        return DLS_OK;          // nothing is stashed, so nothing is wanted
    return dls_linear_forward(p->ctx, y, x, dls_pass_value(p, l->weight),
                              l->bias < 0 ? NULL : dls_pass_value(p, l->bias), N, l->in,
                              l->out);
}

static dls_status linear_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    (void)x, (void)y;
    return dls_linear_backward_input(p->ctx, dx, dy, dls_pass_value(p, l->weight),
                                     dls_pass_rows(l, p), l->in, l->out);
}

/* linear backward weight */
static dls_status linear_backward_weight(const dls_layer *l, dls_pass *p,
                                         const void *dy, const void *x)
{
    void *dbias = l->bias < 0 ? NULL : dls_pass_grad(p, l->bias);
    DLS_TRY(dls_linear_backward_weight(p->ctx, dls_pass_keep(p, l->weight),
                                       dls_pass_grad(p, l->weight), dbias, dy, x,
                                       dls_pass_rows(l, p), l->in, l->out));
    DLS_TRY(dls_pass_added(p, l->weight));
    return dbias ? dls_pass_added(p, l->bias) : DLS_OK;
}

/* make a linear layer */
static const dls_layer_kind linear_kind = {
    .name = "linear",
    .forward = linear_forward,
    .backward_input = linear_backward_input,
    .backward_weight = linear_backward_weight,
};

dls_layer *dls_linear(dls_build *b, const char *name, int in, int out, int bias,
                      double std)
{
    dls_layer *l = dls_layer_make(b, &linear_kind, in, out);
    if (!l)
        return NULL;
    l->ignores_x = 1;
    l->weight = dls_layer_param(b, name, "weight", (dls_param){
        .ndim = 2, .shape = {out, in}, .init = DLS_INIT_NORMAL, .init_scale = std,
        .decay = 1, .overwritten = 1});
    if (bias)
        l->bias = dls_layer_param(b, name, "bias",
                                  (dls_param){.ndim = 1, .shape = {out}});
    return l;
}

/* layernorm layer forward */
static void layernorm_plan(dls_layer *l, dls_plan *plan)
{
    size_t N = (size_t)dls_plan_rows(l, plan);
    dls_dtype wide = dls_dtype_accumulator(plan->dtype);
    l->slot[0] = dls_plan_stash(plan, N, wide);     // mean (N)
    l->slot[1] = dls_plan_stash(plan, N, wide);     // rstd (N)
}

static dls_status layernorm_forward(const dls_layer *l, dls_pass *p, void *y,
                                    const void *x)
{
    return dls_layernorm_forward(
        p->ctx, y, dls_pass_stash(p, l->slot[0]), dls_pass_stash(p, l->slot[1]), x,
        dls_pass_value(p, l->weight), dls_pass_value(p, l->bias), dls_pass_rows(l, p),
        l->in);
}

/* layernorm layer backward */
static dls_status layernorm_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                           const void *dy, const void *x, void *y)
{
    (void)y;
    return dls_layernorm_backward_input(
        p->ctx, dx, dy, x, dls_pass_value(p, l->weight),
        dls_pass_stash(p, l->slot[0]), dls_pass_stash(p, l->slot[1]),
        dls_pass_rows(l, p), l->in);
}

static dls_status layernorm_backward_weight(const dls_layer *l, dls_pass *p,
                                            const void *dy, const void *x)
{
    DLS_TRY(dls_layernorm_backward_weight(
        p->ctx, dls_pass_grad(p, l->weight), dls_pass_grad(p, l->bias), dy, x,
        dls_pass_stash(p, l->slot[0]), dls_pass_stash(p, l->slot[1]),
        dls_pass_rows(l, p), l->in));
    DLS_TRY(dls_pass_added(p, l->weight));
    return dls_pass_added(p, l->bias);
}

/* make a layernorm layer */
static const dls_layer_kind layernorm_kind = {
    .name = "layernorm",
    .plan = layernorm_plan,
    .forward = layernorm_forward,
    .backward_input = layernorm_backward_input,
    .backward_weight = layernorm_backward_weight,
};

dls_layer *dls_layernorm(dls_build *b, const char *name, int channels)
{
    dls_layer *l = dls_layer_make(b, &layernorm_kind, channels, channels);
    if (!l)
        return NULL;
    l->epsilon = DLS_LAYERNORM_EPSILON;
    dls_param story = {.ndim = 1, .shape = {channels}, .init = DLS_INIT_ONE};
    l->weight = dls_layer_param(b, name, "weight", story);
    story.init = DLS_INIT_ZERO;
    l->bias = dls_layer_param(b, name, "bias", story);
    return l;
}

/* gelu layer */
static dls_status gelu_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    size_t n = (size_t)dls_pass_rows(l, p) * l->in;
    return !y ? DLS_OK : dls_gelu_forward(p->ctx, y, x, n);
}

static dls_status gelu_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                      const void *dy, const void *x, void *y)
{
    (void)y;
    return dls_gelu_backward(p->ctx, dx, dy, x, (size_t)dls_pass_rows(l, p) * l->in);
}

dls_status dls_layer_no_weights(const dls_layer *l, dls_pass *p, const void *dy,
                                const void *x)
{
    (void)l, (void)p, (void)dy, (void)x;
    return DLS_OK;
}

static const dls_layer_kind gelu_kind = {
    .name = "gelu",
    .forward = gelu_forward,
    .backward_input = gelu_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_gelu(dls_build *b, int channels)
{
    return dls_layer_make(b, &gelu_kind, channels, channels);
}

static dls_status erf_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    size_t n = (size_t)dls_pass_rows(l, p) * l->in;
    return !y ? DLS_OK : dls_gelu_erf_forward(p->ctx, y, x, n);
}

static dls_status erf_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                     const void *dy, const void *x, void *y)
{
    (void)y;
    return dls_gelu_erf_backward(p->ctx, dx, dy, x, (size_t)dls_pass_rows(l, p) * l->in);
}

static const dls_layer_kind erf_kind = {
    .name = "gelu_erf",
    .forward = erf_forward,
    .backward_input = erf_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_gelu_erf(dls_build *b, int channels)
{
    return dls_layer_make(b, &erf_kind, channels, channels);
}

/* attention core layer */
static dls_attention_shape attention_shape(const dls_layer *l, int B, int T)
{
    size_t row = l->in;
    return (dls_attention_shape){.B = B, .Tq = T, .Tk = T, .H = l->heads,
                                 .Hk = l->kv_heads, .D = l->head_size, .causal = 1,
                                 .q_row = row, .k_row = row, .v_row = row};
}

static dls_attention_shape shape_of_pass(const dls_layer *l, const dls_pass *p)
{
    dls_attention_shape s = attention_shape(l, p->B, p->T);
    if (p->drops) {
        s.dropout = l->dropout;
        s.seed = p->seed;
        s.stream = l->stream;
        s.first_sequence = (int)p->first_sequence;
        s.first_head = l->first;
    }
    return s;
}

/* plan the decoding */
enum { DECODED_HEAD = 256 };

static size_t decode_temporary(const dls_layer *l, const dls_plan *plan)
{
    size_t most = 0;
    for (int B = 1; B <= plan->max_B && l->head_size <= DECODED_HEAD; B++) {
        dls_attention_shape s = attention_shape(l, B, 1);
        s.Tk = 1 << 20;
        size_t bytes = dls_attention_decode_temporary(&s, plan->dtype,
                                                      dls_attention_splits(&s));
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void attention_plan(dls_layer *l, dls_plan *plan)
{
    dls_attention_shape s = attention_shape(l, plan->max_B, plan->max_T);
    size_t rows = (size_t)plan->max_B * plan->max_T;
    l->slot[0] = dls_plan_early(plan, rows * l->heads,
                                dls_dtype_accumulator(plan->dtype));    // lse (B, H, T)
    dls_plan_temporary(plan, plan->frozen ? decode_temporary(l, plan)
                                          : dls_attention_temporary(&s, plan->dtype));
}

/* attend to a cache */
static dls_status attend_to_cache(const dls_layer *l, dls_pass *p, void *y, const void *q,
                                  const void *k)
{
    const dls_cache *c = p->cache;
    int N = p->B * p->T, width = l->in - l->out;
    size_t size = dls_dtype_size(p->ctx->dtype), sequence = (size_t)c->length * width;
    size_t before = (size_t)l->ordinal * c->sequences + c->first;
    char *rows = (char *)c->rows + before * sequence * size;
    DLS_TRY(dls_cache_append(p->ctx, rows, k, l->in, p->positions, N, p->T, width,
                             c->length));
    dls_attention_shape s = attention_shape(l, p->B, p->T);
    s.Tk = c->longest;
    s.lengths_k = c->filled;
    s.k_row = s.v_row = width;
    s.k_sequence = s.v_sequence = sequence;
    const char *values = rows + width / 2 * size;
    if (p->T == 1 && l->head_size <= DECODED_HEAD)
        return dls_attention_decode(p->ctx, &s, dls_attention_splits(&s), y, NULL,
                                    p->temporary, q, rows, values);
    return dls_attention_forward(p->ctx, &s, y, dls_pass_stash(p, l->slot[0]), q, rows,
                                 values);
}

static dls_status attention_forward(const dls_layer *l, dls_pass *p, void *y,
                                    const void *x)
{
    dls_attention_shape s = shape_of_pass(l, p);
    size_t size = dls_dtype_size(p->ctx->dtype);
    const char *q = x, *k = q + l->out * size, *v = k + (l->in - l->out) / 2 * size;
    if (!y)
        return DLS_FAIL(DLS_ERR_STATE, "attention is run for its stash without a place "
                        "for its output");
    if (p->cache)
        return attend_to_cache(l, p, y, q, k);
    return dls_attention_forward(p->ctx, &s, y, dls_pass_stash(p, l->slot[0]), q, k, v);
}

static dls_status attention_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                           const void *dy, const void *x, void *y)
{
    dls_attention_shape s = shape_of_pass(l, p);
    size_t size = dls_dtype_size(p->ctx->dtype);
    size_t k = l->out * size, v = k + (l->in - l->out) / 2 * size;
    const char *q = x;
    char *dq = dx;
    if (!y)
        return DLS_FAIL(DLS_ERR_STATE, "attention's backward needs its output");
    return dls_attention_backward(p->ctx, &s, dq, dq + k, dq + v, p->temporary, dy, q,
                                  q + k, q + v, y, dls_pass_stash(p, l->slot[0]));
}

static const dls_layer_kind attention_kind = {
    .name = "attention",
    .plan = attention_plan,
    .forward = attention_forward,
    .backward_input = attention_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_attention(dls_build *b, const char *name, int heads, int kv_heads,
                         int head_size, double dropout)
{
    dls_piece q = dls_tensor_units(&b->sharding, heads);
    int H = (int)q.count, Hk = (int)dls_tensor_units(&b->sharding, kv_heads).count;
    const dls_layer_kind *kind = b->sharding.context > 1 ? &dls_attention_over_ranks
                                                         : &attention_kind;
    dls_layer *l = dls_layer_make(b, kind, (H + 2 * Hk) * head_size, H * head_size);
    if (!l)
        return NULL;
    l->heads = H;
    l->kv_heads = Hk;
    l->first = (int)q.begin;
    l->head_size = head_size;
    l->dropout = dropout;
    l->stream = dls_hash64(name, strlen(name));
    l->ordinal = b->attentions++;
    return l;
}

/* embedding layer */
static void embedding_plan(dls_layer *l, dls_plan *plan)
{
    dls_tensor_room(plan, l->slices > 1, l->out);
}

static dls_status embedding_forward(const dls_layer *l, dls_pass *p, void *y,
                                    const void *x)
{
    void *share = dls_tensor_share(p, l->slices > 1, y);
    const void *wpe = l->bias < 0 || l->first > 0 ? NULL : dls_pass_value(p, l->bias);
    (void)x;
    DLS_TRY(dls_embedding_part_forward(p->ctx, share, p->tokens, p->positions,
                                       dls_pass_value(p, l->weight), wpe, p->B, p->T,
                                       l->out, l->first, l->vocabulary));
    return l->cut ? dls_tensor_sum(p, l->slices > 1, l->out, y, share) : DLS_OK;
}

static dls_status embedding_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                           const void *dy, const void *x, void *y)
{
    (void)l, (void)p, (void)dx, (void)dy, (void)x, (void)y;
    return DLS_OK;
}

static dls_status embedding_backward_weight(const dls_layer *l, dls_pass *p,
                                            const void *dy, const void *x)
{
    (void)x;
    void *dwpe = l->bias < 0 ? NULL : dls_pass_grad(p, l->bias);
    DLS_TRY(dls_tensor_gather(p, l->slices > 1, l->out, &dy, dy));
    DLS_TRY(dls_embedding_part_backward(p->ctx, dls_pass_grad(p, l->weight), dwpe, dy,
                                        p->tokens, p->positions, p->B, p->T, l->out,
                                        l->first, l->vocabulary));
    if (dwpe)
        DLS_TRY(dls_pass_added(p, l->bias));
    return dls_pass_added(p, l->weight);
}

/* make an embedding layer */
static const dls_layer_kind embedding_kind = {
    .name = "embedding",
    .plan = embedding_plan,
    .forward = embedding_forward,
    .backward_input = embedding_backward_input,
    .backward_weight = embedding_backward_weight,
};

dls_layer *dls_embedding(dls_build *b, int vocabulary, int context, int channels,
                         double std)
{
    dls_layer *l = dls_layer_make(b, &embedding_kind, 1, channels);
    if (!l)
        return NULL;
    dls_param story = {.ndim = 2, .shape = {vocabulary, channels},
                       .init = DLS_INIT_NORMAL, .init_scale = std, .decay = 1};
    dls_vocabulary_cut(b, l, &story);
    l->weight = dls_layer_param(b, "wte", "weight", story);
    story.shape[0] = context;
    story.pieces = 0;
    if (context > 0)
        l->bias = dls_layer_param(b, "wpe", "weight", story);
    if (l->bias >= 0)
        b->params->items[l->bias].partial = 0;  // every rank sees all rows of dy
    return l;
}

/* head layer forward */
static void head_plan(dls_layer *l, dls_plan *plan)
{
    size_t N = (size_t)plan->max_B * plan->max_T;
    l->slot[0] = dls_plan_stash(plan, N * l->vocabulary, plan->dtype);  // logits, dlogits
    dls_tensor_room(plan, l->gathers, l->in);
    if (l->cut)
        dls_plan_temporary(plan, dls_vocabulary_room(N, plan->dtype));
}

/* find the last row */
static const void *last_row(const dls_layer *l, const dls_pass *p, const void *x, int *N)
{
    *N = p->cache->quiet ? 0 : p->B;
    return (const char *)x + (size_t)(p->T - 1) * l->in * dls_dtype_size(p->ctx->dtype);
}

static dls_status head_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    int N = p->B * p->T, V = l->vocabulary;
    void *logits = dls_pass_stash(p, l->slot[0]);
    DLS_TRY(dls_tensor_gather(p, l->gathers, l->in, &x, x));
    if (p->cache)
        x = last_row(l, p, x, &N);
    if (N == 0)
        return DLS_OK;
    DLS_TRY(dls_gemm(p->ctx, 0, 1, N, V, l->in, 1, x, dls_pass_value(p, l->weight),
                     0, logits));
    if (!p->targets)
        return DLS_OK;
    return l->cut ? dls_vocabulary_losses(l, p, y, logits)
                  : dls_cross_entropy(p->ctx, y, logits, p->targets, 1, N, V, V);
}

/* head layer backward */
static dls_status head_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                      const void *dy, const void *x, void *y)
{
    void *share = dls_tensor_share(p, l->gathers, dx);
    (void)dy, (void)x, (void)y;
    if (!p->targets)
        return DLS_FAIL(DLS_ERR_STATE, "backward after a forward without targets");
    DLS_TRY(dls_gemm(p->ctx, 0, 0, p->B * p->T, l->in, l->vocabulary, p->loss_scale,
                     dls_pass_stash(p, l->slot[0]), dls_pass_value(p, l->weight), 0,
                     share));
    return l->cut ? dls_tensor_sum(p, l->gathers, l->in, dx, share) : DLS_OK;
}

static dls_status head_backward_weight(const dls_layer *l, dls_pass *p,
                                       const void *dy, const void *x)
{
    (void)dy;
    DLS_TRY(dls_tensor_gather(p, l->gathers, l->in, &x, x));
    DLS_TRY(dls_gemm_into(p->ctx, 1, 0, l->vocabulary, l->in, p->B * p->T,
                          p->loss_scale, dls_pass_stash(p, l->slot[0]), x,
                          dls_pass_keep(p, l->weight), dls_pass_grad(p, l->weight),
                          dls_dtype_accumulator(p->ctx->dtype)));
    return dls_pass_added(p, l->weight);
}

/* make a head layer */
static const dls_layer_kind head_kind = {
    .name = "head",
    .plan = head_plan,
    .forward = head_forward,
    .backward_input = head_backward_input,
    .backward_weight = head_backward_weight,
};

dls_layer *dls_tied_head(dls_build *b, const dls_layer *embedding)
{
    if (b->status != DLS_OK)
        return NULL;
    dls_layer *l = dls_layer_make(b, &head_kind, embedding->out, 1);
    if (!l)
        return NULL;
    l->weight = embedding->weight;
    l->vocabulary = embedding->vocabulary;
    l->whole = embedding->whole;
    l->first = embedding->first;
    l->cut = embedding->cut;
    l->gathers = l->cut && b->sharding.sequence;
    b->params->items[l->weight].uses++;
    b->params->items[l->weight].overwritten = 1; // the head comes first on the way back
    return l;
}

dls_layer *dls_head(dls_build *b, const char *name, int channels, int vocabulary,
                    double std)
{
    dls_layer *l = dls_layer_make(b, &head_kind, channels, 1);
    if (!l)
        return NULL;
    dls_param story = {.ndim = 2, .shape = {vocabulary, channels},
                       .init = DLS_INIT_NORMAL, .init_scale = std, .decay = 1,
                       .overwritten = 1};
    dls_vocabulary_cut(b, l, &story);
    l->gathers = l->cut && b->sharding.sequence;
    l->weight = dls_layer_param(b, name, "weight", story);
    return l;
}

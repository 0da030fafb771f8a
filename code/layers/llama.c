/* code/layers/llama.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The layers that came after GPT-2, and dropout, which came before it. RMS norm and
 * SwiGLU are like the simple layers; rotation and dropout work in place.
 */
#include <string.h>

#include "base/hash.h"
#include "kernels/kernels.h"
#include "layers/internal.h"
#include "layers/tensor.h"

/* rmsnorm layer */
static void rmsnorm_plan(dls_layer *l, dls_plan *plan)
{
    l->slot[0] = dls_plan_stash(plan, dls_plan_rows(l, plan),
                                dls_dtype_accumulator(plan->dtype));    // rstd (N)
}

static dls_status rmsnorm_forward(const dls_layer *l, dls_pass *p, void *y,
                                  const void *x)
{
    return dls_rmsnorm_forward(p->ctx, y, dls_pass_stash(p, l->slot[0]), x,
                               dls_pass_value(p, l->weight), dls_pass_rows(l, p), l->in,
                               l->epsilon);
}

static dls_status rmsnorm_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                         const void *dy, const void *x, void *y)
{
    (void)y;
    return dls_rmsnorm_backward_input(p->ctx, dx, dy, x, dls_pass_value(p, l->weight),
                                      dls_pass_stash(p, l->slot[0]), dls_pass_rows(l, p),
                                      l->in);
}

static dls_status rmsnorm_backward_weight(const dls_layer *l, dls_pass *p,
                                          const void *dy, const void *x)
{
    DLS_TRY(dls_rmsnorm_backward_weight(p->ctx, dls_pass_grad(p, l->weight), dy, x,
                                        dls_pass_stash(p, l->slot[0]),
                                        dls_pass_rows(l, p), l->in));
    return dls_pass_added(p, l->weight);
}

static const dls_layer_kind rmsnorm_kind = {
    .name = "rmsnorm",
    .plan = rmsnorm_plan,
    .forward = rmsnorm_forward,
    .backward_input = rmsnorm_backward_input,
    .backward_weight = rmsnorm_backward_weight,
};

dls_layer *dls_rmsnorm(dls_build *b, const char *name, int channels, double epsilon)
{
    dls_layer *l = dls_layer_make(b, &rmsnorm_kind, channels, channels);
    if (!l)
        return NULL;
    l->epsilon = epsilon;
    l->weight = dls_layer_param(b, name, "weight", (dls_param){
        .ndim = 1, .shape = {channels}, .init = DLS_INIT_ONE});
    return l;
}

/* swiglu layer */
static dls_status swiglu_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    return !y ? DLS_OK : dls_swiglu_forward(p->ctx, y, x, dls_pass_rows(l, p), l->out);
}

static dls_status swiglu_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    (void)y;
    return dls_swiglu_backward(p->ctx, dx, dy, x, dls_pass_rows(l, p), l->out);
}

static const dls_layer_kind swiglu_kind = {
    .name = "swiglu",
    .forward = swiglu_forward,
    .backward_input = swiglu_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_swiglu(dls_build *b, int hidden)
{
    return dls_layer_make(b, &swiglu_kind, 2 * hidden, hidden);
}

/* rotary layer */
static dls_rope_shape rope_shape(const dls_layer *l, const dls_pass *p)
{
    return (dls_rope_shape){.N = dls_pass_rows(l, p), .heads = l->heads + l->kv_heads,
                            .D = l->head_size, .R = l->rotated, .row = l->in,
                            .length = p->rotation_length, .T = p->T,
                            .positions = p->positions};
}

static dls_status move(const dls_layer *l, const dls_pass *p, void *to, const void *from)
{
    size_t bytes = (size_t)dls_pass_rows(l, p) * l->in * dls_dtype_size(p->ctx->dtype);
    if (to != from)
        DLS_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice,
                                 p->ctx->stream));
    return DLS_OK;
}

static dls_status rotary_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    dls_rope_shape s = rope_shape(l, p);
    DLS_TRY(move(l, p, y, x));
    return dls_rope_forward(p->ctx, y, p->rotation, &s);
}

static dls_status rotary_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    dls_rope_shape s = rope_shape(l, p);
    (void)x, (void)y;
    DLS_TRY(move(l, p, dx, dy));
    return dls_rope_backward(p->ctx, dx, p->rotation, &s);
}

static const dls_layer_kind rotary_kind = {
    .name = "rotary",
    .in_place = 1,
    .forward = rotary_forward,
    .backward_input = rotary_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_rotary(dls_build *b, int heads, int kv_heads, int head_size, int dim)
{
    int H = (int)dls_tensor_units(&b->sharding, heads).count;
    int Hk = (int)dls_tensor_units(&b->sharding, kv_heads).count;
    int row = (H + 2 * Hk) * head_size;
    dls_layer *l = dls_layer_make(b, &rotary_kind, row, row);
    if (!l)
        return NULL;
    l->heads = H;
    l->kv_heads = Hk;
    l->head_size = head_size;
    l->rotated = dim;
    l->ignores_x = 1;
    return l;
}

/* dropout layer */
dls_dropout dls_layer_mask(const dls_layer *l, const dls_pass *p)
{
    return (dls_dropout){.p = l->dropout, .seed = p->seed, .stream = l->stream,
                         .first = (p->first_sequence * p->T + dls_pass_first_row(l, p))
                                  * l->out};
}

dls_status dls_layer_drop(const dls_layer *l, const dls_pass *p, void *out, const void *x)
{
    dls_dropout d = dls_layer_mask(l, p);
    if (dls_layer_is_scattered(p))
        return dls_layer_drop_scattered(l, p, out, x);
    return dls_dropout_apply(p->ctx, out, x, dls_pass_rows(l, p), l->out, &d);
}

static dls_status dropout_forward(const dls_layer *l, dls_pass *p, void *y,
                                  const void *x)
{
    return p->drops ? dls_layer_drop(l, p, y, x) : move(l, p, y, x);
}

static dls_status dropout_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                         const void *dy, const void *x, void *y)
{
    (void)x, (void)y;
    return p->drops ? dls_layer_drop(l, p, dx, dy) : move(l, p, dx, dy);
}

static const dls_layer_kind dropout_kind = {
    .name = "dropout",
    .in_place = 1,
    .forward = dropout_forward,
    .backward_input = dropout_backward_input,
    .backward_weight = dls_layer_no_weights,
};

dls_layer *dls_dropout_layer(dls_build *b, const char *name, int channels, double p)
{
    dls_layer *l = dls_layer_make(b, &dropout_kind, channels, channels);
    if (!l)
        return NULL;
    l->dropout = p;
    l->stream = dls_hash64(name, strlen(name));
    l->ignores_x = 1;
    return l;
}

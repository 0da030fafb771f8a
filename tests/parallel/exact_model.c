/* tests/parallel/exact_model.c: from chapters/04-data-parallelism-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* Four exact kinds of layers, as host operations on the stream, and the model. */
#include "exact_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "layers/internal.h"

/* run an exact operation */
typedef struct exact_op {
    void (*fn)(const struct exact_op *);
    dls_dtype dtype;
    int B, T, in, out;
    double scale;
    const int *ids;
    void *a[6];
} exact_op;

static double get(const exact_op *o, int k, size_t i)
{
    return o->dtype == DLS_F64 ? ((double *)o->a[k])[i] : ((float *)o->a[k])[i];
}

static void set(const exact_op *o, int k, size_t i, double x)
{
    if (o->dtype == DLS_F64)
        ((double *)o->a[k])[i] = x;
    else
        ((float *)o->a[k])[i] = (float)x;
}

static int run_op(void *arg, double start, double *finish)
{
    const exact_op *o = arg;
    o->fn(o);
    *finish = start + 1e-6;
    return 0;
}

static dls_status enqueue_op(dls_pass *p, exact_op o, const char *name)
{
    exact_op *copy = malloc(sizeof *copy);
    if (!copy)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %s", name);
    o.dtype = p->ctx->dtype;
    o.B = p->B;
    o.T = p->T;
    *copy = o;
    dls_gpu_op op = {.name = name, .kind = DLS_GPU_COMPUTE, .run = run_op,
                     .destroy = free};
    DLS_CUDA(dls_gpu_enqueue(p->ctx->stream, &op, copy));
    return DLS_OK;
}

/* define the exact norm */
static double small(double x)
{
    return fmax(-4, fmin(4, floor(x / 2)));
}

/* a: y, x, weight, bias */
static void norm_forward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->B * o->T * o->in; i++) {
        size_t c = i % o->in;
        set(o, 0, i, get(o, 2, c) * small(get(o, 1, i)) + get(o, 3, c));
    }
}

/* a: dx, dy, weight */
static void norm_backward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->B * o->T * o->in; i++)
        set(o, 0, i, small(get(o, 1, i) * get(o, 2, i % o->in)));
}

/* a: dweight, dbias, dy, x */
static void norm_weight(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->B * o->T * o->in; i++) {
        size_t c = i % o->in;
        set(o, 0, c, get(o, 0, c) + get(o, 2, i) * small(get(o, 3, i)));
        set(o, 1, c, get(o, 1, c) + get(o, 2, i));
    }
}

static dls_status exact_norm_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = norm_forward, .in = l->in,
                  .a = {y, (void *)x, dls_pass_value(p, l->weight),
                        dls_pass_value(p, l->bias)}};
    return enqueue_op(p, o, "norm");
}

static dls_status exact_norm_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = norm_backward, .in = l->in,
                  .a = {dx, (void *)dy, dls_pass_value(p, l->weight)}};
    (void)x, (void)y;
    return enqueue_op(p, o, "norm backward");
}

static dls_status exact_norm_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                    const void *x)
{
    exact_op o = {.fn = norm_weight, .in = l->in,
                  .a = {dls_pass_grad(p, l->weight), dls_pass_grad(p, l->bias),
                        (void *)dy, (void *)x}};
    DLS_TRY(enqueue_op(p, o, "norm weight"));
    DLS_TRY(dls_pass_added(p, l->weight));
    return dls_pass_added(p, l->bias);
}

static const dls_layer_kind norm_kind = {
    .name = "exact norm", .forward = exact_norm_forward,
    .backward_input = exact_norm_input, .backward_weight = exact_norm_weight};

static dls_layer *exact_norm(dls_build *b, const char *name)
{
    dls_layer *l = dls_layer_make(b, &norm_kind, EXACT_C, EXACT_C);
    dls_param story = {.ndim = 1, .shape = {EXACT_C}};
    if (!l)
        return NULL;
    l->weight = dls_layer_param(b, name, "weight", story);
    l->bias = dls_layer_param(b, name, "bias", story);
    return l;
}

/* define the exact relu */
/* a: y, x */
static void relu_forward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->B * o->T * o->in; i++)
        set(o, 0, i, fmax(0, get(o, 1, i)));
}

/* a: dx, dy, x */
static void relu_backward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->B * o->T * o->in; i++)
        set(o, 0, i, get(o, 2, i) > 0 ? get(o, 1, i) : 0);
}

static dls_status exact_relu_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = relu_forward, .in = l->in, .a = {y, (void *)x}};
    return y ? enqueue_op(p, o, "relu") : DLS_OK;
}

static dls_status exact_relu_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = relu_backward, .in = l->in, .a = {dx, (void *)dy, (void *)x}};
    (void)y;
    return enqueue_op(p, o, "relu backward");
}

static const dls_layer_kind relu_kind = {
    .name = "relu", .forward = exact_relu_forward, .backward_input = exact_relu_input,
    .backward_weight = dls_layer_no_weights};

/* define the exact attention */
static double dot(const exact_op *o, int a, size_t i, int b, size_t j)
{
    double sum = 0;
    for (int c = 0; c < o->out; c++)
        sum += get(o, a, i + c) * get(o, b, j + c);
    return sum;
}

/* a: y (B, T, C), x (B, T, 3C): q, k, v */
static void attention_forward(const exact_op *o)
{
    size_t C = o->out, row = o->in;
    for (int r = 0; r < o->B * o->T; r++)
        for (size_t c = 0; c < C; c++) {
            double sum = 0;
            for (int j = r - r % o->T; j <= r; j++)
                sum += small(dot(o, 1, r * row, 1, j * row + C))
                    * get(o, 1, j * row + 2 * C + c);
            set(o, 0, r * C + c, sum);
        }
}

/* a: dx (B, T, 3C), dy (B, T, C), x (B, T, 3C) */
static void attention_backward(const exact_op *o)
{
    size_t C = o->out, row = o->in;
    for (size_t i = 0; i < (size_t)o->B * o->T * row; i++)
        set(o, 0, i, 0);
    for (int r = 0; r < o->B * o->T; r++)
        for (int j = r - r % o->T; j <= r; j++) {
            size_t q = r * row, k = j * row + C, v = k + C;
            double weight = small(dot(o, 2, q, 2, k));
            double d = small(dot(o, 1, r * C, 2, v));
            for (size_t c = 0; c < C; c++) {
                set(o, 0, v + c, get(o, 0, v + c) + weight * get(o, 1, r * C + c));
                set(o, 0, q + c, get(o, 0, q + c) + d * get(o, 2, k + c));
                set(o, 0, k + c, get(o, 0, k + c) + d * get(o, 2, q + c));
            }
        }
}

static dls_status exact_attention_forward(const dls_layer *l, dls_pass *p, void *y,
                                          const void *x)
{
    exact_op o = {.fn = attention_forward, .in = l->in, .out = l->out,
                  .a = {y, (void *)x}};
    return enqueue_op(p, o, "attention");
}

static dls_status exact_attention_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = attention_backward, .in = l->in, .out = l->out,
                  .a = {dx, (void *)dy, (void *)x}};
    (void)y;
    return enqueue_op(p, o, "attention backward");
}

static const dls_layer_kind attention_kind = {
    .name = "exact attention", .forward = exact_attention_forward,
    .backward_input = exact_attention_input,
    .backward_weight = dls_layer_no_weights};

/* define the exact head */
static void head_plan(dls_layer *l, dls_plan *plan)
{
    size_t N = (size_t)plan->max_B * plan->max_T;
    l->slot[0] = dls_plan_stash(plan, N * EXACT_V, plan->dtype); // logits, then dlogits
}

/* a: losses (N), logits (N, V), weight (V, C), x (N, C) */
static void head_forward(const exact_op *o)
{
    for (int r = 0; r < o->B * o->T; r++) {
        double loss = 0;
        for (int v = 0; v < EXACT_V; v++) {
            double logit = 0;
            for (int c = 0; c < o->in; c++)
                logit += get(o, 3, r * o->in + c) * get(o, 2, v * o->in + c);
            double off = logit - (o->ids[r] == v ? 8 : 0);
            loss += off * off;
            set(o, 1, r * EXACT_V + v, small(off));
        }
        set(o, 0, r, loss / 2);
    }
}

/* a: dx (N, C), dlogits (N, V), weight (V, C) */
static void head_backward(const exact_op *o)
{
    for (int r = 0; r < o->B * o->T; r++)
        for (int c = 0; c < o->in; c++) {
            double sum = 0;
            for (int v = 0; v < EXACT_V; v++)
                sum += get(o, 1, r * EXACT_V + v) * get(o, 2, v * o->in + c);
            set(o, 0, r * o->in + c, o->scale * sum);
        }
}

/* a: dweight (V, C), dlogits (N, V), x (N, C) */
static void head_weight(const exact_op *o)
{
    for (int r = 0; r < o->B * o->T; r++)
        for (int i = 0; i < EXACT_V * o->in; i++)
            set(o, 0, i, get(o, 0, i) + o->scale * get(o, 1, r * EXACT_V + i / o->in)
                    * get(o, 2, r * o->in + i % o->in));
}

static dls_status exact_head_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = head_forward, .in = l->in, .ids = p->targets,
                  .a = {y, dls_pass_stash(p, l->slot[0]), dls_pass_value(p, l->weight),
                        (void *)x}};
    return enqueue_op(p, o, "head");
}

static dls_status exact_head_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = head_backward, .in = l->in, .scale = p->loss_scale,
                  .a = {dx, dls_pass_stash(p, l->slot[0]), dls_pass_value(p, l->weight)}};
    (void)dy, (void)x, (void)y;
    return enqueue_op(p, o, "head backward");
}

static dls_status exact_head_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                    const void *x)
{
    exact_op o = {.fn = head_weight, .in = l->in, .scale = p->loss_scale,
                  .a = {dls_pass_grad(p, l->weight), dls_pass_stash(p, l->slot[0]),
                        (void *)x}};
    (void)dy;
    DLS_TRY(enqueue_op(p, o, "head weight"));
    return dls_pass_added(p, l->weight);
}

static const dls_layer_kind head_kind = {
    .name = "exact head", .plan = head_plan, .forward = exact_head_forward,
    .backward_input = exact_head_input, .backward_weight = exact_head_weight};

/* build the exact model */
static dls_layer *branch(dls_build *b, const char *name, const char *first, int in,
                         int hidden, const dls_layer_kind *inside, int after)
{
    char text[DLS_PARAM_NAME];
    dls_layer *list[4];
    snprintf(text, sizeof text, "%s.%s.norm", name, first);
    list[0] = exact_norm(b, text);
    snprintf(text, sizeof text, "%s.%s.in", name, first);
    list[1] = dls_linear(b, text, in, hidden, 1, 1);
    list[2] = dls_layer_make(b, inside, hidden, after);
    snprintf(text, sizeof text, "%s.%s.out", name, first);
    list[3] = dls_linear(b, text, after, in, 1, 1);
    return b->status == DLS_OK ? dls_residual(b, dls_sequence(b, list, 4)) : NULL;
}

static dls_layer *exact_block(dls_build *b, int i)
{
    char name[32];
    dls_layer *list[2];
    snprintf(name, sizeof name, "block.%d", i);
    b->unit = 1 + i;
    list[0] = branch(b, name, "attention", EXACT_C, 3 * EXACT_C, &attention_kind,
                     EXACT_C);
    list[1] = branch(b, name, "mlp", EXACT_C, EXACT_F, &relu_kind, EXACT_F);
    return b->status == DLS_OK ? dls_sequence(b, list, 2) : NULL;
}

static int builds(const dls_transformer *t, int unit)
{
    return t->config.to_unit == 0
        || (unit >= t->config.from_unit && unit < t->config.to_unit);
}

/* Tied to the embedding, if that is here; else with a copy of the table. */
static void tie(dls_transformer *t, const dls_layer *embedding)
{
    dls_param table = {.ndim = 2, .shape = {EXACT_V, EXACT_C}, .decay = 1};
    t->head->vocabulary = EXACT_V;
    t->head->weight = embedding ? embedding->weight
        : dls_layer_param(&t->build, "wte", "weight", table);
    if (embedding)
        t->params.items[t->head->weight].uses++;
}

static dls_status build_exact(dls_transformer *t)
{
    dls_build *b = &t->build;
    int blocks = t->config.layers, n = 0;
    dls_layer *list[blocks + 3], *embedding = NULL;
    if (builds(t, 0))
        list[n++] = embedding = dls_embedding(b, EXACT_V, EXACT_T, EXACT_C, 1);
    for (int i = 0; i < blocks; i++)
        if (builds(t, 1 + i))
            list[n++] = exact_block(b, i);
    b->unit = 1 + blocks;
    if (builds(t, b->unit)) {
        list[n++] = exact_norm(b, "ln_f");
        t->head = list[n++] = dls_layer_make(b, &head_kind, EXACT_C, 1);
        DLS_TRY(b->status);
        tie(t, embedding);
    }
    DLS_TRY(b->status);
    b->unit = -1;
    t->top = dls_sequence(b, list, n);
    return b->status;
}

static dls_status allocate_exact(dls_transformer *t, int max_B)
{
    t->plan = (dls_plan){.max_B = max_B, .max_T = EXACT_T, .dtype = t->ctx->dtype,
                         .deferred = t->config.split_backward};
    t->losses = dls_plan_stash(&t->plan, (size_t)max_B * EXACT_T, t->ctx->dtype);
    dls_layer_plan(t->top, &t->plan);
    DLS_TRY(dls_params_allocate(&t->params, t->ctx));
    if (t->config.to_unit == 0)
        DLS_TRY(dls_device_alloc(&t->activations, dls_plan_bytes(&t->plan) / 4, DLS_F32,
                                 DLS_MEM_ACTIVATIONS));
    int *pending = calloc((size_t)t->params.n, sizeof *pending);
    if (!pending)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d counters", t->params.n);
    t->pass = (dls_pass){.ctx = t->ctx, .params = &t->params, .pending = pending};
    if (t->activations)
        dls_pass_regions(&t->pass, &t->plan, t->activations);
    return DLS_OK;
}

dls_transformer_config exact_model_config(void)
{
    return dls_transformer_gpt2(EXACT_V, EXACT_T, EXACT_BLOCKS, 1, EXACT_C);
}

dls_status exact_model_create(dls_transformer **out, dls_ctx *ctx, int unplaced,
                              int max_B)
{
    dls_transformer_config c = exact_model_config();
    c.unplaced = unplaced;
    return exact_model_make(out, ctx, &c, max_B, EXACT_T);
}

dls_status exact_model_make(dls_transformer **out, dls_ctx *ctx,
                            const dls_transformer_config *config, int max_B, int max_T)
{
    dls_status s;
    (void)max_T;
    dls_transformer *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a model");
    t->ctx = ctx;
    t->config = *config;
    t->build.params = &t->params;
    t->params.unplaced = config->unplaced;
    DLS_TRY_GOTO(s, build_exact(t), fail);
    DLS_TRY_GOTO(s, allocate_exact(t, max_B), fail);
    *out = t;
    return DLS_OK;
fail:
    dls_transformer_free(t);
    return s;
}

/* fill the exact model */
void exact_model_fill(const dls_params *set, void *host)
{
    static const double values[] = {-1, 0, 0, 1};
    for (int i = 0; i < set->n; i++) {
        const dls_param *p = &set->items[i];
        uint64_t stream = dls_hash64(p->name, strlen(p->name));
        for (size_t k = 0; k < p->count; k++) {
            double x = values[dls_rng_u32(3, stream, k) % 4];
            if (set->dtype == DLS_F64)
                ((double *)host)[p->offset + k] = x;
            else
                ((float *)host)[p->offset + k] = (float)x;
        }
    }
}

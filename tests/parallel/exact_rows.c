/* tests/parallel/exact_rows.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Exact kinds that work on each row alone: norm, ReLU, gate. */
#include "exact_layers.h"

/* make the norm exact */
/* a: y, x, weight, bias or NULL */
static void norm_forward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++) {
        size_t c = i % o->in;
        double y = exact_get(o, 2, c) * exact_cut(exact_get(o, 1, i), 4);
        exact_set(o, 0, i, y + (o->a[3] ? exact_get(o, 3, c) : 0));
    }
}

/* a: dx, dy, weight */
static void norm_backward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, exact_cut(exact_get(o, 1, i) * exact_get(o, 2, i % o->in), 4));
}

/* a: dweight, dbias or NULL, dy, x */
static void norm_weight(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++) {
        double dy = exact_get(o, 2, i);
        exact_add(o, 0, i % o->in, exact_cut(dy, 64) * exact_cut(exact_get(o, 3, i), 4));
        if (o->a[1])
            exact_add(o, 1, i % o->in, dy);
    }
}

static dls_status exact_norm_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = norm_forward, .rows = dls_pass_rows(l, p), .in = l->in,
                  .a = {y, (void *)x, dls_pass_value(p, l->weight),
                        l->bias < 0 ? NULL : dls_pass_value(p, l->bias)}};
    return exact_enqueue(p->ctx, o, "norm");
}

static dls_status exact_norm_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = norm_backward, .rows = dls_pass_rows(l, p), .in = l->in,
                  .a = {dx, (void *)dy, dls_pass_value(p, l->weight)}};
    (void)x, (void)y;
    return exact_enqueue(p->ctx, o, "norm backward");
}

static dls_status exact_norm_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                    const void *x)
{
    exact_op o = {.fn = norm_weight, .rows = dls_pass_rows(l, p), .in = l->in,
                  .a = {dls_pass_grad(p, l->weight),
                        l->bias < 0 ? NULL : dls_pass_grad(p, l->bias), (void *)dy,
                        (void *)x}};
    DLS_TRY(exact_enqueue(p->ctx, o, "norm weight"));
    DLS_TRY(dls_pass_added(p, l->weight));
    return l->bias < 0 ? DLS_OK : dls_pass_added(p, l->bias);
}

const dls_layer_kind exact_norm_kind = {
    .name = "exact norm", .forward = exact_norm_forward,
    .backward_input = exact_norm_input, .backward_weight = exact_norm_weight};

/* make relu exact */
/* a: y, x */
static void relu_forward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, fmax(0, exact_get(o, 1, i)));
}

/* a: dx, dy, x */
static void relu_backward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, exact_get(o, 2, i) > 0 ? exact_cut(exact_get(o, 1, i), 4) : 0);
}

static dls_status exact_relu_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = relu_forward, .rows = dls_pass_rows(l, p), .in = l->in,
                  .a = {y, (void *)x}};
    return y ? exact_enqueue(p->ctx, o, "relu") : DLS_OK;
}

static dls_status exact_relu_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = relu_backward, .rows = dls_pass_rows(l, p), .in = l->in,
                  .a = {dx, (void *)dy, (void *)x}};
    (void)y;
    return exact_enqueue(p->ctx, o, "relu backward");
}

const dls_layer_kind exact_relu_kind = {
    .name = "relu", .forward = exact_relu_forward, .backward_input = exact_relu_input,
    .backward_weight = dls_layer_no_weights};

/* make the gate exact */
/* a: y (rows, out), x (rows, 2 out) */
static void gate_forward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->out; i++) {
        size_t g = i / o->out * 2 * o->out + i % o->out, u = g + o->out;
        exact_set(o, 0, i, exact_get(o, 1, g) > 0 ? exact_get(o, 1, u) : 0);
    }
}

/* a: dx (rows, 2 out), dy, x */
static void gate_backward(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->out; i++) {
        size_t g = i / o->out * 2 * o->out + i % o->out, u = g + o->out;
        double dy = exact_cut(exact_get(o, 1, i), 4), open = exact_get(o, 2, g) > 0;
        exact_set(o, 0, g, open * exact_cut(dy * exact_cut(exact_get(o, 2, u), 2), 4));
        exact_set(o, 0, u, open * dy);
    }
}

static dls_status exact_gate_forward(const dls_layer *l, dls_pass *p, void *y,
                                     const void *x)
{
    exact_op o = {.fn = gate_forward, .rows = dls_pass_rows(l, p), .out = l->out,
                  .a = {y, (void *)x}};
    return y ? exact_enqueue(p->ctx, o, "gate") : DLS_OK;
}

static dls_status exact_gate_input(const dls_layer *l, dls_pass *p, void *dx,
                                   const void *dy, const void *x, void *y)
{
    exact_op o = {.fn = gate_backward, .rows = dls_pass_rows(l, p), .out = l->out,
                  .a = {dx, (void *)dy, (void *)x}};
    (void)y;
    return exact_enqueue(p->ctx, o, "gate backward");
}

const dls_layer_kind exact_gate_kind = {
    .name = "gate", .forward = exact_gate_forward, .backward_input = exact_gate_input,
    .backward_weight = dls_layer_no_weights};

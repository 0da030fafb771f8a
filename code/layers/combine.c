/* code/layers/combine.c: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Layers made of layers: the sequence, the residual, and the GPT-2 block built
 * from them. The buffers between inner layers are planned here:
 *
 *   x -> [inner 0] -> place 0 -> [inner 1] -> place 1 -> [inner 2] -> y
 *                     value in the stash, gradient in one of two shared
 *                     buffers (or in its own, when W is deferred)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "layers/internal.h"

/* plan a sequence */
static void sequence_plan(dls_layer *l, dls_plan *plan)
{
    size_t N = (size_t)plan->max_B * plan->max_T, mark = plan->gradients_now;
    size_t *value = l->slots, *grad = l->slots + l->ninner;
    size_t width[2] = {0, 0}, shared[2];
    /* find the widest places */
    for (int i = 0; i + 1 < l->ninner; i++)
        if ((size_t)l->inner[i]->out > width[i % 2])
            width[i % 2] = l->inner[i]->out;
    for (int k = 0; k < 2; k++)
        shared[k] = plan->deferred ? 0 : dls_plan_gradient(plan, N * width[k]);
    for (int i = 0; i + 1 < l->ninner; i++) {
        value[i] = dls_plan_stash(plan, N * l->inner[i]->out);
        l->inner[i]->kept = 1;
        l->inner[i]->place = value[i];
        grad[i] = plan->deferred ? dls_plan_gradient(plan, N * l->inner[i]->out)
                                 : shared[i % 2];
    }
    /* plan the inner layers */
    for (int i = 0; i < l->ninner; i++) {
        size_t before = plan->gradients_now;
        dls_layer_plan(l->inner[i], plan);
        dls_plan_release(plan, before);
    }
    dls_plan_release(plan, mark);
}

/* find a place */
static const void *value_before(const dls_layer *l, const dls_pass *p, int i,
                                const void *x)
{
    return i == 0 ? x : dls_pass_stash(p, l->slots[i - 1]);
}

/* The gradient of inner layer i's output, and so of layer i + 1's input. */
static void *gradient_after(const dls_layer *l, const dls_pass *p, int i)
{
    return dls_pass_gradient(p, l->slots[l->ninner + i]);
}

/* run a sequence */
static dls_status sequence_forward(const dls_layer *l, dls_pass *p, void *y,
                                   const void *x)
{
    for (int i = 0; i < l->ninner; i++) {
        void *out = i + 1 == l->ninner ? y : dls_pass_stash(p, l->slots[i]);
        const dls_layer *inner = l->inner[i];
        DLS_TRY(inner->kind->forward(inner, p, out, value_before(l, p, i, x)));
    }
    return DLS_OK;
}

typedef dls_status (*backward_fn)(const dls_layer *l, dls_pass *p, void *dx,
                                  const void *dy, const void *x);

static dls_status sequence_walk(const dls_layer *l, dls_pass *p, void *dx,
                                const void *dy, const void *x, int fused)
{
    for (int i = l->ninner - 1; i >= 0; i--) {
        const dls_layer *inner = l->inner[i];
        backward_fn step = fused ? dls_layer_backward : inner->kind->backward_input;
        void *to = i == 0 ? dx : gradient_after(l, p, i - 1);
        const void *from = i + 1 == l->ninner ? dy : gradient_after(l, p, i);
        DLS_TRY(step(inner, p, to, from, value_before(l, p, i, x)));
    }
    return DLS_OK;
}

static dls_status sequence_backward_weight(const dls_layer *l, dls_pass *p,
                                           const void *dy, const void *x)
{
    if (!l->deferred)
        return DLS_FAIL(DLS_ERR_STATE, "weight gradients were not planned for later");
    for (int i = l->ninner - 1; i >= 0; i--) {
        const dls_layer *inner = l->inner[i];
        const void *from = i + 1 == l->ninner ? dy : gradient_after(l, p, i);
        DLS_TRY(inner->kind->backward_weight(inner, p, from, value_before(l, p, i, x)));
    }
    return DLS_OK;
}

/* keep the inner layers */
static int keep_inner(dls_build *b, dls_layer *l, dls_layer *const *inner, int n)
{
    l->inner = calloc((size_t)n, sizeof(dls_layer *));
    l->slots = calloc(2 * (size_t)n, sizeof *l->slots);
    if (!l->inner || !l->slots) {
        b->status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d layers", n);
        return 0;
    }
    memcpy(l->inner, inner, (size_t)n * sizeof *inner);
    l->ninner = n;
    return 1;
}

/* make a sequence */
static dls_status sequence_backward(const dls_layer *l, dls_pass *p, void *dx,
                                    const void *dy, const void *x)
{
    return sequence_walk(l, p, dx, dy, x, 1);
}

static dls_status sequence_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                          const void *dy, const void *x)
{
    return sequence_walk(l, p, dx, dy, x, 0);
}

static const dls_layer_kind sequence_kind = {
    .name = "sequence",
    .plan = sequence_plan,
    .forward = sequence_forward,
    .backward_input = sequence_backward_input,
    .backward_weight = sequence_backward_weight,
    .backward = sequence_backward,
};

static void check_widths(dls_build *b, dls_layer *const *inner, int n)
{
    for (int i = 0; b->status == DLS_OK && i + 1 < n; i++)
        if (inner[i]->out != inner[i + 1]->in)
            b->status = DLS_FAIL(DLS_ERR_INPUT,
                                 "%s gives %d columns, %s behind it takes %d",
                                 inner[i]->kind->name, inner[i]->out,
                                 inner[i + 1]->kind->name, inner[i + 1]->in);
}

dls_layer *dls_sequence(dls_build *b, dls_layer *const *inner, int n)
{
    check_widths(b, inner, n);
    if (b->status != DLS_OK)
        return NULL;
    dls_layer *l = dls_layer_make(b, &sequence_kind, inner[0]->in, inner[n - 1]->out);
    if (!l || !keep_inner(b, l, inner, n))
        return NULL;
    return l;
}

/* residual layer */
static void residual_plan(dls_layer *l, dls_plan *plan)
{
    dls_layer_plan(l->inner[0], plan);
}

static dls_status residual_forward(const dls_layer *l, dls_pass *p, void *y,
                                   const void *x)
{
    const dls_layer *f = l->inner[0];
    DLS_TRY(f->kind->forward(f, p, y, x));
    return dls_add(p->ctx, y, y, x, (size_t)p->B * p->T * l->out);
}

static dls_status residual_backward(const dls_layer *l, dls_pass *p, void *dx,
                                    const void *dy, const void *x)
{
    DLS_TRY(dls_layer_backward(l->inner[0], p, dx, dy, x));
    return dls_add(p->ctx, dx, dx, dy, (size_t)p->B * p->T * l->in);
}

static dls_status residual_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                          const void *dy, const void *x)
{
    const dls_layer *f = l->inner[0];
    DLS_TRY(f->kind->backward_input(f, p, dx, dy, x));
    return dls_add(p->ctx, dx, dx, dy, (size_t)p->B * p->T * l->in);
}

static dls_status residual_backward_weight(const dls_layer *l, dls_pass *p,
                                           const void *dy, const void *x)
{
    return l->inner[0]->kind->backward_weight(l->inner[0], p, dy, x);
}

/* make a residual */
static const dls_layer_kind residual_kind = {
    .name = "residual",
    .plan = residual_plan,
    .forward = residual_forward,
    .backward_input = residual_backward_input,
    .backward_weight = residual_backward_weight,
    .backward = residual_backward,
};

dls_layer *dls_residual(dls_build *b, dls_layer *f)
{
    if (b->status != DLS_OK)
        return NULL;
    if (f->in != f->out) {
        b->status = DLS_FAIL(DLS_ERR_INPUT, "a residual around %s needs %d = %d columns",
                             f->kind->name, f->in, f->out);
        return NULL;
    }
    dls_layer *l = dls_layer_make(b, &residual_kind, f->in, f->out);
    return l && keep_inner(b, l, &f, 1) ? l : NULL;
}

/* name a part */
typedef struct part_name { char text[DLS_PARAM_NAME]; } part_name;

static part_name part(dls_build *b, const char *whole, const char *name)
{
    part_name p;
    int n = snprintf(p.text, sizeof p.text, "%s.%s", whole, name);
    if (n >= (int)sizeof p.text && b->status == DLS_OK)
        b->status = DLS_FAIL(DLS_ERR_INPUT, "layer name %s.%s is too long", whole, name);
    return p;
}

/* compose the block */
static dls_layer *self_attention(dls_build *b, const char *name, int C, int heads,
                                 double std, double out_std)
{
    dls_layer *inner[3];
    inner[0] = dls_linear(b, part(b, name, "qkv").text, C, 3 * C, std);
    inner[1] = dls_attention(b, C, heads);
    inner[2] = dls_linear(b, part(b, name, "proj").text, C, C, out_std);
    return dls_sequence(b, inner, 3);
}

static dls_layer *mlp(dls_build *b, const char *name, int C, double std, double out_std)
{
    dls_layer *inner[3];
    inner[0] = dls_linear(b, part(b, name, "fc").text, C, 4 * C, std);
    inner[1] = dls_gelu(b, 4 * C);
    inner[2] = dls_linear(b, part(b, name, "proj").text, 4 * C, C, out_std);
    return dls_sequence(b, inner, 3);
}

dls_layer *dls_block(dls_build *b, const char *name, int C, int heads, double std,
                     double out_std)
{
    dls_layer *inner[2], *halves[2];
    inner[0] = dls_layernorm(b, part(b, name, "ln1").text, C);
    inner[1] = self_attention(b, part(b, name, "attention").text, C, heads, std,
                              out_std);
    halves[0] = dls_residual(b, dls_sequence(b, inner, 2));
    inner[0] = dls_layernorm(b, part(b, name, "ln2").text, C);
    inner[1] = mlp(b, part(b, name, "mlp").text, C, std, out_std);
    halves[1] = dls_residual(b, dls_sequence(b, inner, 2));
    return dls_sequence(b, halves, 2);
}

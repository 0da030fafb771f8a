/* tests/parallel/pointed.c: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Kinds of layers that pass everything on to the real ones and then call the hook. */
#include "pointed.h"

#include <string.h>

#include "exact_model.h"

char pointed_log[1 << 16];
int pointed_count, pointed_fails = -1;
dls_recompute pointed_recompute;

/* wrap a kind of layers */
enum { KINDS = 24 };

static struct kind {
    dls_layer_kind outer;       /* first: a layer's kind points here */
    const dls_layer_kind *inner;
} kinds[KINDS];

static const dls_layer_kind *inner(const dls_layer *l)
{
    return ((const struct kind *)l->kind)->inner;
}

static dls_status point(const dls_pass *p, int backward)
{
    int at = pointed_count++ % ((int)sizeof pointed_log - 1);
    pointed_log[at] = backward ? 'b' : 'f';
    pointed_log[at + 1] = 0;
    if (!backward && at == pointed_fails)
        return DLS_FAIL(DLS_ERR_DEVICE, "point %d fails", at);
    return p->points ? p->points->fn(p->points->self, DLS_POINT_DISPATCH, backward)
                     : DLS_OK;
}

static dls_status forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    DLS_TRY(inner(l)->forward(l, p, y, x));
    return point(p, 0);
}

static dls_status backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                 const void *dy, const void *x, void *y)
{
    DLS_TRY(inner(l)->backward_input(l, p, dx, dy, x, y));
    return point(p, 1);
}

static dls_status backward(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                           const void *x, void *y)
{
    DLS_TRY(inner(l)->backward(l, p, dx, dy, x, y));
    return point(p, 1);
}

/* make a pointed model */
static const dls_layer_kind *wrapped(const dls_layer_kind *kind)
{
    int i = 0;
    while (i < KINDS && kinds[i].inner && kinds[i].inner != kind)
        i++;
    if (i == KINDS)
        return kind;
    kinds[i].inner = kind;
    kinds[i].outer = *kind;
    kinds[i].outer.forward = forward;
    kinds[i].outer.backward_input = backward_input;
    if (kind->backward)
        kinds[i].outer.backward = backward;
    return &kinds[i].outer;
}

static void wrap(dls_transformer *t)
{
    for (dls_layer *l = t->build.all; l; l = l->next)
        l->kind = wrapped(l->kind);
}

dls_status pointed_make(dls_transformer **out, dls_ctx *ctx,
                        const dls_transformer_config *config, int max_B, int max_T)
{
    dls_transformer_config c = *config;
    c.recompute = pointed_recompute;
    DLS_TRY(dls_transformer_create(out, ctx, &c, max_B, max_T));
    wrap(*out);
    return DLS_OK;
}

dls_status pointed_exact_make(dls_transformer **out, dls_ctx *ctx,
                              const dls_transformer_config *config, int max_B, int max_T)
{
    DLS_TRY(exact_model_make(out, ctx, config, max_B, max_T));
    wrap(*out);
    return DLS_OK;
}

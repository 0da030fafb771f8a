/* code/comm/steps_tree.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Binomial trees: broadcast, reduce, gather, scatter. Pure functions; see algorithms.h.
 * Ranks are counted from the root. */
#include "comm/algorithms.h"

/* find the place in the tree */
typedef struct node { int v, bit, children; } node; // bit: v's lowest, or beyond n

static node place_of(const dls_shape *shape)
{
    node x = {.v = (shape->rank - shape->root + shape->world) % shape->world, .bit = 1};
    while (x.bit < shape->world && !(x.v & x.bit))
        x.bit *= 2;
    for (int child = 1; child < x.bit && x.v + child < shape->world; child *= 2)
        x.children++;
    return x;
}

static int real(const dls_shape *shape, int v)
{
    return (v + shape->root) % shape->world;
}

static int parent(const dls_shape *shape, const node *x)
{
    return real(shape, x->v - x->bit);
}

/* How many ranks child i (1 << i) and its descendants are. */
static size_t subtree(const dls_shape *shape, const node *x, int i)
{
    int child = x->v + (1 << i), size = 1 << i;
    return (size_t)(child + size <= shape->world ? size : shape->world - child);
}

/* pass down and up */
int dls_binomial_broadcast(const dls_shape *shape, int k, dls_step *step)
{
    node x = place_of(shape);
    dls_step_clear(step);
    if (x.v > 0 && k-- == 0) {
        dls_step_receive(step, parent(shape, &x), DLS_OUT, 0, shape->count);
        return 1;
    }
    if (k >= x.children)
        return 0;
    int child = x.v + (1 << (x.children - 1 - k));
    dls_step_send(step, real(shape, child), DLS_OUT, 0, shape->count);
    return 1;
}

int dls_binomial_reduce(const dls_shape *shape, int k, dls_step *step)
{
    node x = place_of(shape);
    dls_step_clear(step);
    if (k < x.children) {
        dls_step_combine(step, real(shape, x.v + (1 << k)), DLS_OUT, 0, shape->count,
                         DLS_OUT)->finish = x.v == 0 && k == x.children - 1;
        return 1;
    }
    if (k > x.children || x.v == 0)
        return 0;
    dls_step_send(step, parent(shape, &x), DLS_OUT, 0, shape->count);
    return 1;
}

/* gather up and scatter down */
/* The blocks of v and its descendants are collected in order. */
size_t dls_binomial_scratch(const dls_shape *shape)
{
    node x = place_of(shape);
    int size = x.v + x.bit <= shape->world ? x.bit : shape->world - x.v;
    return (size_t)size * shape->count;
}

/* Between the root's own order and the order from the root on. */
static void turn(const dls_shape *shape, dls_step *step, dls_place to, dls_place from,
                 int shift)
{
    size_t c = shape->count, n = (size_t)shape->world, s = (size_t)shift;
    dls_step_copy(step, to, 0, from, s * c, (n - s) * c);
    dls_step_copy(step, to, (n - s) * c, from, 0, s * c);
}

int dls_binomial_gather(const dls_shape *shape, int k, dls_step *step)
{
    node x = place_of(shape);
    size_t c = shape->count, have = (size_t)1 << k;
    dls_step_clear(step);
    if (k > x.children)
        return 0;
    if (k == 0)
        dls_step_copy(step, DLS_SCRATCH, 0, DLS_IN, 0, c);
    if (k < x.children)
        dls_step_receive(step, real(shape, x.v + (1 << k)), DLS_SCRATCH, have * c,
                         subtree(shape, &x, k) * c);
    else if (x.v > 0)
        dls_step_send(step, parent(shape, &x), DLS_SCRATCH, 0,
                      dls_binomial_scratch(shape));
    else
        turn(shape, step, DLS_OUT, DLS_SCRATCH,
             (shape->world - shape->root) % shape->world);
    return 1;
}

int dls_binomial_scatter(const dls_shape *shape, int k, dls_step *step)
{
    node x = place_of(shape);
    size_t c = shape->count;
    dls_step_clear(step);
    if (x.v > 0 && k-- == 0) {
        dls_step_receive(step, parent(shape, &x), DLS_SCRATCH, 0,
                         dls_binomial_scratch(shape));
        return 1;
    }
    if (k > x.children)
        return 0;
    if (k == 0 && x.v == 0)
        turn(shape, step, DLS_SCRATCH, DLS_IN, shape->root);
    if (k == x.children) {
        dls_step_copy(step, DLS_OUT, 0, DLS_SCRATCH, 0, c);
        return 1;
    }
    int i = x.children - 1 - k;
    dls_step_send(step, real(shape, x.v + (1 << i)), DLS_SCRATCH, ((size_t)1 << i) * c,
                  subtree(shape, &x, i) * c);
    return 1;
}

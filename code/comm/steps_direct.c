/* code/comm/steps_direct.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Algorithms in which any two ranks talk to each other. Pure functions; see
 * algorithms.h. */
#include "comm/algorithms.h"

/* talk to everybody */
/* The peer at distance d = 1, ..., n-1: to send to, or to hear from in the same turn. */
static int ahead(const dls_shape *shape, int d)
{
    return (shape->rank + d) % shape->world;
}

static int behind(const dls_shape *shape, int d)
{
    return (shape->rank + shape->world - d) % shape->world;
}

int dls_direct_all_gather(const dls_shape *shape, int k, dls_step *step)
{
    size_t c = shape->count;
    dls_step_clear(step);
    if (k > 0)
        return 0;
    dls_step_copy(step, DLS_OUT, (size_t)shape->rank * c, DLS_IN, 0, c);
    for (int d = 1; d < shape->world; d++) {
        int from = behind(shape, d);
        dls_step_send(step, ahead(shape, d), DLS_IN, 0, c);
        dls_step_receive(step, from, DLS_OUT, (size_t)from * c, c);
    }
    return 1;
}

/* reduce directly */
int dls_direct_reduce_scatter(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world;
    size_t c = shape->count;
    dls_step_clear(step);
    if (k > 0)
        return 0;
    dls_step_copy(step, DLS_OUT, 0, DLS_IN, (size_t)shape->rank * c, c);
    for (int d = 1; d < n; d++) {
        int to = ahead(shape, d);
        dls_step_send(step, to, DLS_IN, (size_t)to * c, c);
        dls_step_combine(step, behind(shape, d), DLS_OUT, 0, c, DLS_OUT)->finish =
            d == n - 1;
    }
    return 1;
}

int dls_direct_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, gathers = k == 1;
    size_t first, count, own, own_count;
    dls_step_clear(step);
    if (k > 1)
        return 0;
    dls_part(shape->count, n, shape->rank, &own, &own_count);
    for (int d = 1; d < n; d++) {
        int to = ahead(shape, d), from = behind(shape, d);
        dls_part(shape->count, n, gathers ? shape->rank : to, &first, &count);
        dls_step_send(step, to, DLS_OUT, first, count);
        dls_part(shape->count, n, from, &first, &count);
        if (gathers)
            dls_step_receive(step, from, DLS_OUT, first, count);
        else
            dls_step_combine(step, from, DLS_OUT, own, own_count, DLS_OUT)->finish =
                d == n - 1;
    }
    return 1;
}

/* exchange blocks */
/* The block that goes to (side 0) or comes from (side 1) a peer. */
static void block_of(const dls_shape *shape, int side, int peer, size_t *first,
                     size_t *count)
{
    const size_t *amounts = shape->amounts + 2 * side * shape->world;
    *count = shape->count;
    *first = (size_t)peer * shape->count;
    if (!shape->varies)
        return;
    *count = amounts[peer];
    *first = amounts[shape->world + peer];
}

// The rank at distance d, forward or back: so many nodes, and so many places in a node.
static int turned(const dls_shape *shape, int d, int forward)
{
    int n = shape->world, G = shape->per_node > 0 ? shape->per_node : n, N = n / G;
    int i = d / G, j = d % G, node = shape->rank / G, place = shape->rank % G;
    return (node + (forward ? i : N - i)) % N * G + (place + (forward ? j : G - j)) % G;
}

static void exchange(const dls_shape *shape, int d, dls_step *step)
{
    size_t first, count;
    block_of(shape, 0, turned(shape, d, 1), &first, &count);
    dls_step_send(step, turned(shape, d, 1), DLS_IN, first, count);
    block_of(shape, 1, turned(shape, d, 0), &first, &count);
    dls_step_receive(step, turned(shape, d, 0), DLS_OUT, first, count);
}

static void keep_own(const dls_shape *shape, dls_step *step)
{
    size_t from, to, count;
    block_of(shape, 0, shape->rank, &from, &count);
    block_of(shape, 1, shape->rank, &to, &count);
    dls_step_copy(step, DLS_OUT, to, DLS_IN, from, count);
}

int dls_direct_all_to_all(const dls_shape *shape, int k, dls_step *step)
{
    dls_step_clear(step);
    if (k > 0)
        return 0;
    keep_own(shape, step);
    for (int d = 1; d < shape->world; d++)
        exchange(shape, d, step);
    return 1;
}

int dls_pairwise_all_to_all(const dls_shape *shape, int k, dls_step *step)
{
    dls_step_clear(step);
    if (k >= shape->world - 1)
        return 0;
    if (k == 0)
        keep_own(shape, step);
    exchange(shape, k + 1, step);
    return 1;
}

/* talk to the root */
static int blocks_of_the_root(const dls_shape *shape, int gathers, dls_step *step)
{
    size_t c = shape->count, own = (size_t)shape->rank * c;
    dls_step_copy(step, DLS_OUT, gathers ? own : 0, DLS_IN, gathers ? 0 : own, c);
    for (int d = 1; d < shape->world; d++) {
        int peer = ahead(shape, d);
        if (gathers)
            dls_step_receive(step, peer, DLS_OUT, (size_t)peer * c, c);
        else
            dls_step_send(step, peer, DLS_IN, (size_t)peer * c, c);
    }
    return 1;
}

int dls_direct_gather(const dls_shape *shape, int k, dls_step *step)
{
    dls_step_clear(step);
    if (k > 0)
        return 0;
    if (shape->rank == shape->root)
        return blocks_of_the_root(shape, 1, step);
    dls_step_send(step, shape->root, DLS_IN, 0, shape->count);
    return 1;
}

int dls_direct_scatter(const dls_shape *shape, int k, dls_step *step)
{
    dls_step_clear(step);
    if (k > 0)
        return 0;
    if (shape->rank == shape->root)
        return blocks_of_the_root(shape, 0, step);
    dls_step_receive(step, shape->root, DLS_OUT, 0, shape->count);
    return 1;
}

int dls_direct_broadcast(const dls_shape *shape, int k, dls_step *step)
{
    dls_step_clear(step);
    if (k > 0)
        return 0;
    if (shape->rank != shape->root)
        dls_step_receive(step, shape->root, DLS_OUT, 0, shape->count);
    for (int d = 1; d < shape->world && shape->rank == shape->root; d++)
        dls_step_send(step, ahead(shape, d), DLS_OUT, 0, shape->count);
    return 1;
}

int dls_direct_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world;
    dls_step_clear(step);
    if (k > 0)
        return 0;
    if (shape->rank != shape->root)
        dls_step_send(step, shape->root, DLS_OUT, 0, shape->count);
    for (int d = 1; d < n && shape->rank == shape->root; d++)
        dls_step_combine(step, ahead(shape, d), DLS_OUT, 0, shape->count,
                         DLS_OUT)->finish = d == n - 1;
    return 1;
}

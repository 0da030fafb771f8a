/* code/comm/steps_hierarchical.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Reduce-scatter within the nodes, all-reduce across them, all-gather within. A pure
 * function; see algorithms.h. */
#include "comm/algorithms.h"

/* go round a small ring */
typedef struct ring {
    int n, me, base, stride; // member i is rank base + i * stride
    size_t first, count;     // what it works on, in n parts
    int shift;               // in a gather: member i begins with part i + shift
} ring;

static void go_round(const ring *g, int j, int gathers, int finish, dls_step *step)
{
    int n = g->n, sent = (g->me - j + g->shift + 2 * n) % n;
    int received = (sent - 1 + n) % n;
    int right = g->base + (g->me + 1) % n * g->stride;
    int left = g->base + (g->me - 1 + n) % n * g->stride;
    size_t first, count;
    dls_part(g->count, n, sent, &first, &count);
    dls_step_send(step, right, DLS_OUT, g->first + first, count);
    dls_part(g->count, n, received, &first, &count);
    if (gathers)
        dls_step_receive(step, left, DLS_OUT, g->first + first, count);
    else
        dls_step_combine(step, left, DLS_OUT, g->first + first, count,
                         DLS_OUT)->finish = finish;
}

/* go node by node */
int dls_hierarchical_fits(const dls_shape *shape)
{
    return shape->per_node > 1 && shape->per_node < shape->world;
}

int dls_hierarchical_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int m = shape->per_node, nodes = shape->world / m;
    int place = shape->rank % m, node = shape->rank / m, mine = (place + 1) % m;
    ring within = {.n = m, .me = place, .base = node * m, .stride = 1,
                   .count = shape->count};
    ring across = {.n = nodes, .me = node, .base = place, .stride = m};
    dls_part(shape->count, m, mine, &across.first, &across.count);
    dls_step_clear(step);
    /* reduce within and across */
    if (k < m - 1) {
        go_round(&within, k, 0, 0, step);
        return 1;
    }
    k -= m - 1;
    if (k < nodes - 1) {
        go_round(&across, k, 0, k == nodes - 2, step);
        return 1;
    }
    k -= nodes - 1;
    /* gather across and within */
    across.shift = within.shift = 1;
    if (k < nodes - 1)
        go_round(&across, k, 1, 0, step);
    else if (k < nodes - 1 + m - 1)
        go_round(&within, k - (nodes - 1), 1, 0, step);
    else
        return 0;
    return 1;
}

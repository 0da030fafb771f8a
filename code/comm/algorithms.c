/* code/comm/algorithms.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The ring, the chain, and plain messages. Pure functions; see algorithms.h. */
#include "comm/algorithms.h"

/* cut into parts */
void dls_part(size_t count, int n, int i, size_t *first, size_t *size)
{
    size_t each = count / (size_t)n, longer = count % (size_t)n, index = (size_t)i;
    *first = index * each + (index < longer ? index : longer);
    *size = each + (index < longer);
}

/* step around the ring */
int dls_ring_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, half = n - 1;
    if (k >= 2 * half)
        return 0;
    int gathers = k >= half;
    int j = gathers ? k - half : k;
    int sent = (shape->rank - j + gathers + n) % n;
    int received = (sent - 1 + n) % n;
    *step = (dls_step){.sends = 1, .receives = 1, .combine = !gathers,
                       .finish = k == half - 1};
    dls_part(shape->count, n, sent, &step->send_first, &step->send_count);
    dls_part(shape->count, n, received, &step->recv_first, &step->recv_count);
    return 1;
}

/* step along the chain */
int dls_chain_broadcast(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, distance = (shape->rank - shape->root + n) % n;
    size_t blocks = shape->count ? (shape->count + shape->block - 1) / shape->block : 1;
    int sent = distance == 0 ? k : k - 1; // the root has every block from the start
    int last = distance == n - 1;
    *step = (dls_step){0};
    if (k >= (int)blocks + (distance > 0 && !last))
        return 0;
    if (distance > 0 && k < (int)blocks) {
        step->receives = 1;
        dls_part(shape->count, (int)blocks, k, &step->recv_first, &step->recv_count);
    }
    if (!last && sent >= 0) {
        step->sends = 1;
        dls_part(shape->count, (int)blocks, sent, &step->send_first, &step->send_count);
    }
    return 1;
}

/* step of a message */
int dls_send_step(const dls_shape *shape, int k, dls_step *step)
{
    *step = (dls_step){.sends = 1, .send_count = shape->count};
    return k == 0;
}

int dls_recv_step(const dls_shape *shape, int k, dls_step *step)
{
    *step = (dls_step){.receives = 1, .recv_count = shape->count};
    return k == 0;
}

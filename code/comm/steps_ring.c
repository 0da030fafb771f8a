/* code/comm/steps_ring.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The ring and the chain. Pure functions; see algorithms.h. */
#include "comm/algorithms.h"

/* cut into parts */
void dls_part(size_t count, int n, int i, size_t *first, size_t *size)
{
    size_t each = count / (size_t)n, longer = count % (size_t)n, index = (size_t)i;
    *first = index * each + (index < longer ? index : longer);
    *size = each + (index < longer);
}

/* write down a step */
void dls_step_clear(dls_step *step)
{
    step->copies = step->sends = step->receives = 0;
}

void dls_step_copy(dls_step *step, dls_place to, size_t to_first, dls_place from,
                   size_t from_first, size_t count)
{
    step->copy[step->copies++] = (dls_copy){.to = (uint8_t)to, .from = (uint8_t)from,
        .to_first = to_first, .from_first = from_first, .count = count};
}

void dls_step_send(dls_step *step, int peer, dls_place place, size_t first, size_t count)
{
    step->send[step->sends++] = (dls_move){.peer = peer, .place = (uint8_t)place,
                                           .first = first, .count = count};
}

dls_move *dls_step_receive(dls_step *step, int peer, dls_place place, size_t first,
                           size_t count)
{
    dls_move *move = &step->receive[step->receives++];
    *move = (dls_move){.peer = peer, .place = (uint8_t)place, .first = first,
                       .count = count};
    return move;
}

dls_move *dls_step_combine(dls_step *step, int peer, dls_place place, size_t first,
                           size_t count, dls_place own_place)
{
    dls_move *move = dls_step_receive(step, peer, place, first, count);
    move->how = DLS_OWN_FIRST;
    move->own_place = (uint8_t)own_place;
    move->own_first = first;
    return move;
}

/* step around the ring */
int dls_ring_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, half = n - 1, r = shape->rank;
    int gathers = k >= half, j = gathers ? k - half : k;
    int sent = (r - j + gathers + n) % n, received = (sent - 1 + n) % n;
    size_t first, count;
    dls_step_clear(step);
    if (k >= 2 * half)
        return 0;
    dls_part(shape->count, n, sent, &first, &count);
    dls_step_send(step, (r + 1) % n, DLS_OUT, first, count);
    dls_part(shape->count, n, received, &first, &count);
    if (gathers)
        dls_step_receive(step, (r + n - 1) % n, DLS_OUT, first, count);
    else
        dls_step_combine(step, (r + n - 1) % n, DLS_OUT, first, count, DLS_OUT)->finish =
            k == half - 1;
    return 1;
}

size_t dls_ring_scratch(const dls_shape *shape)
{
    return shape->world > 2 ? 2 * shape->count : 0;
}

int dls_ring_reduce_scatter(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, r = shape->rank, left = (r + n - 1) % n;
    size_t c = shape->count, sent = (size_t)((r - k - 1 + n) % n) * c;
    size_t received = (size_t)((r - k - 2 + 2 * n) % n) * c;
    dls_step_clear(step);
    if (k >= n - 1)
        return 0;
    if (k == 0)
        dls_step_send(step, (r + 1) % n, DLS_IN, sent, c);
    else
        dls_step_send(step, (r + 1) % n, DLS_SCRATCH, (size_t)((k - 1) % 2) * c, c);
    dls_move *in = dls_step_combine(step, left, DLS_SCRATCH, (size_t)(k % 2) * c, c,
                                    DLS_IN);
    in->own_first = received;
    if (k < n - 2)
        return 1;
    in->place = DLS_OUT;
    in->first = 0;
    in->finish = 1;
    return 1;
}

int dls_ring_all_gather(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, r = shape->rank;
    size_t c = shape->count, sent = (size_t)((r - k + n) % n) * c;
    dls_step_clear(step);
    if (k >= n - 1)
        return 0;
    if (k == 0)
        dls_step_copy(step, DLS_OUT, (size_t)r * c, DLS_IN, 0, c);
    dls_step_send(step, (r + 1) % n, DLS_OUT, sent, c);
    dls_step_receive(step, (r + n - 1) % n, DLS_OUT, (size_t)((r - k - 1 + n) % n) * c,
                     c);
    return 1;
}

/* step along the chain */
static size_t blocks_of(const dls_shape *shape)
{
    return shape->count ? (shape->count + shape->block - 1) / shape->block : 1;
}

int dls_chain_broadcast(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, distance = (shape->rank - shape->root + n) % n;
    int blocks = (int)blocks_of(shape), last = distance == n - 1;
    int sent = distance == 0 ? k : k - 1; // the root has every block from the start
    size_t first, count;
    dls_step_clear(step);
    if (k >= blocks + (distance > 0 && !last))
        return 0;
    if (!last && sent >= 0) {
        dls_part(shape->count, blocks, sent, &first, &count);
        dls_step_send(step, (shape->rank + 1) % n, DLS_OUT, first, count);
    }
    if (distance > 0 && k < blocks) {
        dls_part(shape->count, blocks, k, &first, &count);
        dls_step_receive(step, (shape->rank + n - 1) % n, DLS_OUT, first, count);
    }
    return 1;
}

int dls_chain_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, distance = (shape->rank - shape->root + n) % n;
    int blocks = (int)blocks_of(shape), farthest = distance == n - 1;
    int sent = farthest ? k : k - 1;
    size_t first, count;
    dls_step_clear(step);
    if (k >= blocks + (distance > 0 && !farthest))
        return 0;
    if (distance > 0 && sent >= 0) {
        dls_part(shape->count, blocks, sent, &first, &count);
        dls_step_send(step, (shape->rank + n - 1) % n, DLS_OUT, first, count);
    }
    if (!farthest && k < blocks) {
        dls_part(shape->count, blocks, k, &first, &count);
        dls_step_combine(step, (shape->rank + 1) % n, DLS_OUT, first, count,
                         DLS_OUT)->finish = distance == 0;
    }
    return 1;
}

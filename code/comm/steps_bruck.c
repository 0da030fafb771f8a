/* code/comm/steps_bruck.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Bruck's all-gather and all-to-all: few steps for any number of ranks. Pure functions;
 * see algorithms.h. */
#include "comm/algorithms.h"

/* gather as bruck */
size_t dls_bruck_gather_scratch(const dls_shape *shape)
{
    return shape->count * (size_t)shape->world;
}

/* to[j] := from[(j + shift) % n] for all blocks j. */
static void turn(const dls_shape *shape, dls_step *step, dls_place to, dls_place from,
                 int shift)
{
    size_t c = shape->count, n = (size_t)shape->world, s = (size_t)shift;
    dls_step_copy(step, to, 0, from, s * c, (n - s) * c);
    dls_step_copy(step, to, (n - s) * c, from, 0, s * c);
}

int dls_bruck_all_gather(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, r = shape->rank, have = 1 << k, missing = n - have;
    size_t c = shape->count;
    dls_step_clear(step);
    if (k > 0 && 1 << (k - 1) >= n)
        return 0;
    if (missing <= 0) {
        turn(shape, step, DLS_OUT, DLS_SCRATCH, (n - r) % n);
        return 1;
    }
    if (k == 0)
        dls_step_copy(step, DLS_SCRATCH, 0, DLS_IN, 0, c);
    size_t moved = (size_t)(missing < have ? missing : have) * c;
    dls_step_send(step, (r - have + n) % n, DLS_SCRATCH, 0, moved);
    dls_step_receive(step, (r + have) % n, DLS_SCRATCH, (size_t)have * c, moved);
    return 1;
}

/* exchange as bruck */
/* Blocks of scratch memory: all of them by distance, then those sent, those received. */
size_t dls_bruck_exchange_scratch(const dls_shape *shape)
{
    size_t n = (size_t)shape->world;
    return (n + 2 * ((n + 1) / 2)) * shape->count;
}

/* Copies the blocks whose distance has this bit: to the packed ones at `packed`, or
 * back. Returns how many there are. */
static size_t pack(const dls_shape *shape, dls_step *step, int bit, size_t packed,
                   int back)
{
    size_t c = shape->count, blocks = 0;
    for (int first = bit; first < shape->world; first += 2 * bit) {
        int run = first + bit <= shape->world ? bit : shape->world - first;
        size_t loose = (size_t)first * c, tight = (packed + blocks) * c;
        dls_step_copy(step, DLS_SCRATCH, back ? loose : tight, DLS_SCRATCH,
                      back ? tight : loose, (size_t)run * c);
        blocks += (size_t)run;
    }
    return blocks;
}

int dls_bruck_all_to_all(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, r = shape->rank, bit = 1 << k;
    size_t c = shape->count, sent = (size_t)n, received = sent + (sent + 1) / 2;
    dls_step_clear(step);
    if (k > 0 && bit / 2 >= n)
        return 0;
    if (k == 0)
        turn(shape, step, DLS_SCRATCH, DLS_IN, r);
    else
        pack(shape, step, bit / 2, received, 1);
    if (bit >= n) {
        for (int j = 0; j < n; j++)
            dls_step_copy(step, DLS_OUT, (size_t)((r - j + n) % n) * c, DLS_SCRATCH,
                          (size_t)j * c, c);
        return 1;
    }
    size_t blocks = pack(shape, step, bit, sent, 0);
    dls_step_send(step, (r + bit) % n, DLS_SCRATCH, sent * c, blocks * c);
    dls_step_receive(step, (r - bit + n) % n, DLS_SCRATCH, received * c, blocks * c);
    return 1;
}

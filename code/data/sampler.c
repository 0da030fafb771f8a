/* code/data/sampler.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Windows from positions: a keyed permutation of each epoch, one element at a time. */
#include "data/sampler.h"

#include "base/rng.h"

enum { ROUNDS = 6, LEAST_BITS = 4 };
static const uint64_t STREAM = 0x73616d706c6572; // "sampler": its own use of a seed

/* permute without a list */
/* The round function: 32 random bits for half a number. */
static uint32_t scramble(uint64_t seed, uint64_t epoch, uint32_t round, uint32_t half)
{
    uint32_t key[2] = {(uint32_t)(seed ^ STREAM), (uint32_t)((seed ^ STREAM) >> 32)};
    uint32_t counter[4] = {half, round, (uint32_t)epoch, (uint32_t)(epoch >> 32)};
    uint32_t out[4];
    dls_philox(key, counter, out);
    return out[0];
}

/* The image of i < n under the permutation of 0 ... n-1 chosen by seed and epoch. */
static uint64_t permute(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i)
{
    int bits = LEAST_BITS;
    while (bits < 32 && (uint64_t)1 << (2 * bits) < n)
        bits++;
    uint32_t mask = (uint32_t)(((uint64_t)1 << bits) - 1);
    do {
        /* encrypt once */
        uint32_t x = (uint32_t)(i >> bits) & mask, y = (uint32_t)i & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint32_t next = x ^ (scramble(seed, epoch, round, y) & mask);
            x = y;
            y = next;
        }
        i = (uint64_t)x << bits | y;
    } while (i >= n);
    return i;
}

/* check the sampler */
dls_status dls_sampler_init(dls_sampler *s, uint64_t seed, uint64_t begin, uint64_t end,
                            int length, int batch)
{
    if (length < 1 || batch < 1)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "windows of %d bytes, %d per step: expected at least "
                        "1 of each", length, batch);
    if (end < begin || end - begin < (uint64_t)length + 1)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "%llu bytes of text: expected at least %d, one window "
                        "and its last target", (unsigned long long)(end - begin),
                        length + 1);
    *s = (dls_sampler){.seed = seed, .begin = begin, .end = end, .length = length,
                       .batch = batch};
    s->windows = (end - begin - 1) / (uint64_t)length;
    return DLS_OK;
}

void dls_sampler_share(const dls_sampler *s, int rank, int world, int *first, int *n)
{
    int64_t G = s->batch;
    *first = (int)(G * rank / world);
    *n = (int)(G * (rank + 1) / world) - *first;
}

/* find the windows of a step */
static uint64_t offset_of(const dls_sampler *s, uint64_t position)
{
    uint64_t epoch = position / s->windows, place = position % s->windows;
    uint64_t rest = (s->end - s->begin - 1) % (uint64_t)s->length;
    uint64_t shift = dls_rng_u32(s->seed, STREAM, epoch) % (rest + 1);
    uint64_t window = permute(s->seed, epoch, s->windows, place);
    return s->begin + shift + window * (uint64_t)s->length;
}

dls_status dls_sampler_windows(const dls_sampler *s, int64_t step, int first, int n,
                               uint64_t *offsets)
{
    if (step < 0 || first < 0 || n < 0 || n > s->batch - first)
        return DLS_FAIL(DLS_ERR_INPUT, "windows %d to %d of step %lld: a step has %d",
                        first, first + n - 1, (long long)step, s->batch);
    uint64_t position = (uint64_t)step * (uint64_t)s->batch + (uint64_t)first;
    for (int i = 0; i < n; i++)
        offsets[i] = offset_of(s, position + (uint64_t)i);
    return DLS_OK;
}

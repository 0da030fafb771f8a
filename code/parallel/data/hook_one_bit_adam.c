/* code/parallel/data/hook_one_bit_adam.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* 1-bit Adam: Tang and others 2021, algorithm 1. Plain sums during the warm-up; then the
 * momentum, in signs, with an error on both sides of the exchange. The optimizer is told
 * by dls_hook_gives_momentum to take what it finds in the gradients as its momentum. */
#include "parallel/data/hooks.h"

#include <stdlib.h>

#include "kernels/compress.h"
#include "kernels/elementwise.h"

/* keep the errors of signs */
typedef struct one_bit_state {
    size_t *first;         // (nbuckets) where a bucket's segment begins in h->owned
    int *mine, *theirs, *all; // words: by peer, from each peer, of everybody
    int *sums;
} one_bit_state;

/* Chunks of a segment of this bucket, one of `world`. */
static size_t segment(const dls_hook *h, int bucket, int world)
{
    size_t n = (size_t)world;
    size_t chunks = (h->buckets[bucket].count + DLS_CHUNK - 1) / DLS_CHUNK;
    return (chunks + n - 1) / n;
}

static dls_status prepare_one_bit(dls_hook *h)
{
    one_bit_state *s = h->state;
    size_t size = dls_dtype_size(h->wire->dtype), most = 0, owned = 0;
    size_t n = (size_t)dls_comm_size(h->comm);
    s->first = calloc((size_t)h->nbuckets, sizeof *s->first);
    if (!s->first)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for 1-bit Adam");
    for (int b = 0; b < h->nbuckets; b++) {
        size_t chunks = segment(h, b, dls_comm_size(h->comm));
        s->first[b] = owned;
        owned += chunks * DLS_CHUNK;
        most = chunks > most ? chunks : most;
    }
    size_t words = most * DLS_CHUNK_WORDS * sizeof(int);
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    DLS_TRY(dls_hook_buffer(h, (void **)&h->error, elements * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&h->owned, owned * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->mine, n * words));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->theirs, n * words));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->sums, words));
    return dls_hook_buffer(h, (void **)&s->all, n * words);
}

static void release_one_bit(dls_hook *h)
{
    one_bit_state *s = h->state;
    void *device[] = {s->mine, s->theirs, s->sums, s->all};
    for (int i = 0; i < 4; i++)
        dls_device_free(device[i]);
    free(s->first);
}

/* sum the momentum in signs */
/* error += this rank's contribution to the momentum. */
static dls_status contribute(dls_hook *h, const dls_hook_bucket *b, void *error)
{
    double beta = h->options.beta1, n = dls_comm_size(h->comm);
    const char *momentum = h->options.momentum;
    momentum += b->first * dls_dtype_size(h->wire->dtype);
    DLS_TRY(dls_add_scaled(h->wire, error, beta / n, momentum, b->count));
    return dls_add_scaled(h->wire, error, 1 - beta, b->grads, b->count);
}

/* The elements of the segment that a rank owns: all of them, or what is there. */
static size_t owned_elements(const dls_hook *h, int bucket, int rank, int world)
{
    size_t whole = segment(h, bucket, world) * DLS_CHUNK;
    size_t count = h->buckets[bucket].count, first = (size_t)rank * whole;
    return count <= first ? 0 : count - first < whole ? count - first : whole;
}

static dls_status exchange_signs(dls_hook *h, int bucket, void *error)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    one_bit_state *s = h->state;
    int n = dls_comm_size(h->comm);
    size_t chunks = segment(h, bucket, n), words = chunks * DLS_CHUNK_WORDS;
    size_t mine = owned_elements(h, bucket, dls_comm_rank(h->comm), n);
    void *owned = h->owned + s->first[bucket] * dls_dtype_size(h->wire->dtype);
    DLS_TRY(dls_signs_pack(h->wire, s->mine, error, b->count, (size_t)n * chunks));
    DLS_TRY(dls_comm_all_to_all(h->comm, s->mine, s->theirs, words, DLS_COMM_I32,
                                h->wire->stream));
    DLS_TRY(dls_signs_sum(h->wire, owned, s->theirs, n, mine, chunks, 1));
    DLS_TRY(dls_signs_pack(h->wire, s->sums, owned, mine, chunks));
    DLS_TRY(dls_comm_all_gather(h->comm, s->sums, s->all, words, DLS_COMM_I32,
                                h->wire->stream));
    return dls_signs_sum(h->wire, b->grads, s->all, 1, b->count, (size_t)n * chunks, 0);
}

static dls_status one_bit_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    size_t size = dls_dtype_size(h->wire->dtype);
    char *error = h->error + b->first * size;
    if (dls_hook_warms_up(h))
        return dls_comm_size(h->comm) == 1 ? DLS_OK : dls_hook_none.sum(h, bucket);
    DLS_TRY(contribute(h, b, error));
    if (dls_comm_size(h->comm) > 1)
        return exchange_signs(h, bucket, error);
    DLS_CUDA(cudaMemcpyAsync(b->grads, error, b->count * size, cudaMemcpyDeviceToDevice,
                             h->wire->stream));
    DLS_CUDA(cudaMemsetAsync(error, 0, b->count * size, h->wire->stream));
    return DLS_OK;
}

static void one_bit_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    if (dls_hook_warms_up(h))
        return dls_hook_none.calls(h, bucket, told);
    if (bucket < 0)
        return;
    size_t words = segment(h, bucket, dls_comm_size(h->comm)) * DLS_CHUNK_WORDS;
    dls_hook_tell(told, "all_to_all", words, DLS_COMM_I32);
    dls_hook_tell(told, "all_gather", words, DLS_COMM_I32);
}

/* keep the state of one bit adam */
static size_t owned_bytes(const dls_hook *h, int world)
{
    size_t chunks = 0;
    for (int b = 0; b < h->nbuckets; b++)
        chunks += segment(h, b, world);
    return chunks * DLS_CHUNK * dls_dtype_size(h->wire->dtype);
}

static int one_bit_kept(const dls_hook *h, int world, dls_hook_kept *kept)
{
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    kept[0] = (dls_hook_kept){h->error, elements * dls_dtype_size(h->wire->dtype)};
    kept[1] = (dls_hook_kept){h->owned, owned_bytes(h, world)};
    return 2;
}

static void one_bit_join(const dls_hook *h, char *joined, const char *const *states,
                         int n)
{
    size_t size = dls_dtype_size(h->wire->dtype);
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    dls_hook_join_errors(h, joined, states, n);
    for (int j = dls_comm_rank(h->comm); j < n; j += dls_comm_size(h->comm)) {
        const char *owned = states[j] + elements * size;
        for (int b = 0; b < h->nbuckets; b++) {
            size_t first = (size_t)j * segment(h, b, n) * DLS_CHUNK;
            dls_hook_add(h, joined + (h->buckets[b].first + first) * size, owned,
                         owned_elements(h, b, j, n));
            owned += segment(h, b, n) * DLS_CHUNK * size;
        }
    }
}

const dls_hook_kind dls_hook_one_bit_adam = {
    .name = "one_bit_adam", .state_bytes = sizeof(one_bit_state),
    .prepare = prepare_one_bit, .sum = one_bit_sum, .calls = one_bit_calls,
    .release = release_one_bit, .kept = one_bit_kept, .join = one_bit_join};

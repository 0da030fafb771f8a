/* code/parallel/data/hook_top_k.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Top-k with error feedback: each rank's largest entries, gathered and added up.
 * Lin and others 2018, "Deep gradient compression"; Stich and others 2018. */
#include "parallel/data/hooks.h"

#include <math.h>

#include "kernels/compress.h"
#include "kernels/elementwise.h"

/* sum the largest entries */
typedef struct top_k_state {
    void *values, *all_values;
    int *indices, *all_indices;
} top_k_state;

static size_t largest_bucket(const dls_hook *h)
{
    size_t most = 0;
    for (int b = 0; b < h->nbuckets; b++)
        most = h->buckets[b].count > most ? h->buckets[b].count : most;
    return most;
}

/* The share of this step: from everything to `keep`, by the same factor each step. */
static double share_at(const dls_hook *h, int64_t step)
{
    int64_t n = step - h->options.warmup + 1, ramp = h->options.ramp;
    return n < 1 || n >= ramp ? h->options.keep
                              : pow(h->options.keep, (double)n / (double)ramp);
}

static double share(const dls_hook *h)
{
    return share_at(h, h->step);
}

static dls_status prepare_top_k(dls_hook *h)
{
    top_k_state *s = h->state;
    size_t size = dls_dtype_size(h->wire->dtype), n = (size_t)dls_comm_size(h->comm);
    size_t m = dls_top_k_count(largest_bucket(h), share_at(h, h->options.warmup));
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    DLS_TRY(dls_hook_buffer(h, (void **)&h->error, elements * size));
    DLS_TRY(dls_hook_buffer(h, &s->values, m * size));
    DLS_TRY(dls_hook_buffer(h, &s->all_values, n * m * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->indices, m * sizeof(int)));
    return dls_hook_buffer(h, (void **)&s->all_indices, n * m * sizeof(int));
}

static void release_top_k(dls_hook *h)
{
    top_k_state *s = h->state;
    void *all[] = {s->values, s->all_values, s->indices, s->all_indices};
    for (int i = 0; i < 4; i++)
        dls_device_free(all[i]);
}

static dls_status top_k_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    top_k_state *s = h->state;
    cudaStream_t stream = h->wire->stream;
    double keep = share(h);
    size_t m = dls_top_k_count(b->count, keep);
    void *x = h->error + b->first * dls_dtype_size(h->wire->dtype);
    if (dls_hook_warms_up(h))
        return dls_hook_none.sum(h, bucket);
    DLS_TRY(dls_add(h->wire, x, x, b->grads, b->count));
    DLS_TRY(dls_top_k(h->wire, s->values, s->indices, x, b->count, keep));
    DLS_TRY(dls_comm_all_gather(h->comm, s->values, s->all_values, m, h->wire->dtype,
                                stream));
    DLS_TRY(dls_comm_all_gather(h->comm, s->indices, s->all_indices, m, DLS_COMM_I32,
                                stream));
    return dls_top_k_sum(h->wire, b->grads, s->all_values, s->all_indices,
                         dls_comm_size(h->comm), b->count, keep);
}

static void top_k_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    if (dls_hook_warms_up(h))
        return dls_hook_none.calls(h, bucket, told);
    if (bucket < 0)
        return;
    size_t m = dls_top_k_count(h->buckets[bucket].count, share(h));
    dls_hook_tell(told, "all_gather", m, (int)h->wire->dtype);
    dls_hook_tell(told, "all_gather", m, DLS_COMM_I32);
}

/* keep the state of top k */
static int top_k_kept(const dls_hook *h, int world, dls_hook_kept *kept)
{
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    (void)world;
    kept[0] = (dls_hook_kept){h->error, elements * dls_dtype_size(h->wire->dtype)};
    return 1;
}

const dls_hook_kind dls_hook_top_k = {
    .name = "top_k", .state_bytes = sizeof(top_k_state), .prepare = prepare_top_k,
    .sum = top_k_sum, .calls = top_k_calls, .release = release_top_k, .kept = top_k_kept,
    .join = dls_hook_join_errors};

/* code/parallel/data/hook_local_sgd.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Local SGD: no exchange of gradients, a mean of the parameters every `period` steps.
 * Stich 2019; with a warm-up, Lin and others 2020, "Don't use large mini-batches". */
#include "parallel/data/hooks.h"

#include <string.h>

#include "kernels/elementwise.h"
#include "kernels/wire.h"

/* train locally */
/* 1 when `step` steps being over, the parameters are averaged. */
static int is_due(const dls_hook *h, int64_t step)
{
    int64_t local = step - h->options.warmup;
    return local > 0 && local % h->options.period == 0;
}

static dls_status local_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    if (dls_hook_warms_up(h))
        return dls_hook_none.sum(h, bucket);
    return dls_scale(h->wire, b->grads, h->options.local, b->count);
}

static dls_status average(dls_hook *h, dls_ctx *ctx, void *values, void *master)
{
    size_t n = h->buckets[0].first + h->buckets[0].count;
    dls_ctx wide = dls_ctx_accumulator(ctx);
    if (!is_due(h, h->step))
        return DLS_OK;
    DLS_TRY(dls_comm_all_reduce(h->comm, master ? master : values, n, wide.dtype, DLS_AVG,
                                ctx->stream));
    return master ? dls_to_wire(&wide, values, DLS_WIRE_BF16, master, n, 1) : DLS_OK;
}

static void local_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    size_t n = h->buckets[0].first + h->buckets[0].count;
    if (bucket >= 0 && dls_hook_warms_up(h))
        dls_hook_none.calls(h, bucket, told);
    if (bucket < 0 && is_due(h, h->step + 1))
        dls_hook_tell(told, "all_reduce", n, (int)h->wire->dtype);
}

/* keep the state of local sgd */
static int local_kept(const dls_hook *h, int world, dls_hook_kept *kept)
{
    size_t bytes = (h->buckets[0].first + h->buckets[0].count)
        * dls_dtype_size(h->wire->dtype);
    (void)world;
    kept[0] = (dls_hook_kept){h->options.momentum, bytes};
    kept[1] = (dls_hook_kept){h->options.variance, bytes};
    return h->options.momentum && h->options.variance ? 2 : 0;
}

static void local_join(const dls_hook *h, char *joined, const char *const *states, int n)
{
    memcpy(joined, states[dls_comm_rank(h->comm) % n], dls_hook_state_bytes(h));
}

const dls_hook_kind dls_hook_local_sgd = {
    .name = "local_sgd", .sum = local_sum, .updated = average,
    .calls = local_calls, .kept = local_kept, .join = local_join};

/* code/parallel/data/ddp.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Buckets, events and two streams. The plan is in plan.c, the wire in comm/.
 *
 * Per bucket: an event on the compute stream when its last gradient is enqueued, for
 * which the communication stream waits; events around its all-reduce, for the timing. */
#include "parallel/data/ddp.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/elementwise.h"
#include "parallel/data/plan.h"
#include "parallel/data/rows.h"
#include "vgpu/gpu.h"

/* define the state of ddp */
typedef struct bucket_state {
    cudaEvent_t ready, begin, end;
    int missing; // gradients not yet reported in this step
} bucket_state;

struct dls_ddp {
    dls_ctx *ctx;
    dls_comm *comm;
    dls_ddp_options options;
    const dls_param *params;
    char *grads;
    dls_dtype dtype;              // of the gradients
    int nparams, nbuckets;
    int next;                     // how many buckets of the step are sent
    int finished;                 // a step has been finished
    dls_bucket *buckets;          // (nbuckets)
    bucket_state *states;         // (nbuckets)
    int *order;                   // (nbuckets) in which they are sent
    int *bucket_of;               // (nparams)
    char *reported;               // (nparams)
    dls_ctx wire;                 // communication: a stream, the gradients' type
    cudaEvent_t before, after;    // around the wait of the compute stream
    dls_hook_bucket *told;        // (nbuckets) the buckets as the hook sees them
    dls_hook *hook;
    /* keep what hard cases need */
    int held;                     // 1: no_sync
    int completed, *arrived;      // (nbuckets) buckets in the order of their completion
    char *used;                   // (nparams) in this step, on this rank
    int64_t examples, total;      // of this step on this rank; of the last, on all
    struct { void *data; size_t count; int dtype; } shared[8];
    int nshared;
    char *arrived_used;           // (nparams) in the last step, on any rank
    dls_rows *rows;               // of options.rows_of; NULL: none
};

/* agree on the plan */
typedef struct plan_summary { uint64_t hash, params, elements, buckets; } plan_summary;

static dls_status agree(const dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    plan_summary mine = {
        dls_bucket_hash(d->params, d->nparams, d->dtype, d->buckets, d->nbuckets,
                        d->order),
        (uint64_t)d->nparams, last->offset + last->count, (uint64_t)d->nbuckets};
    int world = dls_comm_size(d->comm);
    plan_summary all[world];
    DLS_TRY(dls_comm_all_gather_host(d->comm, &mine, sizeof mine, all));
    for (int r = 1; r < world; r++)
        if (all[r].hash != all[0].hash)
            return DLS_FAIL(DLS_ERR_COMM,
                            "the ranks have different models or bucket sizes: "
                            "rank 0 has %llu parameters (%llu elements) in %llu buckets, "
                            "rank %d has %llu (%llu) in %llu, with other names, places "
                            "or types", (unsigned long long)all[0].params,
                            (unsigned long long)all[0].elements,
                            (unsigned long long)all[0].buckets, r,
                            (unsigned long long)all[r].params,
                            (unsigned long long)all[r].elements,
                            (unsigned long long)all[r].buckets);
    return DLS_OK;
}

/* prepare streams and events */
static void begin_step(dls_ddp *d)
{
    d->next = d->completed = 0;
    for (int b = 0; b < d->nbuckets; b++)
        d->states[b].missing = d->buckets[b].params;
    memset(d->reported, 0, (size_t)d->nparams);
}

static dls_status make_events(dls_ddp *d)
{
    DLS_TRY(dls_ctx_create(&d->wire, d->ctx->device, d->dtype));
    DLS_CUDA(dls_gpu_name_stream(d->wire.stream, "gradients"));
    DLS_CUDA(cudaEventCreate(&d->before));
    DLS_CUDA(cudaEventCreate(&d->after));
    for (int b = 0; b < d->nbuckets; b++) {
        unsigned untimed = cudaEventDisableTiming;
        DLS_CUDA(cudaEventCreateWithFlags(&d->states[b].ready, untimed));
        DLS_CUDA(cudaEventCreate(&d->states[b].begin));
        DLS_CUDA(cudaEventCreate(&d->states[b].end));
    }
    return DLS_OK;
}

static void free_events(dls_ddp *d)
{
    for (int b = 0; d->states && b < d->nbuckets; b++) {
        cudaEvent_t events[] = {d->states[b].ready, d->states[b].begin, d->states[b].end};
        for (int i = 0; i < 3; i++)
            if (events[i])
                cudaEventDestroy(events[i]);
    }
    if (d->before)
        cudaEventDestroy(d->before);
    if (d->after)
        cudaEventDestroy(d->after);
    dls_ctx_destroy(&d->wire);
}

/* cut off the rows */
/* Makes a bucket of its own out of the first parameter of the last bucket. */
static void cut_off(dls_ddp *d)
{
    dls_bucket *last = &d->buckets[d->nbuckets - 1];
    const dls_param *p = &d->params[last->param];
    if (last->params == 1)
        return;
    d->buckets[d->nbuckets++] = (dls_bucket){last->first, p->count, last->param, 1};
    last->count -= p[1].offset - last->first;
    last->first = p[1].offset;
    last->param++;
    last->params--;
}

/* Reverses the last two buckets. */
static void swap_last(dls_ddp *d)
{
    dls_bucket *b = &d->buckets[d->nbuckets - 2], other = b[0];
    b[0] = b[1];
    b[1] = other;
}

static dls_status make_rows_bucket(dls_ddp *d)
{
    const dls_param *p = d->params;
    if (d->options.rows_of == 0)
        return DLS_OK;
    if (d->options.rows_of != 1 || p->ndim != 2 ||
        d->options.hook.choice != DLS_HOOK_NONE || d->options.hook.sums_in)
        return DLS_FAIL(DLS_ERR_INPUT, "rows_of: expected the first parameter, a matrix, "
                        "and hook none");
    int positions = d->nparams > 1 && p[1].ndim == 2 && p[1].shape[1] == p->shape[1];
    cut_off(d);                                     // block with positions, rows
    if (positions && d->buckets[d->nbuckets - 1].params == 1 && d->nbuckets > 1 &&
        d->buckets[d->nbuckets - 2].param == 1 &&
        d->buckets[d->nbuckets - 2].params > 1) {
        swap_last(d);
        cut_off(d);                                 // rows, block, positions
        dls_bucket *b = &d->buckets[d->nbuckets - 3], rows = b[0];
        b[0] = b[1];
        b[1] = b[2];
        b[2] = rows;
    }
    return DLS_OK;
}

/* create ddp */
void dls_ddp_destroy(dls_ddp *d)
{
    if (!d)
        return;
    dls_hook_free(d->hook);
    dls_rows_free(d->rows);
    free_events(d);
    void *arrays[] = {d->buckets, d->states, d->order,  d->bucket_of, d->reported,
                      d->told,    d->used,   d->arrived, d->arrived_used};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    free(d);
}

static dls_status make_room(dls_ddp *d)
{
    size_t n = (size_t)(d->nparams > 0 ? d->nparams : 1);
    d->buckets = calloc(n, sizeof *d->buckets);
    d->states = calloc(n, sizeof *d->states);
    d->told = calloc(n, sizeof *d->told);
    int **ints[] = {&d->order, &d->bucket_of, &d->arrived};
    for (int i = 0; i < 3; i++)
        *ints[i] = calloc(n, sizeof(int));
    d->reported = calloc(n, 1);
    d->used = calloc(n, 1);
    d->arrived_used = calloc(n, 1);
    if (!d->buckets || !d->states || !d->told || !d->order || !d->bucket_of ||
        !d->arrived || !d->reported || !d->used || !d->arrived_used)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a bucket plan");
    return DLS_OK;
}

static dls_status make_plan(dls_ddp *d)
{
    size_t size = dls_dtype_size(d->dtype);
    DLS_TRY(make_room(d));
    DLS_TRY(dls_bucket_plan(d->params, d->nparams, size, d->options.first_bucket_bytes,
                            d->options.bucket_bytes, d->buckets, &d->nbuckets));
    DLS_TRY(make_rows_bucket(d));
    for (int b = 0; b < d->nbuckets; b++) {
        const dls_bucket *bucket = &d->buckets[b];
        d->order[b] = b;
        d->told[b] = (dls_hook_bucket){d->params + bucket->param, bucket->params,
                                       bucket->first, bucket->count,
                                       d->grads + bucket->first * size};
        for (int i = 0; i < bucket->params; i++)
            d->bucket_of[bucket->param + i] = b;
    }
    return DLS_OK;
}

dls_status dls_ddp_create(dls_ddp **out, dls_ctx *ctx, const dls_param *params, int n,
                          void *flat_grads, dls_comm *comm,
                          const dls_ddp_options *options)
{
    dls_status status;
    dls_ddp *d = calloc(1, sizeof *d);
    if (!d)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for data parallelism");
    *d = (dls_ddp){.ctx = ctx, .comm = comm, .options = *options, .params = params,
                   .nparams = n, .grads = flat_grads};
    d->dtype = options->narrow_grads ? ctx->dtype : dls_dtype_accumulator(ctx->dtype);
    DLS_TRY_GOTO(status, make_plan(d), fail);
    DLS_TRY_GOTO(status, agree(d), fail);
    DLS_TRY_GOTO(status, make_events(d), fail);
    if (options->rows_of)
        DLS_TRY_GOTO(status, dls_rows_create(&d->rows, comm, ctx, &d->wire, flat_grads,
                                             (int)params->shape[0],
                                             (int)params->shape[1]), fail);
    DLS_TRY_GOTO(status, dls_hook_create(&d->hook, &options->hook, comm, &d->wire,
                                         d->told, d->nbuckets), fail);
    begin_step(d);
    *out = d;
    return DLS_OK;
fail:
    dls_ddp_destroy(d);
    return status;
}

int dls_ddp_buckets(const dls_ddp *ddp)
{
    return ddp->nbuckets;
}

dls_hook *dls_ddp_hook(dls_ddp *ddp)
{
    return ddp->hook;
}

/* send the buckets that are complete */
static dls_status send_bucket(dls_ddp *d, int b)
{
    bucket_state *state = &d->states[b];
    DLS_CUDA(cudaEventRecord(state->ready, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->wire.stream, state->ready, 0));
    DLS_CUDA(cudaEventRecord(state->begin, d->wire.stream));
    if (d->rows && d->buckets[b].first == 0)
        DLS_TRY(dls_rows_sum(d->rows));
    else
        DLS_TRY(dls_hook_sum(d->hook, b)); // an all-reduce, unless asked otherwise
    DLS_CUDA(cudaEventRecord(state->end, d->wire.stream));
    return DLS_OK;
}

static dls_status send_complete(dls_ddp *d)
{
    while (d->next < d->nbuckets && d->states[d->order[d->next]].missing == 0)
        DLS_TRY(send_bucket(d, d->order[d->next++]));
    return DLS_OK;
}

/* note that a gradient is ready */
static dls_status report(dls_ddp *d, int param, int used)
{
    int bucket = d->bucket_of[param];
    d->reported[param] = 1;
    d->used[param] |= (char)used;
    if (--d->states[bucket].missing == 0)
        d->arrived[d->completed++] = bucket;
    return send_complete(d);
}

dls_status dls_ddp_grad_ready(void *ddp, int param_index)
{
    dls_ddp *d = ddp;
    if (param_index < 0 || param_index >= d->nparams)
        return DLS_FAIL(DLS_ERR_INPUT, "gradient %d is ready: there are %d parameters",
                        param_index, d->nparams);
    if (d->held) { // no_sync: more will be added to it
        d->used[param_index] = 1;
        return DLS_OK;
    }
    if (d->reported[param_index])
        return DLS_FAIL(DLS_ERR_STATE,
                        "the gradient of %s was reported twice in one step",
                        d->params[param_index].name);
    return report(d, param_index, 1);
}

/* settle hard cases */
void dls_ddp_no_sync(dls_ddp *d, int on)
{
    d->held = on;
}

/* Completes the buckets of a backward pass that is over. */
static dls_status report_the_unused(dls_ddp *d)
{
    for (int i = d->nparams - 1; i >= 0; i--)
        if (!d->reported[i])
            DLS_TRY(report(d, i, 0));
    return DLS_OK;
}

int dls_ddp_used(const dls_ddp *d, int param_index)
{
    return d->finished && d->arrived_used[param_index];
}

void dls_ddp_examples(dls_ddp *d, int64_t count)
{
    d->examples = count;
}

int64_t dls_ddp_total(const dls_ddp *d)
{
    return d->total;
}

static dls_status gather_counts(dls_ddp *d)
{
    size_t bytes = sizeof d->examples + (size_t)d->nparams;
    int world = dls_comm_size(d->comm);
    char mine[bytes], *all = malloc((size_t)world * bytes);
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the counts of a step");
    memcpy(mine, &d->examples, sizeof d->examples);
    memcpy(mine + sizeof d->examples, d->used, (size_t)d->nparams);
    dls_status s = dls_comm_all_gather_host(d->comm, mine, bytes, all);
    memset(d->arrived_used, 0, (size_t)d->nparams);
    d->total = 0;
    for (int r = 0; s == DLS_OK && r < world; r++) {
        int64_t examples;
        memcpy(&examples, all + (size_t)r * bytes, sizeof examples);
        d->total += examples;
        for (int i = 0; i < d->nparams; i++)
            d->arrived_used[i] |= all[(size_t)r * bytes + sizeof examples + (size_t)i];
    }
    free(all);
    return s;
}

static dls_status divide_by_total(dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    dls_ctx typed = *d->ctx;
    typed.dtype = d->dtype;
    if (d->total == 0)
        return DLS_OK;
    return dls_scale(&typed, d->grads, 1.0 / (double)d->total,
                     last->offset + last->count);
}

/* follow the order of rank 0 */
static dls_status follow_rank_0(dls_ddp *d)
{
    size_t bytes = (size_t)d->nbuckets * sizeof *d->order;
    int *all = malloc((size_t)dls_comm_size(d->comm) * bytes);
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the order of buckets");
    dls_status s = dls_comm_all_gather_host(d->comm, d->arrived, bytes, all);
    if (s == DLS_OK)
        memcpy(d->order, all, bytes);
    free(all);
    return s == DLS_OK ? agree(d) : s;
}

static dls_status settle_the_hard_cases(dls_ddp *d)
{
    if (d->options.find_unused || d->options.count_examples)
        DLS_TRY(gather_counts(d));
    if (d->options.count_examples)
        DLS_TRY(divide_by_total(d));
    memset(d->used, 0, (size_t)d->nparams);
    d->examples = 0;
    return d->options.reorder && !d->finished ? follow_rank_0(d) : DLS_OK;
}

static dls_status join_step(dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    size_t bytes = (last->offset + last->count) * dls_dtype_size(d->dtype);
    DLS_TRY(dls_ddp_begin(d));
    DLS_CUDA(cudaMemsetAsync(d->grads, 0, bytes, d->ctx->stream));
    DLS_TRY(report_the_unused(d));
    return dls_ddp_finish(d);
}

dls_status dls_ddp_join(dls_ddp *d, int *more)
{
    if (!d->options.count_examples)
        return DLS_FAIL(DLS_ERR_STATE, "joining needs count_examples: nobody would know "
                        "when the last rank is done");
    DLS_TRY(join_step(d));
    *more = d->total > 0;
    return DLS_OK;
}

dls_status dls_ddp_add_buffer(dls_ddp *d, void *buf, size_t count, int dtype)
{
    int most = (int)(sizeof d->shared / sizeof *d->shared);
    if (d->nshared == most)
        return DLS_FAIL(DLS_ERR_STATE, "more than %d buffers", most);
    d->shared[d->nshared].data = buf;
    d->shared[d->nshared].count = count;
    d->shared[d->nshared++].dtype = dtype;
    return DLS_OK;
}

dls_status dls_ddp_begin(dls_ddp *d)
{
    for (int i = 0; i < d->nshared && !d->held; i++)
        DLS_TRY(dls_comm_broadcast(d->comm, d->shared[i].data, d->shared[i].count,
                                   d->shared[i].dtype, 0, d->ctx->stream));
    return DLS_OK;
}

dls_status dls_ddp_touch(dls_ddp *d, const int *rows, size_t n)
{
    return d->rows ? dls_rows_touch(d->rows, rows, n) : DLS_OK;
}

dls_status dls_ddp_grad_partial(void *ddp, int param_index)
{
    dls_ddp *d = ddp;
    if (!d->rows || d->held || param_index != d->options.rows_of - 1)
        return DLS_OK;
    return dls_rows_partial(d->rows);
}

/* finish the step */
static dls_status name_the_missing(const dls_ddp *d)
{
    int missing = 0, first = -1;
    for (int i = 0; i < d->nparams; i++)
        if (!d->reported[i] && missing++ == 0)
            first = i;
    return DLS_FAIL(DLS_ERR_STATE,
                    "%d of %d gradients were not reported in this step, the "
                    "first is %s", missing, d->nparams, d->params[first].name);
}

dls_status dls_ddp_finish(dls_ddp *d)
{
    if (d->options.find_unused)
        DLS_TRY(report_the_unused(d));
    if (d->next < d->nbuckets)
        return name_the_missing(d);
    int last = d->order[d->nbuckets - 1];
    DLS_CUDA(cudaEventRecord(d->before, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->ctx->stream, d->states[last].end, 0));
    DLS_CUDA(cudaEventRecord(d->after, d->ctx->stream));
    dls_hook_step_over(d->hook);
    DLS_TRY(settle_the_hard_cases(d));
    d->finished = 1;
    begin_step(d);
    return DLS_OK;
}

dls_status dls_ddp_broadcast(dls_ddp *d, void *flat, dls_dtype dtype)
{
    const dls_param *last = &d->params[d->nparams - 1];
    return dls_comm_broadcast(d->comm, flat, last->offset + last->count, dtype, 0,
                              d->ctx->stream);
}

/* measure the overlap */
static dls_status add_elapsed(cudaEvent_t begin, cudaEvent_t end, double *seconds)
{
    float milliseconds;
    DLS_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    *seconds += milliseconds * 1e-3;
    return DLS_OK;
}

dls_status dls_ddp_timing(const dls_ddp *d, dls_ddp_times *out)
{
    *out = (dls_ddp_times){.hidden = 1};
    if (!d->finished)
        return DLS_FAIL(DLS_ERR_STATE, "no step has been finished yet");
    if (dls_comm_size(d->comm) == 1)
        return DLS_OK; // nothing was sent, so nothing was exposed
    for (int b = 0; b < d->nbuckets; b++)
        DLS_TRY(add_elapsed(d->states[b].begin, d->states[b].end, &out->busy));
    double early = 0;
    if (d->rows)
        DLS_TRY(dls_rows_early(d->rows, &early));
    out->busy += early;
    DLS_TRY(add_elapsed(d->before, d->after, &out->exposed));
    if (out->busy > 0)
        out->hidden = out->exposed < out->busy ? 1 - out->exposed / out->busy : 0;
    return DLS_OK;
}

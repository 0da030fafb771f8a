/* code/parallel/data/ddp.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Buckets, events and two streams. The wire is in comm/.
 *
 * Per bucket: an event on the compute stream when its last gradient is enqueued, for
 * which the communication stream waits; events around its all-reduce, for the timing. */
#include <stdlib.h>
#include <string.h>

#include "parallel/data/ddp_private.h"
#include "parallel/expert/copies.h"
#include "vgpu/gpu.h"

/* agree on the plan */
typedef struct plan_summary { uint64_t hash, params, elements, buckets; } plan_summary;

dls_status ddp_agree(const dls_ddp *d)
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

/* create ddp */
void dls_ddp_destroy(dls_ddp *d)
{
    if (!d)
        return;
    dls_hook_free(d->hook);
    dls_rows_free(d->rows);
    free_events(d);
    ddp_free_plan(d);
}

static dls_status make_parts(dls_ddp *d)
{
    const dls_param *p = d->params;
    DLS_TRY(ddp_make_plan(d));
    DLS_TRY(ddp_agree(d));
    DLS_TRY(make_events(d));
    if (d->options.rows_of)
        DLS_TRY(dls_rows_create(&d->rows, d->comm, d->ctx, &d->wire, d->grads,
                                (int)p->shape[0], (int)p->shape[1]));
    DLS_TRY(dls_hook_create(&d->hook, &d->options.hook, d->comm, &d->wire, d->told,
                            d->nbuckets));
    return ddp_reserve(d);
}

dls_status dls_ddp_create(dls_ddp **out, dls_ctx *ctx, const dls_param *params, int n,
                          void *flat_grads, dls_comm *comm,
                          const dls_ddp_options *options)
{
    dls_ddp *d = calloc(1, sizeof *d);
    if (!d)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for data parallelism");
    *d = (dls_ddp){.ctx = ctx, .comm = comm, .options = *options, .params = params,
                   .nparams = n, .grads = flat_grads};
    d->dtype = options->narrow_grads ? ctx->dtype : dls_dtype_accumulator(ctx->dtype);
    dls_status s = make_parts(d);
    if (s != DLS_OK) {
        dls_ddp_destroy(d);
        return s;
    }
    begin_step(d);
    *out = d;
    return DLS_OK;
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
static dls_status sum_bucket(dls_ddp *d, int b)
{
    const dls_bucket *is = &d->buckets[b];
    dls_comm *copies = dls_copies_of(d->options.axes, d->comm, &d->params[is->param]);
    if (copies != d->comm)
        return dls_comm_all_reduce(copies, d->told[b].grads, is->count, d->dtype, DLS_SUM,
                                   d->wire.stream);
    return d->rows && is->first == 0
        ? dls_rows_sum(d->rows)
        : dls_hook_sum(d->hook, b); // an all-reduce, unless asked otherwise
}

static dls_status send_bucket(dls_ddp *d, int b)
{
    bucket_state *state = &d->states[b];
    DLS_CUDA(cudaEventRecord(state->ready, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->wire.stream, state->ready, 0));
    DLS_CUDA(cudaEventRecord(state->begin, d->wire.stream));
    DLS_TRY(dls_tensor_finish(d->options.axes, d->params + d->buckets[b].param,
                              d->buckets[b].params, d->dtype, d->wire.stream));
    DLS_TRY(sum_bucket(d, b));
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
dls_status ddp_report(dls_ddp *d, int param, int used)
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
    if (d->params[param_index].frozen)
        return DLS_OK;
    if (d->held) { // no_sync: more will be added to it
        d->used[param_index] = 1;
        return DLS_OK;
    }
    if (d->reported[param_index])
        return DLS_FAIL(DLS_ERR_STATE,
                        "the gradient of %s was reported twice in one step",
                        d->params[param_index].name);
    return ddp_report(d, param_index, 1);
}

/* finish the step */
static dls_status name_the_missing(const dls_ddp *d)
{
    int missing = 0, first = -1;
    for (int i = 0; i < d->nparams; i++)
        if (!d->reported[i] && !d->params[i].frozen && missing++ == 0)
            first = i;
    return DLS_FAIL(DLS_ERR_STATE,
                    "%d of %d gradients were not reported in this step, the "
                    "first is %s", missing, d->nparams, d->params[first].name);
}

dls_status dls_ddp_finish(dls_ddp *d)
{
    if (d->options.find_unused)
        DLS_TRY(ddp_report_the_rest(d));
    if (d->next < d->nbuckets)
        return name_the_missing(d);
    int last = d->order[d->nbuckets - 1];
    DLS_CUDA(cudaEventRecord(d->before, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->ctx->stream, d->states[last].end, 0));
    DLS_CUDA(cudaEventRecord(d->after, d->ctx->stream));
    dls_hook_step_over(d->hook);
    DLS_TRY(ddp_settle(d));
    d->finished = 1;
    begin_step(d);
    return DLS_OK;
}

dls_status dls_ddp_broadcast(dls_ddp *d, void *flat, dls_dtype dtype)
{
    return dls_copies_broadcast(d->options.axes, d->comm, d->params, d->nparams, flat,
                                dtype, d->ctx->stream);
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

/* code/parallel/data/ddp.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Buckets, events and two streams. The plan is in plan.c, the wire in comm/.
 *
 * Per bucket: an event on the compute stream when its last gradient is enqueued, for
 * which the communication stream waits; events around its all-reduce, for the timing. */
#include "parallel/data/ddp.h"

#include <stdlib.h>

#include "parallel/data/plan.h"
#include "vgpu/gpu.h"

/* define the state of ddp */
typedef struct bucket_state {
    cudaEvent_t ready, begin, end;
    int missing; // gradients not yet reported in this step
} bucket_state;

struct dls_ddp {
    dls_ctx *ctx;
    dls_comm *comm;
    const dls_param *params;
    char *grads;
    dls_dtype dtype;              // of the gradients
    int nparams, nbuckets;
    int next;                     // the bucket that is sent next
    int finished;                 // a step has been finished
    dls_bucket *buckets;          // (nbuckets)
    bucket_state *states;         // (nbuckets)
    int *bucket_of;               // (nparams)
    char *reported;               // (nparams)
    cudaStream_t stream;          // communication
    cudaEvent_t before, after;    // around the wait of the compute stream
};

/* agree on the plan */
typedef struct plan_summary { uint64_t hash, params, elements, buckets; } plan_summary;

static dls_status agree(const dls_ddp *d)
{
    const dls_param *last = &d->params[d->nparams - 1];
    plan_summary mine = {
        dls_bucket_hash(d->params, d->nparams, d->dtype, d->buckets, d->nbuckets),
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
    d->next = 0;
    for (int b = 0; b < d->nbuckets; b++)
        d->states[b].missing = d->buckets[b].params;
    for (int i = 0; i < d->nparams; i++)
        d->reported[i] = 0;
}

static dls_status make_events(dls_ddp *d)
{
    DLS_CUDA(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(d->stream, "gradients"));
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
    if (d->stream)
        cudaStreamDestroy(d->stream);
}

/* create ddp */
void dls_ddp_destroy(dls_ddp *d)
{
    if (!d)
        return;
    free_events(d);
    free(d->buckets);
    free(d->states);
    free(d->bucket_of);
    free(d->reported);
    free(d);
}

static dls_status make_plan(dls_ddp *d, size_t bucket_bytes, size_t first_bytes)
{
    size_t n = (size_t)(d->nparams > 0 ? d->nparams : 1);
    d->buckets = calloc(n, sizeof *d->buckets);
    d->states = calloc(n, sizeof *d->states);
    d->bucket_of = calloc(n, sizeof *d->bucket_of);
    d->reported = calloc(n, 1);
    if (!d->buckets || !d->states || !d->bucket_of || !d->reported)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a bucket plan");
    DLS_TRY(dls_bucket_plan(d->params, d->nparams, dls_dtype_size(d->dtype),
                            first_bytes, bucket_bytes, d->buckets, &d->nbuckets));
    for (int b = 0; b < d->nbuckets; b++)
        for (int i = 0; i < d->buckets[b].params; i++)
            d->bucket_of[d->buckets[b].param + i] = b;
    return DLS_OK;
}

dls_status dls_ddp_create(dls_ddp **out, dls_ctx *ctx, const dls_param *params, int n,
                          void *flat_grads, dls_comm *comm, size_t bucket_bytes,
                          size_t first_bucket_bytes)
{
    dls_status status;
    dls_ddp *d = calloc(1, sizeof *d);
    if (!d)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for data parallelism");
    d->ctx = ctx;
    d->comm = comm;
    d->params = params;
    d->dtype = dls_dtype_accumulator(ctx->dtype);
    d->nparams = n;
    d->grads = flat_grads;
    DLS_TRY_GOTO(status, make_plan(d, bucket_bytes, first_bucket_bytes), fail);
    DLS_TRY_GOTO(status, agree(d), fail);
    DLS_TRY_GOTO(status, make_events(d), fail);
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

/* send the buckets that are complete */
static dls_status send_bucket(dls_ddp *d, int b)
{
    const dls_bucket *bucket = &d->buckets[b];
    bucket_state *state = &d->states[b];
    size_t size = dls_dtype_size(d->dtype);
    DLS_CUDA(cudaEventRecord(state->ready, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->stream, state->ready, 0));
    DLS_CUDA(cudaEventRecord(state->begin, d->stream));
    DLS_TRY(dls_comm_all_reduce(d->comm, d->grads + bucket->first * size, bucket->count,
                                d->dtype, DLS_SUM, d->stream));
    DLS_CUDA(cudaEventRecord(state->end, d->stream));
    return DLS_OK;
}

static dls_status send_complete(dls_ddp *d)
{
    while (d->next < d->nbuckets && d->states[d->next].missing == 0)
        DLS_TRY(send_bucket(d, d->next++));
    return DLS_OK;
}

/* note that a gradient is ready */
dls_status dls_ddp_grad_ready(void *ddp, int param_index)
{
    dls_ddp *d = ddp;
    if (param_index < 0 || param_index >= d->nparams)
        return DLS_FAIL(DLS_ERR_INPUT, "gradient %d is ready: there are %d parameters",
                        param_index, d->nparams);
    if (d->reported[param_index])
        return DLS_FAIL(DLS_ERR_STATE,
                        "the gradient of %s was reported twice in one step",
                        d->params[param_index].name);
    d->reported[param_index] = 1;
    d->states[d->bucket_of[param_index]].missing--;
    return send_complete(d);
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
    if (d->next < d->nbuckets)
        return name_the_missing(d);
    DLS_CUDA(cudaEventRecord(d->before, d->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(d->ctx->stream, d->states[d->nbuckets - 1].end, 0));
    DLS_CUDA(cudaEventRecord(d->after, d->ctx->stream));
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
    DLS_TRY(add_elapsed(d->before, d->after, &out->exposed));
    if (out->busy > 0)
        out->hidden = out->exposed < out->busy ? 1 - out->exposed / out->busy : 0;
    return DLS_OK;
}

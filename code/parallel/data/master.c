/* code/parallel/data/master.c: from chapters/04-data-parallelism-master.md. Edit the chapter, or edit here and run "make untangle". */
/* A master and its replicas; see master.h. */
#include "parallel/data/master.h"

#include <stdlib.h>

#include "data/sampler.h"
#include "kernels/elementwise.h"
#include "vgpu/gpu.h"

/* define the master */
enum { MOST = 16, INBOXES = 2 };

typedef struct replica {
    dls_transformer *model;
    int *ids;                     // tokens, then targets, of the share: its device
    int first, rows;              // of the batch
    cudaEvent_t sent, done;       // it has what it needs; its gradients are final
    cudaEvent_t arrived, added;   // its gradients are at the master; and in the sum
} replica;

struct dls_master {
    replica replicas[MOST];
    int n, T;
    cudaStream_t links;           // on device 0
    char *losses;                 // (rows, T) on device 0
    void *inbox[INBOXES];         // gradients of a replica, on device 0
    cudaEvent_t updated, begin, sent, first, last, end;
    int stepped;
};

/* open the ways between devices */
static dls_status open_way(int from, int to)
{
    int can = 0;
    DLS_CUDA(cudaSetDevice(from));
    DLS_CUDA(cudaDeviceCanAccessPeer(&can, from, to));
    cudaError_t error = can ? cudaDeviceEnablePeerAccess(to, 0) : cudaSuccess;
    if (error == cudaErrorPeerAccessAlreadyEnabled)
        error = cudaGetLastError() == error ? cudaSuccess : error; // someone else's: fine
    DLS_CUDA(error);
    return DLS_OK;
}

static dls_status check_replicas(dls_transformer *const *replicas, int n)
{
    if (n < 1 || n > MOST)
        return DLS_FAIL(DLS_ERR_INPUT, "%d replicas; expected 1 to %d", n, MOST);
    for (int i = 1; i < n; i++)
        for (int k = 0; k < i; k++) {
            if (replicas[i]->ctx->device == replicas[k]->ctx->device)
                return DLS_FAIL(DLS_ERR_INPUT, "replicas %d and %d are both on device %d",
                                k, i, replicas[i]->ctx->device);
            if (replicas[i]->params.elements != replicas[k]->params.elements ||
                replicas[i]->ctx->dtype != replicas[k]->ctx->dtype)
                return DLS_FAIL(DLS_ERR_INPUT, "replicas %d and %d differ: %zu and %zu "
                                "parameters", k, i, replicas[k]->params.elements,
                                replicas[i]->params.elements);
        }
    return DLS_OK;
}

/* create the master */
static size_t value_bytes(const dls_master *m)
{
    const dls_params *set = &m->replicas[0].model->params;
    return set->elements * dls_dtype_size(set->dtype);
}

static size_t grad_bytes(const dls_master *m)
{
    const dls_params *set = &m->replicas[0].model->params;
    return set->elements * dls_dtype_size(dls_dtype_accumulator(set->dtype));
}

static dls_status make_replica(dls_master *m, replica *r, int rows)
{
    cudaEvent_t *events[] = {&r->sent, &r->done, &r->arrived, &r->added};
    int master = m->replicas[0].model->ctx->device, device = r->model->ctx->device;
    if (device != master)
        DLS_TRY(open_way(master, device));
    DLS_CUDA(cudaSetDevice(device));
    for (int i = 0; i < 4; i++)
        DLS_CUDA(cudaEventCreateWithFlags(events[i], cudaEventDisableTiming));
    return dls_device_alloc((void **)&r->ids, 2 * (size_t)rows * (size_t)m->T, DLS_F32,
                            DLS_MEM_ACTIVATIONS);
}

static dls_status make_master(dls_master *m, int rows)
{
    dls_ctx *ctx = m->replicas[0].model->ctx;
    cudaEvent_t *events[] = {&m->begin, &m->sent, &m->first, &m->last, &m->end};
    DLS_CUDA(cudaSetDevice(ctx->device));
    DLS_CUDA(cudaStreamCreateWithFlags(&m->links, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(m->links, "links"));
    DLS_CUDA(cudaEventCreateWithFlags(&m->updated, cudaEventDisableTiming));
    for (int i = 0; i < 5; i++)
        DLS_CUDA(cudaEventCreate(events[i]));
    DLS_TRY(dls_device_alloc((void **)&m->losses, (size_t)rows * (size_t)m->T,
                             dls_dtype_accumulator(ctx->dtype), DLS_MEM_ACTIVATIONS));
    for (int i = 0; i < INBOXES && m->n > 1; i++)
        DLS_TRY(dls_flat_buffer(&m->inbox[i], grad_bytes(m), DLS_MEM_COMMUNICATION));
    return DLS_OK;
}

static void free_events(cudaEvent_t *events, int n)
{
    for (int i = 0; i < n; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
}

void dls_master_destroy(dls_master *m)
{
    if (!m)
        return;
    cudaDeviceSynchronize();
    for (int i = 0; i < m->n; i++) {
        replica *r = &m->replicas[i];
        cudaStreamSynchronize(r->model->ctx->stream);
        dls_device_free(r->ids);
        free_events((cudaEvent_t[]){r->sent, r->done, r->arrived, r->added}, 4);
    }
    for (int i = 0; i < INBOXES; i++)
        dls_device_free(m->inbox[i]);
    dls_device_free(m->losses);
    free_events((cudaEvent_t[]){m->updated, m->begin, m->sent, m->first, m->last, m->end},
                6);
    if (m->links)
        cudaStreamDestroy(m->links);
    free(m);
}

dls_status dls_master_create(dls_master **out, dls_transformer *const *replicas, int n,
                             int rows, int T)
{
    dls_status s;
    DLS_TRY(check_replicas(replicas, n));
    dls_master *m = calloc(1, sizeof *m);
    if (!m)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a master");
    m->n = n;
    m->T = T;
    for (int i = 0; i < n; i++)
        m->replicas[i].model = replicas[i];
    DLS_TRY_GOTO(s, make_master(m, rows), fail);
    for (int i = 0; i < n; i++)
        DLS_TRY_GOTO(s, make_replica(m, &m->replicas[i], rows), fail);
    DLS_CUDA(cudaSetDevice(replicas[0]->ctx->device));
    *out = m;
    return DLS_OK;
fail:
    dls_master_destroy(m);
    return s;
}

/* send out the shares */
static dls_status send_share(dls_master *m, replica *r, const int *tokens,
                             const int *targets)
{
    const dls_ctx *master = m->replicas[0].model->ctx, *ctx = r->model->ctx;
    size_t count = (size_t)r->rows * (size_t)m->T, bytes = count * sizeof *tokens;
    size_t first = (size_t)r->first * (size_t)m->T;
    cudaStream_t s = m->links;
    DLS_CUDA(cudaMemcpyPeerAsync(r->ids, ctx->device, tokens + first, master->device,
                                 bytes, s));
    DLS_CUDA(cudaMemcpyPeerAsync(r->ids + count, ctx->device, targets + first,
                                 master->device, bytes, s));
    DLS_CUDA(cudaMemcpyPeerAsync(r->model->params.values, ctx->device,
                                 m->replicas[0].model->params.values, master->device,
                                 value_bytes(m), s));
    DLS_CUDA(cudaEventRecord(r->sent, s));
    return DLS_OK;
}

static dls_status send_out(dls_master *m, const int *tokens, const int *targets)
{
    DLS_CUDA(cudaEventRecord(m->updated, m->replicas[0].model->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(m->links, m->updated, 0));
    DLS_CUDA(cudaEventRecord(m->begin, m->links));
    for (int i = 1; i < m->n; i++)
        DLS_TRY(send_share(m, &m->replicas[i], tokens, targets));
    DLS_CUDA(cudaEventRecord(m->sent, m->links));
    return DLS_OK;
}

/* compute on every device */
static dls_status compute(dls_master *m, int i, const int *tokens, const int *targets,
                          double scale)
{
    replica *r = &m->replicas[i];
    dls_ctx *ctx = r->model->ctx;
    size_t count = (size_t)r->rows * (size_t)m->T;
    DLS_CUDA(cudaSetDevice(ctx->device));
    if (i > 0)
        DLS_CUDA(cudaStreamWaitEvent(ctx->stream, r->sent, 0));
    DLS_TRY(dls_params_zero_grads(&r->model->params, ctx));
    if (r->rows > 0) {
        DLS_TRY(dls_transformer_forward(r->model, i ? r->ids : tokens,
                                        i ? r->ids + count : targets, r->rows, m->T));
        DLS_TRY(dls_transformer_backward(r->model, scale, NULL));
    }
    DLS_CUDA(cudaEventRecord(r->done, ctx->stream));
    return DLS_OK;
}

/* gather at the master */
static dls_status pull(dls_master *m, int i)
{
    replica *r = &m->replicas[i];
    const dls_ctx *master = m->replicas[0].model->ctx, *ctx = r->model->ctx;
    size_t size = dls_dtype_size(dls_dtype_accumulator(master->dtype));
    size_t T = (size_t)m->T, first = (size_t)r->first * T, count = (size_t)r->rows * T;
    DLS_CUDA(cudaStreamWaitEvent(m->links, r->done, 0));
    if (i > INBOXES) // what was in the inbox must have been added
        DLS_CUDA(cudaStreamWaitEvent(m->links, m->replicas[i - INBOXES].added, 0));
    if (i == 1)
        DLS_CUDA(cudaEventRecord(m->first, m->links));
    DLS_CUDA(cudaMemcpyPeerAsync(m->losses + first * size, master->device,
                                 dls_transformer_losses(r->model), ctx->device,
                                 count * size, m->links));
    DLS_CUDA(cudaMemcpyPeerAsync(m->inbox[i % INBOXES], master->device,
                                 r->model->params.grads, ctx->device, grad_bytes(m),
                                 m->links));
    DLS_CUDA(cudaEventRecord(r->arrived, m->links));
    return DLS_OK;
}

static dls_status add(dls_master *m, int i)
{
    replica *r = &m->replicas[i];
    dls_transformer *master = m->replicas[0].model;
    dls_ctx wide = dls_ctx_accumulator(master->ctx);
    DLS_CUDA(cudaStreamWaitEvent(wide.stream, r->arrived, 0));
    DLS_TRY(dls_add(&wide, master->params.grads, master->params.grads,
                    m->inbox[i % INBOXES], master->params.elements));
    DLS_CUDA(cudaEventRecord(r->added, wide.stream));
    return DLS_OK;
}

static dls_status gather(dls_master *m)
{
    dls_ctx *master = m->replicas[0].model->ctx;
    size_t size = dls_dtype_size(dls_dtype_accumulator(master->dtype));
    size_t mine = (size_t)m->replicas[0].rows * (size_t)m->T * size;
    DLS_CUDA(cudaSetDevice(master->device));
    DLS_CUDA(cudaMemcpyAsync(m->losses, dls_transformer_losses(m->replicas[0].model),
                             mine, cudaMemcpyDeviceToDevice, master->stream));
    for (int i = 1; i < m->n; i++) {
        DLS_TRY(pull(m, i));
        DLS_TRY(add(m, i));
    }
    DLS_CUDA(cudaEventRecord(m->last, m->links));
    DLS_CUDA(cudaEventRecord(m->end, master->stream));
    return DLS_OK;
}

/* step of the master */
dls_status dls_master_step(dls_master *m, const int *tokens, const int *targets, int rows,
                           double loss_scale)
{
    const dls_sampler batch = {.batch = rows};
    for (int i = 0; i < m->n; i++)
        dls_sampler_share(&batch, i, m->n, &m->replicas[i].first, &m->replicas[i].rows);
    DLS_TRY(send_out(m, tokens, targets));
    for (int i = 0; i < m->n; i++)
        DLS_TRY(compute(m, i, tokens, targets, loss_scale));
    m->stepped = 1;
    return gather(m);
}

const void *dls_master_losses(const dls_master *m)
{
    return m->losses;
}

static dls_status elapsed(cudaEvent_t from, cudaEvent_t to, double *seconds)
{
    float ms;
    DLS_CUDA(cudaEventElapsedTime(&ms, from, to));
    *seconds = 1e-3 * ms;
    return DLS_OK;
}

dls_status dls_master_timing(const dls_master *m, dls_master_times *t)
{
    *t = (dls_master_times){0};
    if (!m->stepped)
        return DLS_FAIL(DLS_ERR_STATE, "no step has been made yet");
    DLS_TRY(elapsed(m->begin, m->end, &t->step));
    if (m->n == 1)
        return DLS_OK;
    DLS_TRY(elapsed(m->begin, m->sent, &t->out));
    return elapsed(m->first, m->last, &t->in);
}

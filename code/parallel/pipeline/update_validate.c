/* code/parallel/pipeline/update_validate.c: from chapters/05-pipeline-runtime-validation.md. Edit the chapter, or edit here and run "make untangle". */
/* The optimizer's step on trust, and its validation [Qi and others 2024, section 4]. */
#include <math.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "parallel/pipeline/interpreter_private.h"
#include "vgpu/gpu.h"

/* Of two doubles each: the sum of squares so far, and rank 0's coefficient; of the last
 * step that was validated, the norm and the coefficient. */
enum { MINE = 0, BEFORE = 2, WHOLE = 4, SETTLED = 6, NUMBERS = 8 };

/* hand the state on */
static dls_status copy_numbers(dls_pipeline *p, double *to, const double *from, int n,
                               cudaStream_t stream)
{
    (void)p;
    DLS_CUDA(cudaMemcpyAsync(to, from, (size_t)n * sizeof *to, cudaMemcpyDeviceToDevice,
                             stream));
    return DLS_OK;
}

/* Behind what the compute stream has done so far. */
static dls_status follow_compute(dls_pipeline *p)
{
    DLS_CUDA(cudaEventRecord(p->computed, p->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(p->validation.stream, p->computed, 0));
    return DLS_OK;
}

/* The whole sum, from the last rank down to the first, and to the host. */
static dls_status bring_back(dls_pipeline *p)
{
    dls_validation *v = &p->validation;
    int last = dls_comm_size(p->pipe) - 1;
    double *whole = v->state + WHOLE;
    if (p->rank < last)
        DLS_TRY(dls_comm_recv(v->comm, whole, 2, DLS_F64, p->rank + 1, v->stream));
    else
        DLS_TRY(copy_numbers(p, whole, v->state + MINE, 2, v->stream));
    if (p->rank > 0)
        DLS_TRY(dls_comm_send(v->comm, whole, 2, DLS_F64, p->rank - 1, v->stream));
    DLS_CUDA(cudaMemcpyAsync(v->host, whole, 2 * sizeof *whole, cudaMemcpyDeviceToHost,
                             v->stream));
    DLS_CUDA(cudaEventRecord(v->arrived, v->stream));
    return DLS_OK;
}

/* keep what a step changes */
/* Copies values, moments and master of a stage aside, or back. */
static dls_status swap_state(dls_pipeline *p, int stage, int back)
{
    dls_stage_update *u = &p->update[stage];
    const dls_params *set = &p->stage[stage]->model->params;
    size_t wide = set->elements * dls_dtype_size(dls_dtype_accumulator(set->dtype));
    void *state[] = {set->values, u->m, u->v, u->master};
    size_t bytes[] = {set->elements * dls_dtype_size(set->dtype), wide, wide, wide};
    char *kept = p->validation.kept[stage];
    for (int i = 0; i < 4 && state[i]; kept += bytes[i++])
        DLS_CUDA(cudaMemcpyAsync(back ? state[i] : kept, back ? kept : state[i], bytes[i],
                                 cudaMemcpyDeviceToDevice, p->ctx->stream));
    return DLS_OK;
}

/* step on trust */
dls_status dls_pipeline_trust(dls_pipeline *p)
{
    dls_validation *v = &p->validation;
    double *mine = v->state + MINE, *before = v->state + BEFORE;
    dls_ctx wide = *p->ctx;
    wide.dtype = DLS_F64;
    DLS_TRY(copy_numbers(p, mine, p->scalars, 1, p->ctx->stream));
    if (p->rank > 0) {
        DLS_TRY(dls_comm_recv(v->comm, before, 2, DLS_F64, p->rank - 1, p->ctx->stream));
        DLS_TRY(dls_add(&wide, mine, mine, before, 1));
        DLS_TRY(copy_numbers(p, mine + 1, before + 1, 1, p->ctx->stream));
    }
    DLS_TRY(dls_clip_coefficient(p->ctx, p->scalars + 2, p->scalars + 1, mine,
                                 p->o.adamw.clip));
    if (p->rank == 0)
        DLS_TRY(copy_numbers(p, mine + 1, p->scalars + 2, 1, p->ctx->stream));
    DLS_TRY(follow_compute(p));
    if (p->rank + 1 < dls_comm_size(p->pipe))
        DLS_TRY(dls_comm_send(v->comm, mine, 2, DLS_F64, p->rank + 1, v->stream));
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(swap_state(p, s, 0));
    v->pending = 1;
    v->lr = p->lr;
    v->step = p->step;
    return bring_back(p);
}

/* take a step back */
static dls_status try_again(dls_pipeline *p)
{
    dls_validation *v = &p->validation;
    for (int s = 0; s < p->stages; s++) {
        if (!p->stage[s])
            continue;
        DLS_TRY(swap_state(p, s, 1));
        DLS_TRY(dls_stage_update_apply(&p->update[s], &p->o.adamw, v->lr, v->step,
                                       v->state + SETTLED + 1));
    }
    v->again++;
    return DLS_OK;
}

/* 1: somebody has stepped with another coefficient than the whole gradient's. */
static int was_wrong(const dls_pipeline *p)
{
    double sum = p->validation.host[0], first = p->validation.host[1];
    double clip = p->o.adamw.clip, norm = sqrt(sum), right = 1;
    if (!isfinite(norm))
        right = 0;
    else if (clip > 0 && norm > clip)
        right = clip / norm;
    return first != right;
}

/* begin the list again */
/* How far a list may run before the verdict: up to its first backward action. */
static size_t prefix_of(const dls_actions *list)
{
    size_t i = 0;
    while (i < list->n && (list->list[i].kind == DLS_DO_F
                           || list->list[i].kind == DLS_DO_SEND_F
                           || list->list[i].kind == DLS_DO_RECV_F))
        i++;
    return i;
}

int dls_pipeline_may_trust(const dls_pipeline *p, size_t i)
{
    return i < prefix_of(&p->o.schedule->order[p->rank]);
}

/* Receives what rank `from` has sent in its prefix beyond the first `taken`. */
static dls_status drain(dls_pipeline *p, int from, int taken)
{
    const dls_schedule *s = p->o.schedule;
    const dls_actions *list = &s->order[from];
    for (size_t i = 0; i < prefix_of(list); i++) {
        const dls_action *a = &list->list[i];
        dls_p2p_buffer *b;
        size_t count = dls_pipeline_count(p, a->microbatch);
        if (a->kind != DLS_DO_SEND_F || count == 0
            || dls_schedule_rank(s, a->stage + 1, a->microbatch) != p->rank
            || taken-- > 0)
            continue;
        DLS_TRY(dls_p2p_receive(&p->p2p, &b, count, from));
        DLS_TRY(dls_p2p_give(&p->p2p, b, p->p2p.from[from]));
    }
    return DLS_OK;
}

static int received_from(const dls_pipeline *p, int from)
{
    const dls_schedule *s = p->o.schedule;
    const dls_actions *list = &s->order[p->rank];
    int n = 0;
    for (size_t i = 0; i < prefix_of(list); i++) {
        const dls_action *a = &list->list[i];
        n += a->kind == DLS_DO_RECV_F && dls_pipeline_count(p, a->microbatch) > 0
            && dls_schedule_rank(s, a->stage - 1, a->microbatch) == from;
    }
    return n;
}

static dls_status forget_prefix(dls_pipeline *p)
{
    for (int s = 0; s < p->stages; s++)
        for (int i = 0; p->stage[s] && i < p->microbatches; i++)
            DLS_TRY(dls_stage_forget(p->stage[s], i));
    for (size_t i = 0; i < (size_t)p->stages * p->microbatches; i++) {
        dls_p2p_buffer **b[] = {&p->in[0][i], &p->out[0][i]};
        for (int k = 0; k < 2; k++) {
            if (!*b[k])
                continue;
            DLS_TRY(dls_p2p_wait(*b[k], p->ctx->stream));
            DLS_TRY(dls_p2p_give(&p->p2p, *b[k], p->ctx->stream));
            *b[k] = NULL;
        }
    }
    for (int r = 0; r < dls_comm_size(p->pipe); r++)
        if (r != p->rank)
            DLS_TRY(drain(p, r, received_from(p, r)));
    return DLS_OK;
}

/* validate the last step */
dls_status dls_pipeline_validate(dls_pipeline *p, int *again)
{
    dls_validation *v = &p->validation;
    *again = 0;
    if (!v->pending)
        return DLS_OK;
    v->pending = v->due = 0;
    DLS_CUDA(cudaEventSynchronize(v->arrived));
    *again = was_wrong(p);
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, v->arrived, 0));
    DLS_TRY(dls_clip_coefficient(p->ctx, v->state + SETTLED + 1, v->state + SETTLED,
                                 v->state + WHOLE, p->o.adamw.clip));
    return *again ? try_again(p) : DLS_OK;
}

dls_status dls_pipeline_verdict(dls_pipeline *p, int *again)
{
    DLS_TRY(dls_pipeline_validate(p, again));
    if (*again)
        DLS_TRY(forget_prefix(p));
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(dls_params_zero_grads(&p->stage[s]->model->params, p->ctx));
    return DLS_OK;
}

dls_status dls_pipeline_settle(dls_pipeline *p)
{
    int again;
    return dls_pipeline_validate(p, &again);
}

const double *dls_pipeline_norm(const dls_pipeline *p)
{
    return p->o.validate ? p->validation.state + SETTLED : p->scalars + 1;
}

/* open the validation */
size_t dls_pipeline_validation_bytes(const dls_params *set)
{
    dls_dtype wide = dls_dtype_accumulator(set->dtype);
    size_t state = (wide == set->dtype ? 2 : 3) * dls_dtype_size(wide);
    return set->elements * (dls_dtype_size(set->dtype) + state);
}

size_t dls_pipeline_validation_state(void)
{
    return NUMBERS * sizeof(double);
}

dls_status dls_pipeline_open_validation(dls_pipeline *p)
{
    dls_validation *v = &p->validation;
    if (!p->o.validate)
        return DLS_OK;
    v->kept = calloc((size_t)p->stages, sizeof(void *));
    if (!v->kept)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", p->stages);
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_OPTIMIZER);
    cudaError_t e = dls_gpu_alloc_shared((void **)&v->state, NUMBERS * sizeof(double));
    for (int s = 0; s < p->stages && e == cudaSuccess; s++) {
        const dls_params *set = p->stage[s] ? &p->stage[s]->model->params : NULL;
        if (set)
            e = cudaMalloc(&v->kept[s], dls_pipeline_validation_bytes(set));
    }
    dls_gpu_memory_purpose(before);
    DLS_CUDA(e);
    DLS_CUDA(cudaMallocHost((void **)&v->host, 2 * sizeof(double)));
    DLS_CUDA(cudaStreamCreateWithFlags(&v->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(v->stream, "verdict"));
    DLS_CUDA(cudaEventCreateWithFlags(&v->arrived, cudaEventDisableTiming));
    return dls_comm_split(p->pipe, 0, p->rank, &v->comm);
}

void dls_pipeline_close_validation(dls_pipeline *p)
{
    dls_validation *v = &p->validation;
    for (int s = 0; v->kept && s < p->stages; s++)
        cudaFree(v->kept[s]);
    free(v->kept);
    cudaFree(v->state);
    cudaFreeHost(v->host);
    if (v->stream)
        cudaStreamDestroy(v->stream);
    if (v->arrived)
        cudaEventDestroy(v->arrived);
    dls_comm_destroy(v->comm);
}

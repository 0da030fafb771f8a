/* code/parallel/pipeline/update.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* The optimizer of a stage, and the gradients on their way to it. */
#include "parallel/pipeline/update.h"

#include "kernels/kernels.h"
#include "parallel/pipeline/interpreter_private.h"
#include "parallel/expert/copies.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* keep the optimizer state */
static size_t state_bytes(const dls_stage_update *u)
{
    const dls_params *set = &u->stage->model->params;
    return set->elements * dls_dtype_size(dls_dtype_accumulator(set->dtype));
}

dls_status dls_stage_update_open(dls_stage_update *u, dls_stage *stage, dls_comm *data,
                                 const dls_zero_options *zero)
{
    dls_params *set = &stage->model->params;
    dls_dtype wide = dls_dtype_accumulator(set->dtype);
    *u = (dls_stage_update){.stage = stage, .copy = -1, .table = -1};
    if (zero) {
        dls_stage_count_units(set, &stage->model->config);
        return dls_zero_create(&u->zero, stage->model->ctx, set, data, zero);
    }
    if (wide != set->dtype)
        DLS_TRY(dls_device_alloc(&u->master, set->elements, wide, DLS_MEM_OPTIMIZER));
    DLS_TRY(dls_device_alloc(&u->m, set->elements, wide, DLS_MEM_OPTIMIZER));
    DLS_TRY(dls_device_alloc(&u->v, set->elements, wide, DLS_MEM_OPTIMIZER));
    DLS_CUDA(cudaMemset(u->m, 0, state_bytes(u)));
    DLS_CUDA(cudaMemset(u->v, 0, state_bytes(u)));
    return DLS_OK;
}

void dls_stage_update_close(dls_stage_update *u)
{
    dls_zero_destroy(u->zero);
    dls_device_free(u->master);
    dls_device_free(u->m);
    dls_device_free(u->v);
    *u = (dls_stage_update){0};
}

dls_status dls_stage_update_put(dls_stage_update *u, const void *values)
{
    if (u->zero)
        return dls_zero_start(u->zero, values);
    DLS_TRY(dls_params_put(&u->stage->model->params, values));
    if (u->master)
        DLS_CUDA(cudaMemcpy(u->master, values, state_bytes(u), cudaMemcpyHostToDevice));
    return DLS_OK;
}

void *dls_stage_update_values(const dls_stage_update *u)
{
    return u->master ? u->master : u->stage->model->params.values;
}

/* square the gradient */
/* The stretch s of the flat gradients, as far as slice k has it. */
static dls_status square_part(const dls_stage_update *u, int k, const dls_stretch *s,
                              double *sum)
{
    dls_dtype dtype;
    dls_zero_slice at = dls_zero_slice_at(u->zero, k);
    dls_ctx wide = dls_ctx_accumulator(u->stage->model->ctx);
    const char *grads = dls_zero_gradient(u->zero, k, &dtype);
    size_t from = s->first > at.first ? s->first : at.first;
    size_t to = s->first + s->count, end = at.first + at.count;
    to = to < end ? to : end;
    return from >= to ? DLS_OK
        : dls_square_sum(&wide, sum, grads + (from - at.first) * dls_dtype_size(dtype),
                         to - from);
}

static dls_status square_slices(const dls_stage_update *u, const dls_stretch *s,
                                double *sum)
{
    for (int k = 0; k < dls_zero_slices(u->zero); k++)
        DLS_TRY(square_part(u, k, s, sum));
    return DLS_OK;
}

static dls_status square_whole(const dls_stage_update *u, const dls_stretch *s,
                               double *sum)
{
    dls_ctx wide = dls_ctx_accumulator(u->stage->model->ctx);
    const char *grads = u->stage->model->params.grads;
    return dls_square_sum(&wide, sum, grads + s->first * dls_dtype_size(wide.dtype),
                          s->count);
}

dls_status dls_stage_update_square(const dls_stage_update *u, double *sum)
{
    const dls_params *set = &u->stage->model->params;
    const dls_param *copy = u->copy < 0 ? NULL : &set->items[u->copy];
    dls_counter who = dls_copies_counter(u->stage->model->pass.axes, u->zero != NULL);
    if (!u->counted)
        return DLS_OK;
    for (dls_stretch s = {0}; dls_counted_next(set->items, set->n, &who, copy, 1, &s);)
        DLS_TRY((u->zero ? square_slices : square_whole)(u, &s, sum));
    return DLS_OK;
}

/* apply the update */
static dls_status apply_range(dls_stage_update *u, int from, int to,
                              dls_adamw_rates *rates, double decay,
                              const double *coefficient)
{
    const dls_params *set = &u->stage->model->params;
    const dls_param *a = &set->items[from], *z = &set->items[to - 1];
    size_t at = a->offset * dls_dtype_size(dls_dtype_accumulator(set->dtype));
    rates->decay = a->decay ? decay : 0;
    return dls_adamw_with(u->stage->model->ctx, a->value,
                          u->master ? (char *)u->master + at : NULL, a->grad,
                          (char *)u->m + at, (char *)u->v + at,
                          z->offset + z->count - a->offset, rates, coefficient);
}

dls_status dls_stage_update_apply(dls_stage_update *u, const dls_adamw_options *w,
                                  double lr, int64_t step, const double *coefficient)
{
    const dls_params *set = &u->stage->model->params;
    if (u->zero)
        return dls_zero_apply(u->zero, lr, step, coefficient);
    dls_adamw_rates rates = dls_adamw_rates_at(w->beta1, w->beta2, step);
    rates.lr = lr;
    rates.epsilon = w->epsilon;
    for (int from = 0, to; from < set->n; from = to) {
        for (to = from + 1; to < set->n; to++)
            if (set->items[to].decay != set->items[from].decay
                || set->items[to].frozen != set->items[from].frozen)
                break;
        if (!set->items[from].frozen)
            DLS_TRY(apply_range(u, from, to, &rates, w->weight_decay, coefficient));
    }
    return DLS_OK;
}

/* reduce a stage */
dls_status dls_pipeline_reduce(dls_pipeline *p, int stage)
{
    dls_params *set = &p->stage[stage]->model->params;
    dls_stage_update *u = &p->update[stage];
    if (u->reduced)
        return DLS_OK;
    u->reduced = 1;
    if (u->zero)
        return dls_stage_shard_reduce(u);
    if (dls_comm_size(p->data) == 1 && !p->o.axes)
        return DLS_OK;
    DLS_CUDA(cudaEventRecord(p->computed, p->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(p->reduction, p->computed, 0));
    DLS_TRY(dls_tensor_finish(p->o.axes, set->items, set->n,
                              dls_dtype_accumulator(set->dtype), p->reduction));
    return dls_copies_sum(p->o.axes, p->data, set->items, set->n, set->grads,
                          dls_dtype_accumulator(set->dtype), p->reduction);
}

/* bring the gradients together */
/* Chimera: this rank's part of a stage and the mirror's are the same elements. */
static dls_status add_mirror(dls_pipeline *p, int stage)
{
    dls_params *set = &p->stage[stage]->model->params;
    const dls_zero *zero = p->update[stage].zero;
    dls_dtype dtype = dls_dtype_accumulator(set->dtype);
    if (!zero)
        return dls_comm_all_reduce(p->mirror, set->grads, set->elements, dtype, DLS_SUM,
                                   p->reduction);
    for (int k = 0; k < dls_zero_slices(zero); k++) {
        size_t count = dls_zero_slice_at(zero, k).count;
        void *slice = (void *)dls_zero_gradient(zero, k, &dtype);
        if (count > 0)
            DLS_TRY(dls_comm_all_reduce(p->mirror, slice, count, dtype, DLS_SUM,
                                        p->reduction));
    }
    return DLS_OK;
}

static dls_status reduce_all(dls_pipeline *p)
{
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(dls_pipeline_reduce(p, s));
    for (int s = 0; s < p->stages; s++)
        if (p->update[s].zero)
            DLS_TRY(dls_zero_finish(p->update[s].zero));
    DLS_CUDA(cudaEventRecord(p->computed, p->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(p->reduction, p->computed, 0));
    for (int s = 0; p->mirror && s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(add_mirror(p, s));
    DLS_CUDA(cudaEventRecord(p->reduced, p->reduction));
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, p->reduced, 0));
    return DLS_OK;
}

static dls_status add_tied(dls_pipeline *p)
{
    const dls_stage_update *first = &p->update[0], *last = &p->update[p->stages - 1];
    if (!p->model.tied_head || p->stages == 1 || (!first->stage && !last->stage))
        return DLS_OK;
    size_t n = 0;
    void *a = first->stage ? dls_stage_table(first, &n) : NULL;
    void *b = last->stage ? dls_stage_table(last, &n) : NULL;
    dls_ctx wide = dls_ctx_accumulator(p->ctx);
    if (n == 0)
        return DLS_OK;
    if (p->tied)
        return dls_comm_all_reduce(p->tied, a ? a : b, n, wide.dtype, DLS_SUM,
                                   p->ctx->stream);
    DLS_TRY(dls_add(&wide, a, a, b, n));
    DLS_CUDA(cudaMemcpyAsync(b, a, n * dls_dtype_size(wide.dtype),
                             cudaMemcpyDeviceToDevice, p->ctx->stream));
    return DLS_OK;
}

dls_status dls_pipeline_sum_parts(dls_pipeline *p, double *sum)
{
    dls_comm *over = dls_copies_counted_over(p->o.axes);
    return over ? dls_comm_all_reduce(over, sum, 1, DLS_F64, DLS_SUM, p->ctx->stream)
                : DLS_OK;
}

static dls_status find_coefficient(dls_pipeline *p)
{
    double *sum = p->scalars, *norm = sum + 1, *coefficient = sum + 2;
    DLS_CUDA(cudaMemsetAsync(sum, 0, sizeof *sum, p->ctx->stream));
    for (int s = 0; s < p->stages; s++)
        if (p->stage[s])
            DLS_TRY(dls_stage_update_square(&p->update[s], sum));
    DLS_TRY(dls_pipeline_sum_parts(p, sum));
    if (p->o.validate)
        return dls_pipeline_trust(p);
    int apart = p->o.axes && p->o.axes->apart;
    if (p->o.zero && !apart)    // every replica has squared its slices
        DLS_TRY(dls_comm_all_reduce(p->data, sum, 1, DLS_F64, DLS_SUM, p->ctx->stream));
    DLS_TRY(dls_comm_all_reduce(p->pipe, sum, 1, DLS_F64, DLS_SUM, p->ctx->stream));
    return dls_clip_coefficient(p->ctx, coefficient, norm, sum, p->o.adamw.clip);
}

/* update a stage */
dls_status dls_pipeline_update(dls_pipeline *p, int stage)
{
    if (p->o.schedule->step_every > 0)
        return dls_pipeline_step_alone(p, stage);
    if (!p->updating) {
        p->updating = 1;
        DLS_TRY(reduce_all(p));
        DLS_TRY(add_tied(p));
        DLS_TRY(find_coefficient(p));
    }
    p->update[stage].stepped = 1;
    return dls_stage_update_apply(&p->update[stage], &p->o.adamw, p->lr, p->step,
                                  p->scalars + 2);
}

dls_status dls_pipeline_put(dls_pipeline *p, int stage, const void *values)
{
    return dls_stage_update_put(&p->update[stage], values);
}

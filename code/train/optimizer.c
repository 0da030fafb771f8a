/* code/train/optimizer.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The optimizer walks the parameters in stretches of equal decay flag:
 *
 *   | wte wpe | ln1.weight ln1.bias | qkv.weight | qkv.bias | proj.weight | ...
 *     decay     none                  decay        none       decay
 *
 * Nothing here waits for the device: the clip coefficient stays in its memory.
 */
#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "parallel/expert/copies.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* update stretches of equal decay */
static dls_status update_range(dls_optimizer *o, int from, int to, double lr,
                               int64_t step, const double *coefficient)
{
    const dls_param *a = &o->params->items[from], *z = &o->params->items[to - 1];
    const dls_adamw_options *w = &o->options;
    size_t at = a->offset * dls_dtype_size(dls_dtype_accumulator(o->ctx->dtype));
    void *master = o->master ? (char *)o->master + at : NULL;
    dls_adamw_rates rates = dls_adamw_rates_at(w->beta1, w->beta2, step);
    if (o->frozen) { /* the gradient is the new momentum */
        rates.scale2 = dls_adamw_rates_at(w->beta1, w->beta2, o->frozen).scale2;
        rates.beta1 = rates.rest2 = 0;
        rates.rest1 = rates.beta2 = 1;
    }
    rates.lr = lr;
    rates.epsilon = w->epsilon;
    rates.decay = a->decay ? w->weight_decay : 0;
    return dls_adamw_with(o->ctx, a->value, master, a->grad, (char *)o->m + at,
                          (char *)o->v + at, z->offset + z->count - a->offset, &rates,
                          coefficient);
}

/* update all stretches */
static dls_status update_all(dls_optimizer *o, double lr, int64_t step,
                             const double *coefficient)
{
    const dls_params *set = o->params;
    for (int from = 0, to; from < set->n; from = to) {
        for (to = from + 1; to < set->n; to++)
            if (set->items[to].decay != set->items[from].decay
                || set->items[to].frozen != set->items[from].frozen)
                break;
        if (!set->items[from].frozen)
            DLS_TRY(update_range(o, from, to, lr, step, coefficient));
    }
    return DLS_OK;
}

/* add up the squares */
/* Of all gradients but those of frozen parameters; where they are cut, each element on
 * one rank, and then the sum over all. */
static dls_status add_squares(dls_optimizer *o, double *square_sum)
{
    dls_ctx wide = dls_ctx_accumulator(o->ctx);     // the gradients' type
    const dls_params *set = o->params;
    dls_counter who = dls_copies_counter(o->axes, 0);
    dls_comm *over = dls_copies_counted_over(o->axes);
    for (dls_stretch s = {0}; dls_counted_next(set->items, set->n, &who, NULL, 1, &s);)
        DLS_TRY(dls_square_sum(&wide, square_sum, (char *)set->grads
                               + s.first * dls_dtype_size(wide.dtype), s.count));
    return over ? dls_comm_all_reduce(over, square_sum, 1, DLS_F64, DLS_SUM,
                                      o->ctx->stream) : DLS_OK;
}

/* clip and step */
dls_status dls_optimizer_step(dls_optimizer *o, double lr, int64_t step)
{
    double *square_sum = o->scalars, *norm = o->scalars + 1, *coef = o->scalars + 2;
    dls_status s = DLS_OK;
    DLS_CUDA(cudaMemsetAsync(square_sum, 0, sizeof *square_sum, o->ctx->stream));
    dls_trace_range_push("optimizer");
    DLS_TRY_GOTO(s, add_squares(o, square_sum), done);
    DLS_TRY_GOTO(s, dls_clip_coefficient(o->ctx, coef, norm, square_sum,
                                         o->frozen ? 0 : o->options.clip), done);
    DLS_TRY_GOTO(s, update_all(o, lr, step, coef), done);
done:
    dls_trace_range_pop();
    return s;
}

/* clear and free the optimizer */
static dls_status clear_moments(dls_optimizer *o)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(o->ctx->dtype));
    size_t bytes = o->params->elements * size;
    DLS_CUDA(cudaMemsetAsync(o->m, 0, bytes, o->ctx->stream));
    DLS_CUDA(cudaMemsetAsync(o->v, 0, bytes, o->ctx->stream));
    return DLS_OK;
}

void dls_optimizer_free(dls_optimizer *o)
{
    if (!o)
        return;
    dls_device_free(o->master);
    dls_device_free(o->m);
    dls_device_free(o->v);
    dls_device_free(o->scalars);
    free(o);
}

size_t dls_optimizer_predict_memory(size_t elements, dls_dtype dtype)
{
    dls_dtype wide = dls_dtype_accumulator(dtype);
    int buffers = wide == dtype ? 2 : 3;
    return buffers * elements * dls_dtype_size(wide) + 3 * sizeof(double);
}

dls_status dls_optimizer_put(dls_optimizer *o, const void *values)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(o->ctx->dtype));
    DLS_TRY(dls_params_put(o->params, values));
    if (o->master)
        DLS_CUDA(cudaMemcpy(o->master, values, o->params->elements * size,
                            cudaMemcpyHostToDevice));
    return DLS_OK;
}

void *dls_optimizer_values(const dls_optimizer *o)
{
    return o->master ? o->master : o->params->values;
}

/* create the optimizer */
static dls_status allocate_state(dls_optimizer *o)
{
    size_t n = o->params->elements;
    dls_dtype wide = dls_dtype_accumulator(o->ctx->dtype);
    if (wide != o->ctx->dtype)
        DLS_TRY(dls_flat_buffer(&o->master, n * dls_dtype_size(wide),
                                DLS_MEM_OPTIMIZER));
    DLS_TRY(dls_device_alloc(&o->m, n, wide, DLS_MEM_OPTIMIZER));
    DLS_TRY(dls_device_alloc(&o->v, n, wide, DLS_MEM_OPTIMIZER));
    return dls_flat_buffer((void **)&o->scalars, 3 * sizeof(double), DLS_MEM_OPTIMIZER);
}

dls_status dls_optimizer_create(dls_optimizer **out, dls_ctx *ctx, dls_params *params,
                                const dls_adamw_options *options)
{
    dls_optimizer *o = calloc(1, sizeof *o);
    dls_status s;
    if (!o)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the optimizer");
    *o = (dls_optimizer){.ctx = ctx, .params = params, .options = *options};
    DLS_TRY_GOTO(s, allocate_state(o), fail);
    DLS_TRY_GOTO(s, clear_moments(o), fail);
    *out = o;
    return DLS_OK;
fail:
    dls_optimizer_free(o);
    return s;
}

/* follow the schedule */
double dls_lr_schedule_at(const dls_lr_schedule *s, int64_t step)
{
    if (step <= s->warmup)
        return s->maximum * (double)step / (double)s->warmup;
    if (step >= s->steps)
        return s->minimum;
    double part = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->minimum + 0.5 * (s->maximum - s->minimum) * (1 + cos(M_PI * part));
}

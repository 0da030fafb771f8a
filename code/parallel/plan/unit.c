/* code/parallel/plan/unit.c: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* Passes of single units over memory that nobody touches. */
#include "parallel/plan/unit.h"

#include <math.h>

#include "comm/scratch.h"

/* open a recorder */
dls_status dls_planner_open(dls_planner *r, dls_dtype dtype)
{
    size_t whole;
    *r = (dls_planner){.latency = dls_gpu_cluster()->device.launch_latency};
    DLS_TRY(dls_ctx_create(&r->ctx, 0, dtype));
    DLS_CUDA(cudaMemGetInfo(&r->bytes, &whole));
    DLS_CUDA(cudaMalloc((void **)&r->memory, r->bytes));
    return DLS_OK;
}

void dls_planner_close(dls_planner *r)
{
    cudaFree(r->memory);
    dls_ctx_destroy(&r->ctx);
    *r = (dls_planner){0};
}

/* record what is enqueued */
dls_status dls_planner_begin(dls_planner *r)
{
    (void)r;
    return dls_gpu_record();
}

/* The compute stream is the one that the first operation of a pass is on. */
dls_status dls_planner_end(dls_planner *r, dls_part *out)
{
    const dls_gpu_note *notes;
    double host;
    int n;
    DLS_TRY(dls_gpu_recorded(&notes, &n, &host));
    return dls_part_fold(notes, n, host, n > 0 ? notes[0].stream : 0, r->latency, out);
}

/* lay everything on one place */
static dls_status fits(const dls_planner *r, size_t bytes, const char *what)
{
    if (bytes <= r->bytes)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_MEMORY, "%s of one unit take %zu bytes, a device has %zu",
                    what, bytes, r->bytes);
}

dls_status dls_planner_place(dls_planner *r, dls_params *set)
{
    size_t wide = dls_dtype_size(dls_dtype_accumulator(r->ctx.dtype));
    set->dtype = r->ctx.dtype;
    DLS_TRY(fits(r, set->elements * wide, "the gradients"));
    set->values = set->grads = r->memory;
    for (int i = 0; i < set->n; i++) {
        dls_param *p = &set->items[i];
        p->value = r->memory + p->offset * dls_dtype_size(r->ctx.dtype);
        p->grad = r->memory + p->offset * wide;
    }
    return DLS_OK;
}

static dls_status lay_out(dls_planner *r, const dls_planned_pass *how,
                          dls_transformer *t, dls_pass *p)
{
    DLS_TRY(dls_planner_place(r, &t->params));
    DLS_TRY(fits(r, dls_plan_bytes(&t->plan), "the activations"));
    *p = t->pass;
    dls_pass_regions(p, &t->plan, r->memory);
    p->B = how->B;
    p->T = how->T;
    p->tokens = p->targets = (int *)r->memory;
    p->drops = 1;
    p->loss_scale = 1;
    return DLS_OK;
}

/* imagine the axes */
static dls_status imagine(dls_comm **out, int rank, int stride, int n)
{
    *out = NULL;
    return n > 1 ? dls_comm_imagine(out, rank, 0, stride, n) : DLS_OK;
}

/* The groups of this rank as the mesh numbers them: tensor nearest, context next. */
static dls_status open_axes(dls_axes *a, const dls_transformer_config *c)
{
    const dls_sharding *s = &c->sharding;
    int t = s->tensor > 1 ? s->tensor : 1, n = s->context > 1 ? s->context : 1;
    int copies = t > c->kv_heads ? t / c->kv_heads : 1;
    int inner = s->way == DLS_CONTEXT_ULYSSES ? n : s->ulysses > 1 ? s->ulysses : 1;
    int outer = n / inner;
    *a = (dls_axes){.sharding = *s};
    DLS_TRY(imagine(&a->tensor, s->tensor_rank, 1, t));
    DLS_TRY(imagine(&a->kv, s->tensor_rank % copies, 1, copies));
    DLS_TRY(imagine(&a->context, s->context_rank, t, n));
    DLS_TRY(imagine(&a->ulysses, s->context_rank % inner, t, inner));
    DLS_TRY(imagine(&a->ring, s->context_rank / inner, t * inner, outer));
    DLS_CUDA(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking));
    DLS_CUDA(cudaEventCreateWithFlags(&a->ready, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&a->arrived, cudaEventDisableTiming));
    return DLS_OK;
}

static void close_axes(dls_axes *a)
{
    dls_comm *all[] = {a->tensor, a->kv, a->context, a->ulysses, a->ring};
    for (int i = 0; i < 5; i++)
        dls_comm_destroy(all[i]);
    if (a->stream)
        cudaStreamDestroy(a->stream);
    if (a->ready)
        cudaEventDestroy(a->ready);
    if (a->arrived)
        cudaEventDestroy(a->arrived);
}

/* record the passes */
static dls_status record_forward(dls_planner *r, dls_transformer *t, dls_pass *p,
                                 dls_part *out)
{
    DLS_TRY(dls_planner_begin(r));
    dls_status s = t->top->kind->forward(t->top, p, r->memory, r->memory);
    dls_status ended = dls_planner_end(r, out);
    return s != DLS_OK ? s : ended;
}

static dls_status record_backward(dls_planner *r, dls_transformer *t, dls_pass *p,
                                  int first, dls_planned_unit *out)
{
    void *dx = first ? NULL : r->memory;
    dls_layer *top = t->top;
    dls_part *part[] = {&out->B, &out->I, &out->W};
    dls_status s = DLS_OK, ended = DLS_OK;
    for (int i = t->config.split_backward; s == DLS_OK && i <= 2; i++) {
        for (int k = 0; k < t->params.n; k++)
            p->pending[k] = t->params.items[k].uses;
        DLS_TRY(dls_planner_begin(r));
        s = i == 0 ? dls_layer_backward(top, p, dx, r->memory, r->memory, NULL)
          : i == 1 ? top->kind->backward_input(top, p, dx, r->memory, r->memory, NULL)
                   : top->kind->backward_weight(top, p, r->memory, r->memory);
        ended = dls_planner_end(r, part[i]);
        if (!t->config.split_backward)
            break;
    }
    return s != DLS_OK ? s : ended;
}

/* record a unit */
static dls_status make_unit(dls_planner *r, const dls_planned_pass *pass, int from,
                            int to, dls_transformer **out)
{
    dls_transformer_config c = *pass->model;
    c.from_unit = from;
    c.to_unit = to;
    c.unplaced = 1;
    c.split_backward = pass->split;
    DLS_TRY(dls_planner_begin(r));
    dls_status s = dls_transformer_create(out, &r->ctx, &c, pass->B, pass->T);
    dls_part ignored;
    dls_status ended = dls_planner_end(r, &ignored);
    return s != DLS_OK ? s : ended;
}

static dls_status record_both(dls_planner *r, const dls_planned_pass *pass,
                              dls_transformer *t, int from, dls_planned_unit *out)
{
    dls_pass p;
    DLS_TRY(lay_out(r, pass, t, &p));
    if (t->config.sharding.context > 1) {
        p.positions = p.tokens;
        p.T_whole = pass->T * t->config.sharding.context;
    }
    DLS_TRY(record_forward(r, t, &p, &out->F));
    return record_backward(r, t, &p, from == 0, out);
}

dls_status dls_planner_unit(dls_planner *r, const dls_planned_pass *pass, int from,
                                int to, dls_planned_unit *out)
{
    dls_transformer *t = NULL;
    dls_axes axes = {0};
    *out = (dls_planned_unit){0};
    dls_status s = open_axes(&axes, pass->model);
    if (s == DLS_OK)
        s = make_unit(r, pass, from, to, &t);
    if (s == DLS_OK)
        dls_transformer_connect(t, &axes);
    if (s == DLS_OK)
        s = record_both(r, pass, t, from, out);
    if (pass->split)
        out->B = dls_part_then(out->I, out->W);
    dls_transformer_free(t);
    close_axes(&axes);
    return s;
}

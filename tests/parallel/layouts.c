/* tests/parallel/layouts.c: from chapters/04-data-parallelism-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* The truth on one device, the layout on all ranks, and the comparison. */
#include "layouts.h"

#include "base/rng.h"
#include "data/sampler.h"
#include "exact_model.h"

/* run a pass of rows */
int layout_pass_rows(const layout_rows *r, int i)
{
    int left = r->rows - i * r->micro;
    return left <= 0 ? 0 : left < r->micro ? left : r->micro;
}

dls_status layout_pass(const layout_rows *r, int i, const dls_grad_hook *hook)
{
    int B = layout_pass_rows(r, i), at = i * r->micro * r->T;
    size_t size = dls_dtype_size(dls_dtype_accumulator(r->model->ctx->dtype));
    if (B == 0)
        return DLS_OK;
    DLS_TRY(dls_transformer_forward(r->model, r->tokens + at, r->targets + at, B, r->T));
    DLS_CUDA(cudaMemcpyAsync(r->losses + at * size, dls_transformer_losses(r->model),
                             (size_t)B * r->T * size, cudaMemcpyDeviceToDevice,
                             r->model->ctx->stream));
    return dls_transformer_backward(r->model, r->loss_scale, hook);
}

/* hold a side */
typedef struct side {
    dls_ctx ctx;
    dls_transformer *model;
    layout_rows rows;
    int *ids;           // tokens, then targets: device
} side;

static int draw_id(int stream, int i, int vocabulary)
{
    return (int)(dls_rng_u32(5, (uint64_t)stream, (uint64_t)i) % (unsigned)vocabulary);
}

dls_transformer_config layout_config(const layout_proof *p)
{
    dls_transformer_config c = p->exact ? exact_model_config()
        : p->llama ? dls_transformer_llama(13, 6, 3, 2, 1, 12, 14)
                   : dls_transformer_gpt2(13, 6, 3, 2, 10);
    c.tied_head = !p->untied;
    c.layers = p->layers ? p->layers : c.layers;
    return c;
}

static dls_status make_model(side *s, const layout_proof *p, int unplaced)
{
    dls_transformer_config c = layout_config(p);
    c.unplaced = unplaced;
    if (p->exact)
        return exact_model_make(&s->model, &s->ctx, &c, p->micro, c.context);
    return dls_transformer_create(&s->model, &s->ctx, &c, p->micro, c.context);
}

/* Rows first ... first + n - 1 of the batch. */
static dls_status load_rows(side *s, const layout_proof *p, int first, int n, int most)
{
    int T = s->model->config.context, V = s->model->config.vocabulary;
    int ids[2 * p->rows * T + 1];
    for (int i = 0; i < n * T; i++) {
        ids[i] = draw_id(1, first * T + i, V);
        ids[n * T + i] = draw_id(2, first * T + i, V);
    }
    s->rows = (layout_rows){.model = s->model, .rows = n, .micro = p->micro, .T = T,
                            .passes = (most + p->micro - 1) / p->micro,
                            .loss_scale = p->exact ? 1 : 1.0 / (p->rows * T)};
    DLS_TRY(dls_device_alloc((void **)&s->ids, 2 * (size_t)n * T + 1, DLS_F32,
                             DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc((void **)&s->rows.losses, (size_t)n * T + 1, DLS_F64,
                             DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(s->ids, ids, 2 * (size_t)n * T * sizeof *ids,
                        cudaMemcpyHostToDevice));
    s->rows.tokens = s->ids;
    s->rows.targets = s->ids + n * T;
    return DLS_OK;
}

static dls_status open_side(side *s, const layout_proof *p, int unplaced, int first,
                            int n, int most)
{
    *s = (side){0};
    DLS_TRY(dls_ctx_create(&s->ctx, 0, p->exact ? DLS_F32 : DLS_F64));
    DLS_TRY(make_model(s, p, unplaced));
    return load_rows(s, p, first, n, most);
}

static void close_side(side *s)
{
    dls_device_free(s->ids);
    dls_device_free(s->rows.losses);
    dls_transformer_free(s->model);
    dls_ctx_destroy(&s->ctx);
}

static dls_status sum_losses(const side *s, double *sum)
{
    size_t n = (size_t)s->rows.rows * s->rows.T, size = dls_dtype_size(s->ctx.dtype);
    double room[n + 1];
    *sum = 0;
    DLS_CUDA(cudaMemcpy(room, s->rows.losses, n * size, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++)
        *sum += s->ctx.dtype == DLS_F64 ? room[i] : ((float *)room)[i];
    return DLS_OK;
}

/* step on one device */
static dls_status step_alone(side *s, dls_optimizer *o, double lr, int64_t step)
{
    DLS_TRY(dls_params_zero_grads(&s->model->params, &s->ctx));
    for (int i = 0; i < s->rows.passes; i++)
        DLS_TRY(layout_pass(&s->rows, i, NULL));
    DLS_TRY(dls_optimizer_step(o, lr, step));
    return dls_ctx_sync(&s->ctx);
}

/* compare a piece */
typedef struct comparison {
    const side *truth;
    const layout_proof *proof;
    int64_t step;
    size_t seen[2];     // gradients, values
} comparison;

static double at(const void *p, size_t i, dls_dtype dtype)
{
    return dtype == DLS_F64 ? ((const double *)p)[i] : ((const float *)p)[i];
}

static dls_status fetch(double *to, const void *from, size_t first, size_t count,
                        dls_dtype dtype)
{
    size_t size = dls_dtype_size(dtype);
    DLS_CUDA(cudaMemcpy(to, (const char *)from + first * size, count * size,
                        cudaMemcpyDefault));
    return DLS_OK;
}

static dls_status compare_array(const comparison *c, const char *what, size_t first,
                                size_t count, const void *device, const void *truth)
{
    const dls_params *set = &c->truth->model->params;
    double got[count + 1], want[count + 1];
    DLS_TRY(fetch(got, device, 0, count, set->dtype));
    DLS_TRY(fetch(want, truth, first, count, set->dtype));
    for (size_t i = 0; i < count; i++) {
        double a = at(got, i, set->dtype), b = at(want, i, set->dtype);
        if (c->proof->exact ? a == b : fabs(a - b) <= 1e-10 * fabs(b) + 1e-12)
            continue;
        int k = set->n - 1;
        while (set->items[k].offset > first + i)
            k--;
        return DLS_FAIL(DLS_ERR_STATE, "%s, step %lld: %s %s[%zu] is %.17g instead of "
                        "%.17g", c->proof->layout->name, (long long)c->step, what,
                        set->items[k].name, first + i - set->items[k].offset, a, b);
    }
    return DLS_OK;
}

static dls_status see_piece(void *to, size_t first, size_t count, const void *grads,
                            const void *values)
{
    comparison *c = to;
    const dls_params *set = &c->truth->model->params;
    EXPECT(first + count <= set->elements, "%s: a piece [%zu, %zu) of %zu elements",
           c->proof->layout->name, first, first + count, set->elements);
    if (grads)
        DLS_TRY(compare_array(c, "gradient", first, count, grads, set->grads));
    if (values)
        DLS_TRY(compare_array(c, "value", first, count, values, set->values));
    c->seen[0] += grads ? count : 0;
    c->seen[1] += values ? count : 0;
    return DLS_OK;
}

/* compare the losses */
typedef struct share { double loss, seen[2]; } share;

static dls_status compare_shares(const comparison *c, dls_comm *comm, const side *mine)
{
    int n = dls_comm_size(comm);
    share here = {0, {(double)c->seen[0], (double)c->seen[1]}}, all[n], sum = {0};
    double want, whole = (double)c->truth->model->params.elements;
    DLS_TRY(sum_losses(mine, &here.loss));
    DLS_TRY(sum_losses(c->truth, &want));
    DLS_TRY(dls_comm_all_gather_host(comm, &here, sizeof here, all));
    for (int i = 0; i < n; i++) {
        sum.loss += all[i].loss;
        for (int k = 0; k < 2; k++)
            sum.seen[k] += all[i].seen[k];
    }
    EXPECT(c->proof->exact ? sum.loss == want : fabs(sum.loss - want) < 1e-10 * want,
           "%s, step %lld: loss %.17g instead of %.17g", c->proof->layout->name,
           (long long)c->step, sum.loss, want);
    for (int k = 0; k < 2; k++)
        EXPECT(sum.seen[k] >= whole, "%s: %g of %g %s were shown",
               c->proof->layout->name, sum.seen[k], whole, k ? "values" : "gradients");
    return DLS_OK;
}

/* prove a layout */
static dls_status run_steps(side *truth, side *mine, const layout_proof *p,
                            dls_optimizer *o, void *self, dls_comm *comm)
{
    for (int64_t step = 1; step <= p->steps; step++) {
        comparison c = {truth, p, step, {0, 0}};
        DLS_TRY(step_alone(truth, o, 1.0 / 64, step));
        DLS_TRY(p->layout->step(self, &mine->rows, 1.0 / 64, step));
        DLS_TRY(dls_ctx_sync(&mine->ctx));
        DLS_TRY(p->layout->visit(self, see_piece, &c));
        DLS_TRY(compare_shares(&c, comm, mine));
    }
    return DLS_OK;
}

static dls_status run_both(side *truth, side *mine, const layout_proof *p,
                           dls_comm *comm)
{
    dls_adamw_options adamw = {0.875, 0.96875, 1e-8, 0.125, p->clip};
    dls_params *set = &truth->model->params;
    double *values = calloc(set->elements, sizeof *values);
    dls_optimizer *o;
    void *self;
    EXPECT(values, "no memory");
    if (p->exact)
        exact_model_fill(set, values);
    else
        dls_params_fill(set, 7, values);
    DLS_TRY(dls_optimizer_create(&o, &truth->ctx, set, &adamw));
    DLS_TRY(dls_optimizer_put(o, values));
    DLS_TRY(p->layout->open(&self, p->layout, mine->model, comm, values, &adamw));
    DLS_TRY(run_steps(truth, mine, p, o, self, comm));
    p->layout->close(self);
    dls_optimizer_free(o);
    free(values);
    return DLS_OK;
}

dls_status layout_prove_in(dls_comm *comm, const layout_proof *p)
{
    side truth, mine;
    dls_sampler batch = {.batch = p->rows};
    int first, n, rank = dls_comm_rank(comm);
    int pipeline = p->pipeline ? p->pipeline : 1;
    int replicas = dls_comm_size(comm) / pipeline;
    dls_sampler_share(&batch, rank / pipeline, replicas, &first, &n);
    int most = (p->rows + replicas - 1) / replicas;
    DLS_TRY(open_side(&truth, p, 0, 0, p->rows, p->rows));
    DLS_TRY(open_side(&mine, p, p->layout->unplaced, first, n, most));
    DLS_TRY(run_both(&truth, &mine, p, comm));
    close_side(&mine);
    close_side(&truth);
    return DLS_OK;
}

dls_status layout_prove(int rank, void *proof)
{
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(layout_prove_in(comm, proof));
    dls_comm_destroy(comm);
    return DLS_OK;
}

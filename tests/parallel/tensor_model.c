/* tests/parallel/tensor_model.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Both sides, and the comparison element by element. */
#include "tensor_model.h"

#include "base/rng.h"
#include "tensor/bf16.h"

/* describe the tensor model */
dls_transformer_config tensor_config(const tensor_case *c)
{
    int H = c->heads ? c->heads : 6, Hk = c->kv_heads ? c->kv_heads : H;
    dls_transformer_config m = c->llama
        ? dls_transformer_llama(TM_V, TM_T, 2, H, Hk, 4 * H, 22)
        : dls_transformer_gpt2(TM_V, TM_T, 2, H, 4 * H);
    m.hidden = c->hidden ? c->hidden : m.hidden;
    m.layers = c->layers ? c->layers : m.layers;
    m.tied_head = !c->untied;
    m.recompute = c->recompute;
    m.split_backward = c->split;
    m.embedding_dropout = m.attention_dropout = m.residual_dropout = c->dropout;
    return m;
}

static void draw_ids(int ids[2 * TM_N])
{
    for (int i = 0; i < 2 * TM_N; i++)
        ids[i] = (int)(dls_rng_u32(5, 1, (uint64_t)i) % TM_V);
    ids[TM_N + 2] = -1;             // two targets that do not count
    ids[TM_N + 7] = -100;
}

/* open a tensor side */
static void give_biases(dls_params *set)
{
    for (int i = 0; i < set->n; i++)
        if (set->items[i].init == DLS_INIT_ZERO) {
            set->items[i].init = DLS_INIT_NORMAL;
            set->items[i].init_scale = 0.1;
        }
}

dls_status tensor_open(tensor_side *s, const tensor_case *c, dls_comm *comm)
{
    dls_transformer_config m = tensor_config(c);
    int ids[2 * TM_N];
    *s = (tensor_side){0};
    if (comm)
        m.sharding = (dls_sharding){.tensor = dls_comm_size(comm),
                                    .tensor_rank = dls_comm_rank(comm),
                                    .sequence = c->sequence, .chunks = c->chunks};
    draw_ids(ids);
    DLS_TRY(dls_ctx_create(&s->ctx, 0, c->dtype));
    DLS_TRY(dls_axes_open(&s->axes, &m.sharding, m.kv_heads, comm, NULL));
    DLS_TRY(dls_transformer_create(&s->model, &s->ctx, &m, TM_B, TM_T));
    dls_transformer_connect(s->model, &s->axes);
    if (c->dropout > 0)
        dls_transformer_drop(s->model, 3, 1, 5);
    DLS_TRY(dls_device_alloc((void **)&s->ids, 2 * TM_N, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(s->ids, ids, sizeof ids, cudaMemcpyHostToDevice));
    give_biases(&s->model->params);
    return dls_params_initialise(&s->model->params, 7);
}

void tensor_close(tensor_side *s)
{
    dls_device_free(s->ids);
    dls_transformer_free(s->model);
    dls_axes_close(&s->axes);
    dls_ctx_destroy(&s->ctx);
}

/* run a tensor side */
static dls_status fetch(double *to, const void *from, size_t n, dls_dtype dtype)
{
    DLS_CUDA(cudaMemcpy(to, from, n * dls_dtype_size(dtype), cudaMemcpyDefault));
    for (size_t i = n; dtype == DLS_F32 && i-- > 0;)
        to[i] = ((float *)to)[i];
    return DLS_OK;
}

dls_status tensor_forward(tensor_side *s, const tensor_case *c)
{
    DLS_TRY(dls_transformer_forward(s->model, s->ids, s->ids + TM_N, TM_B, TM_T));
    DLS_TRY(dls_ctx_sync(&s->ctx));
    return fetch(s->losses, dls_transformer_losses(s->model), TM_N,
                 dls_dtype_accumulator(c->dtype));
}

/* complete the shared gradients */
static dls_status add_up(const dls_param *p, dls_comm *comm, dls_dtype wide, int shared,
                         cudaStream_t stream)
{
    size_t size = dls_dtype_size(wide);
    for (size_t at = 0, run; at < p->count; at += run) {
        int piece = -1;
        dls_param_global(p, at, &run, &piece);
        if (!shared || (piece >= 0 && p->piece[piece].sharers > 1))
            DLS_TRY(dls_comm_all_reduce(comm, (char *)p->grad + at * size, run, wide,
                                        DLS_SUM, stream));
    }
    return DLS_OK;
}

dls_status tensor_backward(tensor_side *s, const tensor_case *c)
{
    dls_params *set = &s->model->params;
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    DLS_TRY(dls_params_zero_grads(set, &s->ctx));
    if (c->split) {
        DLS_TRY(dls_transformer_backward_input(s->model, 0.25));
        DLS_TRY(dls_transformer_backward_weight(s->model, NULL));
    } else {
        DLS_TRY(dls_transformer_backward(s->model, 0.25, NULL));
    }
    for (int i = 0; i < set->n; i++) {
        if (set->items[i].partial)
            DLS_TRY(add_up(&set->items[i], s->axes.tensor, wide, 0, s->ctx.stream));
        if (s->axes.kv)
            DLS_TRY(add_up(&set->items[i], s->axes.kv, wide, 1, s->ctx.stream));
    }
    return dls_ctx_sync(&s->ctx);
}

/* compare tensor sides */
static int near(double a, double b, double relative, double absolute)
{
    return fabs(a - b) <= relative * fabs(b) + absolute;
}

static dls_status compare_gradient(const dls_param *p, const dls_param *truth,
                                   dls_dtype wide, double relative, double absolute)
{
    size_t n = dls_param_whole(p);
    double got[p->count + 1], want[n + 1];
    EXPECT(n == truth->count, "%s has %zu elements", p->name, n);
    DLS_TRY(fetch(got, p->grad, p->count, wide));
    DLS_TRY(fetch(want, truth->grad, n, wide));
    for (size_t i = 0; i < p->count; i++) {
        size_t k = dls_param_global(p, i, NULL, NULL);
        EXPECT(near(got[i], want[k], relative, absolute),
               "gradient %s[%zu] is %.17g instead of %.17g", p->name, k, got[i], want[k]);
    }
    return DLS_OK;
}

/* error and size: the largest so far. */
static dls_status measure(const dls_param *p, dls_dtype type, const dls_param *truth,
                          double *error, double *size)
{
    double got[p->count + 1], want[truth->count + 1];
    DLS_TRY(fetch(got, p->grad, p->count, type));
    DLS_TRY(fetch(want, truth->grad, truth->count, DLS_F64));
    for (size_t i = 0; i < p->count; i++)
        *error = fmax(*error, fabs(got[i] - want[dls_param_global(p, i, NULL, NULL)]));
    for (size_t i = 0; i < truth->count; i++)
        *size = fmax(*size, fabs(want[i]));
    return DLS_OK;
}

dls_status tensor_distance(const tensor_side *s, const tensor_side *truth,
                           double *distance)
{
    const dls_params *set = &s->model->params;
    dls_dtype wide = dls_dtype_accumulator(s->ctx.dtype);
    *distance = 0;
    for (int i = 0; i < set->n; i++) {
        double error = 0, size = 1e-300;
        DLS_TRY(measure(&set->items[i], wide, &truth->model->params.items[i], &error,
                        &size));
        *distance = fmax(*distance, error / size);
    }
    return DLS_OK;
}

dls_status tensor_compare(const tensor_side *cut, const tensor_side *whole,
                          double relative, double absolute)
{
    const dls_params *set = &cut->model->params;
    dls_dtype wide = dls_dtype_accumulator(cut->ctx.dtype);
    for (int n = 0; n < TM_N; n++)
        EXPECT(near(cut->losses[n], whole->losses[n], relative, absolute),
               "loss %d is %.17g instead of %.17g", n, cut->losses[n], whole->losses[n]);
    for (int i = 0; i < set->n; i++)
        DLS_TRY(compare_gradient(&set->items[i], &whole->model->params.items[i], wide,
                                 relative, absolute));
    return DLS_OK;
}

dls_status tensor_prove(int rank, void *arg)
{
    const tensor_case *c = arg;
    tensor_side whole, cut;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(tensor_open(&whole, c, NULL));
    DLS_TRY(tensor_open(&cut, c, comm));
    for (int pass = 0; pass < 2; pass++) {
        DLS_TRY(tensor_forward(&whole, c));
        DLS_TRY(tensor_forward(&cut, c));
        DLS_TRY(tensor_backward(&whole, c));
        DLS_TRY(tensor_backward(&cut, c));
        DLS_TRY(tensor_compare(&cut, &whole, 1e-10, 1e-12));
    }
    tensor_close(&cut);
    tensor_close(&whole);
    dls_comm_destroy(comm);
    return DLS_OK;
}

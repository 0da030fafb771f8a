/* tests/parallel/test_context_model.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Transformers whose sequences are spread over ranks: losses, gradients, masks. */
#include "../comm/world.h"

#include "base/rng.h"
#include "layers/token_order.h"
#include "model/transformer.h"
#include "parallel/tensor/gradients.h"

/* describe a context model */
enum { CM_V = 23, CM_B = 2, CM_T = 24, CM_ROWS = CM_B * CM_T };

typedef struct model_case {
    dls_context_way way;
    dls_token_order order;
    int ranks, ulysses;             // of the context axis; of a group
    int tensor, sequence;           // ranks of the tensor axis; slices of rows
    int llama, split;
    dls_recompute recompute;
    double rows_dropped, weights_dropped;
} model_case;

typedef struct model_side {
    dls_ctx ctx;
    dls_transformer *model;
    dls_axes axes;
    dls_comm *tensor, *context;
    int *device, T, *positions;     // tokens, targets, positions; of this rank
    int rows[CM_ROWS];              // in the whole
    double losses[CM_ROWS];
} model_side;

static dls_transformer_config config_of(const model_case *c)
{
    dls_transformer_config m = c->llama
        ? dls_transformer_llama(CM_V, CM_T, 2, 8, 4, 32, 22)
        : dls_transformer_gpt2(CM_V, CM_T, 2, 8, 32);
    m.recompute = c->recompute;
    m.split_backward = c->split;
    m.embedding_dropout = m.residual_dropout = c->rows_dropped;
    m.attention_dropout = c->weights_dropped;
    return m;
}

/* open a context model */
// The tokens of this rank, their targets and positions.
static dls_status deal(model_side *s, const dls_sharding *by)
{
    int n = by->context > 1 ? by->context : 1, at[CM_T], ids[3 * CM_ROWS];
    s->T = dls_token_count(by->order, CM_T, n, by->context_rank);
    DLS_TRY(dls_token_positions(by->order, CM_T, n, by->context_rank, at));
    for (int i = 0; i < CM_B * s->T; i++) {
        s->rows[i] = i / s->T * CM_T + at[i % s->T];
        ids[i] = (int)(dls_rng_u32(5, 1, (uint64_t)s->rows[i]) % CM_V);
        ids[CM_B * s->T + i] = (int)(dls_rng_u32(5, 2, (uint64_t)s->rows[i]) % CM_V);
        ids[2 * CM_B * s->T + i] = at[i % s->T];
    }
    DLS_TRY(dls_device_alloc((void **)&s->device, 3 * CM_ROWS, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(s->device, ids, sizeof(int) * 3 * CM_B * s->T,
                        cudaMemcpyHostToDevice));
    s->positions = n > 1 ? s->device + 2 * CM_B * s->T : NULL;
    return DLS_OK;
}

// Over comm's ranks, the tensor axis nearest; NULL: the whole.
static dls_status open_side(model_side *s, const model_case *c, dls_comm *comm)
{
    dls_transformer_config m = config_of(c);
    *s = (model_side){0};
    if (comm) {
        int rank = dls_comm_rank(comm), t = c->tensor > 1 ? c->tensor : 1;
        m.sharding = (dls_sharding){
            .tensor = t, .tensor_rank = rank % t, .sequence = c->sequence,
            .context = c->ranks, .context_rank = rank / t, .way = c->way,
            .order = c->order, .ulysses = c->ulysses};
        if (t > 1)
            DLS_TRY(dls_comm_split(comm, rank / t, rank, &s->tensor));
        DLS_TRY(dls_comm_split(comm, rank % t, rank, &s->context));
    }
    /* make the model of a side */
    DLS_TRY(dls_ctx_create(&s->ctx, 0, DLS_F64));
    DLS_TRY(dls_axes_open(&s->axes, &m.sharding, m.kv_heads, s->tensor, s->context));
    DLS_TRY(deal(s, &m.sharding));
    DLS_TRY(dls_transformer_create(&s->model, &s->ctx, &m, CM_B, s->T));
    dls_transformer_connect(s->model, &s->axes);
    dls_transformer_place(s->model, s->positions, CM_T);
    if (c->rows_dropped + c->weights_dropped > 0)
        dls_transformer_drop(s->model, 3, 1, 5);
    return dls_params_initialise(&s->model->params, 7);
}

/* run a context model */
static dls_status run_side(model_side *s, const model_case *c)
{
    dls_params *set = &s->model->params;
    DLS_TRY(dls_transformer_forward(s->model, s->device, s->device + CM_B * s->T, CM_B,
                                    s->T));
    DLS_TRY(dls_ctx_sync(&s->ctx));
    DLS_CUDA(cudaMemcpy(s->losses, dls_transformer_losses(s->model),
                        sizeof(double) * CM_B * s->T, cudaMemcpyDefault));
    DLS_TRY(dls_params_zero_grads(set, &s->ctx));
    if (c->split) {
        DLS_TRY(dls_transformer_backward_input(s->model, 0.25));
        DLS_TRY(dls_transformer_backward_weight(s->model, NULL));
    } else {
        DLS_TRY(dls_transformer_backward(s->model, 0.25, NULL));
    }
    if (!s->context)
        return dls_ctx_sync(&s->ctx);
    DLS_TRY(dls_tensor_finish(&s->axes, set->items, set->n, DLS_F64, s->ctx.stream));
    DLS_TRY(dls_comm_all_reduce(s->context, set->grads, set->elements, DLS_F64, DLS_SUM,
                                s->ctx.stream));
    return dls_ctx_sync(&s->ctx);
}

static void close_side(model_side *s)
{
    dls_device_free(s->device);
    dls_transformer_free(s->model);
    dls_axes_close(&s->axes);
    dls_comm_destroy(s->tensor);
    dls_comm_destroy(s->context);
    dls_ctx_destroy(&s->ctx);
}

/* compare a context model */
static dls_status compare_sides(const model_side *cut, const model_side *whole)
{
    const dls_params *set = &cut->model->params;
    for (int i = 0; i < CM_B * cut->T; i++)
        EXPECT(fabs(cut->losses[i] - whole->losses[cut->rows[i]]) <= 1e-10,
               "loss of row %d is %.17g instead of %.17g", cut->rows[i], cut->losses[i],
               whole->losses[cut->rows[i]]);
    for (int i = 0; i < set->n; i++) {
        const dls_param *p = &set->items[i], *all = &whole->model->params.items[i];
        double got[p->count], want[all->count];
        DLS_CUDA(cudaMemcpy(got, p->grad, sizeof got, cudaMemcpyDefault));
        DLS_CUDA(cudaMemcpy(want, all->grad, sizeof want, cudaMemcpyDefault));
        for (size_t k = 0; k < p->count; k++) {
            double right = want[dls_param_global(p, k, NULL, NULL)];
            EXPECT(fabs(got[k] - right) <= 1e-10 * fabs(right) + 1e-12,
                   "gradient %s[%zu] is %.17g instead of %.17g", p->name, k, got[k],
                   right);
        }
    }
    return DLS_OK;
}


static dls_status compare_cases(int rank, void *arg)
{
    const model_case *c = arg;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    for (; c->ranks > 0; c++) {
        model_side whole, cut;
        DLS_TRY(open_side(&whole, c, NULL));
        DLS_TRY(open_side(&cut, c, comm));
        DLS_TRY(run_side(&whole, c));
        DLS_TRY(run_side(&cut, c));
        DLS_TRY(compare_sides(&cut, &whole));
        close_side(&cut);
        close_side(&whole);
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* test context models */
#define EACH_WAY(...)                           \
    {.way = DLS_CONTEXT_RING, __VA_ARGS__},     \
    {.way = DLS_CONTEXT_GATHER, __VA_ARGS__},   \
    {.way = DLS_CONTEXT_ULYSSES, __VA_ARGS__}
#define SPREAD(n, ...)                                            \
    do {                                                          \
        model_case cases_[] = {__VA_ARGS__, {.ranks = 0}};        \
        expect_ranks(n, compare_cases, cases_);                   \
    } while (0)

Test(context_model, on_two_ranks)
{
    SPREAD(2, EACH_WAY(.ranks = 2), EACH_WAY(.ranks = 2, .llama = 1),
           EACH_WAY(.ranks = 2, .order = DLS_TOKENS_STRIPED, .rows_dropped = 0.25),
           {.ranks = 2, .llama = 1, .recompute = DLS_RECOMPUTE_FULL,
            .rows_dropped = 0.25});
}

Test(context_model, on_three_ranks)
{
    SPREAD(3, {.ranks = 3}, {.ranks = 3, .llama = 1, .way = DLS_CONTEXT_GATHER},
           {.ranks = 3, .order = DLS_TOKENS_CONTIGUOUS, .rows_dropped = 0.25},
           {.ranks = 3, .split = 1, .rows_dropped = 0.25});
}

Test(context_model, on_four_ranks)
{
    SPREAD(4, EACH_WAY(.ranks = 4), EACH_WAY(.ranks = 4, .llama = 1, .split = 1),
           {.ranks = 4, .ulysses = 2, .llama = 1, .rows_dropped = 0.25},
           {.ranks = 4, .ulysses = 2, .way = DLS_CONTEXT_GATHER,
            .recompute = DLS_RECOMPUTE_SELECTIVE},
           {.ranks = 4, .way = DLS_CONTEXT_ULYSSES, .rows_dropped = 0.25,
            .weights_dropped = 0.25});
}

// Lengths that ranks can not share equally, and a pass without communicators.
static dls_status refuse_passes(int rank, void *arg)
{
    model_side s;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(open_side(&s, arg, comm));
    dls_transformer_place(s.model, s.positions, CM_T + 1);
    int *targets = s.device + CM_B * s.T;
    EXPECT(dls_transformer_forward(s.model, s.device, targets, CM_B, s.T) ==
           DLS_ERR_INPUT, "25 tokens");
    EXPECT(strstr(dls_status_message(), "25 tokens are not 12 on each of 2 ranks; the "
                  "nearest length that works is 26"), "%s", dls_status_message());
    dls_transformer_place(s.model, s.positions, CM_T);
    dls_transformer_connect(s.model, NULL);
    EXPECT(dls_transformer_forward(s.model, s.device, targets, CM_B, s.T) ==
           DLS_ERR_STATE, "no axes");
    DLS_TRY(dls_ctx_sync(&s.ctx));
    close_side(&s);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(context_model, refuses_what_it_was_not_planned_for)
{
    model_case c = {.ranks = 2};
    expect_ranks(2, refuse_passes, &c);
}

Test(context_model, beside_a_tensor_axis)
{
    SPREAD(4, EACH_WAY(.ranks = 2, .tensor = 2), EACH_WAY(.ranks = 2, .tensor = 2,
           .llama = 1, .sequence = 1, .rows_dropped = 0.25),
           {.ranks = 2, .tensor = 2, .way = DLS_CONTEXT_ULYSSES, .weights_dropped = 0.25,
            .recompute = DLS_RECOMPUTE_FULL});
}

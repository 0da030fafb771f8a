/* tests/parallel/expert_rig.c: from chapters/08-expert-proof-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* Making and running a side. */
#include "expert_rig.h"

#include "base/rng.h"
#include "exact_layers.h"
#include "model/expert_block.h"

/* deal out rows of a layer */
static int at(const expert_side *s, dls_axis axis)
{
    return s->world ? dls_mesh_coordinate(&s->c->mesh, dls_comm_rank(s->world), axis) : 0;
}

static void deal_out(expert_side *s)
{
    const expert_case *c = s->c;
    int tp = c->mesh.size[DLS_AXIS_TP], dp = c->mesh.size[DLS_AXIS_DP], B = 0;
    int replica = at(s, DLS_AXIS_DP);
    for (int i = 0; i < (s->world ? replica : dp); i++)
        B += c->B[i];
    s->pass.B = s->world ? c->B[replica] : B;
    s->pass.T = c->T;
    s->first = s->world ? B * c->T : 0;
    s->rows = s->pass.B * c->T;
    if (s->world && c->sequence) {
        s->rows /= tp;
        s->first += at(s, DLS_AXIS_TP) * s->rows;
    }
}

/* join the ranks of a layer */
static dls_status join(expert_side *s)
{
    const dls_mesh *m = &s->c->mesh;
    dls_sharding *by = &s->build.sharding;
    if (!s->world)
        return DLS_OK;
    *by = (dls_sharding){
        .tensor = m->size[DLS_AXIS_TP], .tensor_rank = at(s, DLS_AXIS_TP),
        .sequence = s->c->sequence, .expert = m->ep, .expert_rank = at(s, DLS_AXIS_EP),
        .expert_tensor = m->etp, .expert_tensor_rank = at(s, DLS_AXIS_ETP),
        .dispatch = s->c->dispatch};
    DLS_TRY(dls_mesh_split(m, s->world, DLS_BIT(DLS_AXIS_TP), &s->tensor));
    DLS_TRY(dls_mesh_split(m, s->world, DLS_BIT(DLS_AXIS_EP), &s->expert));
    DLS_TRY(dls_mesh_split(m, s->world, DLS_BIT(DLS_AXIS_ETP), &s->expert_tensor));
    DLS_TRY(dls_axes_open(&s->axes, by, 1 << 20, s->tensor, NULL));
    return dls_axes_add_experts(&s->axes, s->expert, s->expert_tensor, s->world);
}

/* build a layer of experts */
static dls_status build(expert_side *s)
{
    dls_build *b = &s->build;
    dls_transformer_config m = {.channels = ER_C, .moe = s->c->moe,
                                .mlp = s->c->gated ? DLS_MLP_SWIGLU : DLS_MLP_GELU_ERF};
    b->params = &s->params;
    b->sliced = s->world && s->c->sequence;
    s->layer = dls_block_experts(b, "moe", &m, 0.5, 0.5);
    DLS_TRY(b->status);
    return s->c->exact ? exact_exchange(b->all) : DLS_OK;
}

/* fill a side of a layer */
static double drawn(const expert_case *c, int stream, size_t i, int most)
{
    uint32_t u = dls_rng_u32(11, (uint64_t)stream, i);
    return c->exact ? (double)(u % (2 * most + 1)) - most : u / 2147483648.0 - 1;
}

static dls_status put(const expert_side *s, void *to, int stream, int most)
{
    size_t n = (size_t)s->rows * ER_C, from = (size_t)s->first * ER_C;
    for (size_t i = 0; i < n; i++) {
        double x = drawn(s->c, stream, from + i, most);
        if (s->c->exact)
            ((float *)to)[i] = (float)x;
        else
            ((double *)to)[i] = x;
    }
    return DLS_OK;
}

static dls_status bend(const expert_side *s)
{
    int E = s->c->moe.experts;
    double wide[E];
    float narrow[E];
    for (int e = 0; e < E; e++) {
        wide[e] = (e % 3 - 1) / (s->c->exact ? 1.0 : 4.0);
        narrow[e] = (float)wide[e];
    }
    const void *host = s->c->exact ? (void *)narrow : wide;
    DLS_CUDA(cudaMemcpy(s->balance.bias, host, E * dls_dtype_size(s->ctx.dtype),
                        cudaMemcpyHostToDevice));
    return DLS_OK;
}

static dls_status fill(expert_side *s)
{
    double *host = calloc(s->params.elements, sizeof *host);
    EXPECT(host, "no memory");
    if (s->c->exact)
        exact_layers_fill(&s->params, host);
    else
        dls_params_fill(&s->params, 7, host);
    dls_status status = dls_params_put(&s->params, host);
    free(host);
    DLS_TRY(status);
    DLS_TRY(bend(s));
    DLS_TRY(put(s, s->x, 1, 2));
    return put(s, s->dy, 2, 1);
}

/* open a side of a layer */
static dls_status take_room(expert_side *s)
{
    size_t bytes = (size_t)ER_ROWS * ER_C * sizeof(double);
    void **rows[] = {&s->x, &s->y, &s->dx, &s->dy};
    s->plan = (dls_plan){.max_B = s->pass.B, .max_T = s->c->T, .dtype = s->ctx.dtype,
                         .deferred = s->c->split};
    for (int i = 0; i < s->c->mesh.size[DLS_AXIS_DP]; i++)
        s->plan.max_B = s->c->B[i] > s->plan.max_B ? s->c->B[i] : s->plan.max_B;
    dls_layer_plan(s->layer, &s->plan);
    EXPECT(s->params.n <= ER_PARAMS && s->rows <= ER_ROWS, "a layer too large");
    DLS_TRY(dls_params_allocate(&s->params, &s->ctx));
    DLS_TRY(test_buffer(&s->activations, dls_plan_bytes(&s->plan)));
    DLS_TRY(dls_balance_open(&s->balance, &s->ctx, 1, s->c->moe.experts));
    for (int i = 0; i < 4; i++)
        DLS_TRY(test_buffer(rows[i], bytes));
    return DLS_OK;
}

dls_status expert_open(expert_side *s, const expert_case *c, dls_comm *world)
{
    *s = (expert_side){.c = c, .world = world};
    DLS_TRY(dls_ctx_create(&s->ctx, 0, c->exact ? DLS_F32 : DLS_F64));
    deal_out(s);
    DLS_TRY(join(s));
    DLS_TRY(build(s));
    DLS_TRY(take_room(s));
    s->pass = (dls_pass){.ctx = &s->ctx, .params = &s->params, .B = s->pass.B, .T = c->T,
                         .axes = world ? &s->axes : NULL, .pending = s->pending,
                         .host = calloc(1, s->plan.host + 1), .balance = s->balance.bias,
                         .tally = s->balance.tally, .loss_scale = c->exact ? 2 : 0.125};
    EXPECT(s->pass.host, "no memory");
    dls_pass_regions(&s->pass, &s->plan, s->activations);
    DLS_TRY(dls_ctx_sync(&s->ctx));     // the balance is cleared on the stream
    return fill(s);
}

/* run a side of a layer */
dls_status expert_run(expert_side *s)
{
    const dls_layer *l = s->layer;
    dls_pass *p = &s->pass;
    DLS_TRY(dls_params_zero_grads(&s->params, &s->ctx));
    DLS_TRY(dls_balance_clear(&s->balance));
    for (int i = 0; i < s->params.n; i++)
        s->pending[i] = s->params.items[i].uses;
    DLS_TRY(l->kind->forward(l, p, s->y, s->x));
    if (s->c->split) {
        DLS_TRY(l->kind->backward_input(l, p, s->dx, s->dy, s->x, s->y));
        DLS_TRY(l->kind->backward_weight(l, p, s->dy, s->x));
    } else {
        DLS_TRY(dls_layer_backward(l, p, s->dx, s->dy, s->x, s->y));
    }
    return dls_ctx_sync(&s->ctx);
}

dls_status expert_fetch(const expert_side *s, double *to, const void *from, size_t n)
{
    dls_dtype type = s->ctx.dtype;
    DLS_CUDA(cudaMemcpy(to, from, n * dls_dtype_size(type), cudaMemcpyDeviceToHost));
    for (size_t i = n; type == DLS_F32 && i-- > 0;)
        to[i] = ((float *)to)[i];
    return DLS_OK;
}

void expert_close(expert_side *s)
{
    void *all[] = {s->x, s->y, s->dx, s->dy, s->activations};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cudaFree(all[i]);
    free(s->pass.host);
    dls_balance_close(&s->balance);
    dls_build_free(&s->build);
    dls_params_free(&s->params);
    dls_axes_close(&s->axes);
    dls_comm_destroy(s->tensor);
    dls_comm_destroy(s->expert);
    dls_comm_destroy(s->expert_tensor);
    dls_ctx_destroy(&s->ctx);
}

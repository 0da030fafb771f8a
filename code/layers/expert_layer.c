/* code/layers/expert_layer.c: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The expert layer.
 *
 *   x ─ router ─ permute ─ dispatch ─ fc ─ activation ─ proj ─ combine ─ unpermute ─ y
 *   │                        (shared expert meanwhile)                       │
 *   └──────────────────────── shared ────────────────────────────────────────┘
 */
#include "layers/expert_layer.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/grouped.h"
#include "kernels/permute.h"
#include "layers/expert_nodes.h"
#include "layers/internal.h"
#include "layers/tensor.h"

/* find the rows of a rank */
/* Ranks of the tensor axis that have the same rows, and do a band of them each. */
static int bands(const dls_layer *l)
{
    return l->sharding->tensor > 1 && l->slices <= 1 ? l->sharding->tensor : 1;
}

static int band(const dls_layer *l, int r, int rows, int *first)
{
    int t = bands(l);
    *first = (int)((long)r * rows / t);
    return (int)((long)(r + 1) * rows / t) - *first;
}

/* The rows of a pass that go through here on this rank: n from `first` of l's on, which
 * is number `number` of the pass. */
typedef struct own_rows { int n, first, number; } own_rows;

static own_rows rows_of(const dls_layer *l, const dls_pass *p)
{
    own_rows own;
    int r = bands(l) > 1 ? l->sharding->tensor_rank : 0;
    own.n = band(l, r, dls_pass_rows(l, p), &own.first);
    own.number = dls_pass_first_row(l, p) + own.first;
    return own;
}

/* The most rows of any rank's band. */
static int most_rows(const dls_layer *l, const dls_plan *plan)
{
    return (dls_plan_rows(l, plan) + bands(l) - 1) / bands(l);
}

/* plan the expert layer */
static void plan_inner(dls_layer *inner, dls_plan *plan, int rows)
{
    int B = plan->max_B, T = plan->max_T;
    if (!inner)
        return;
    plan->max_B = rows;
    plan->max_T = 1;
    dls_layer_plan(inner, plan);
    plan->max_B = B;
    plan->max_T = T;
}

static void plan_values(dls_layer *l, dls_plan *plan)
{
    dls_expert_part *e = l->experts;
    size_t sent = e->dispatch.sent_room, arrived = e->dispatch.room;
    int moves = dls_dispatch_moves(l->sharding);
    size_t C = l->in, up = e->activation->in, F = e->activation->out, *at = e->at;
    dls_dtype type = plan->dtype;
    /* place the values that are kept */
    at[MOE_ARRIVED] = dls_plan_stash(plan, arrived * C, type);
    at[MOE_PRE] = dls_plan_stash(plan, arrived * up, type);
    at[MOE_ACT] = (e->activation->discarded ? dls_plan_scratch : dls_plan_stash)(
        plan, arrived * F, type);
    at[MOE_BACK] = dls_plan_stash(plan, sent * C, type);
    at[MOE_ROWS] = moves ? dls_plan_scratch(plan, sent * C, type) : at[MOE_ARRIVED];
    at[MOE_OUT] = moves ? dls_plan_scratch(plan, arrived * C, type) : at[MOE_BACK];
}

static void plan_gradients(dls_layer *l, dls_plan *plan)
{
    dls_expert_part *e = l->experts;
    size_t sent = e->dispatch.sent_room, arrived = e->dispatch.room;
    int moves = dls_dispatch_moves(l->sharding);
    size_t C = l->in, up = e->activation->in, F = e->activation->out, *at = e->at;
    /* place the gradient of the routers weights */
    size_t wide = dls_dtype_size(dls_dtype_accumulator(plan->dtype))
                  / dls_dtype_size(plan->dtype);
    at[MOE_DWEIGHTS] = dls_plan_passing(plan, (size_t)most_rows(l, plan)
                                              * e->moe.chosen * wide);
    at[MOE_DOUT] = dls_plan_gradient(plan, arrived * C);
    at[MOE_DPRE] = dls_plan_gradient(plan, arrived * up);
    at[MOE_DACT] = dls_plan_passing(plan, arrived * F);
    at[MOE_DARRIVED] = dls_plan_passing(plan, arrived * C);
    at[MOE_DBACK] = moves ? dls_plan_passing(plan, sent * C) : at[MOE_DOUT];
    at[MOE_DROWS] = moves ? dls_plan_passing(plan, sent * C) : at[MOE_DARRIVED];
}

static void expert_plan(dls_layer *l, dls_plan *plan)
{
    dls_expert_part *e = l->experts;
    dls_plan_mark mark = dls_plan_begin(plan);
    int n = most_rows(l, plan);
    dls_routing_plan(&e->routing, plan, l->sharding, &e->moe, n, l->in, e->router);
    dls_dispatch_plan(&e->dispatch, plan, l->sharding, &e->moe, n, plan->max_T, l->in);
    dls_expert_nodes_plan(l, plan, n);
    plan_values(l, plan);
    plan_gradients(l, plan);
    dls_expert_nodes_places(l, plan);
    plan_inner(e->activation, plan, e->dispatch.room);
    plan_inner(e->shared, plan, n);
    dls_plan_release(plan, mark);
}

/* find the routes */
static void *place(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_stash(p, l->experts->at[slot]);
}

static void *slope(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_gradient(p, l->experts->at[slot]);
}

static const dls_routes *routes_of(const dls_layer *l, const dls_pass *p)
{
    const dls_expert_part *e = l->experts;
    return e->by_nodes ? &dls_node_dispatch_routes(p, &e->nodes)->routes
                       : dls_dispatch_routes(p, &e->dispatch);
}

static dls_routed routed(const dls_layer *l, const dls_pass *p)
{
    return dls_routing_found(&l->experts->routing, p);
}

static dls_status count_routes(const dls_layer *l, dls_pass *p, own_rows own)
{
    const dls_expert_part *e = l->experts;
    int room[e->moe.experts];
    const int *known = dls_routing_known(&e->routing, own.n, own.number, room);
    return dls_routing_explain(&e->routing, p,
                               dls_dispatch_count(p, &e->dispatch, routed(l, p).counts,
                                                  known));
}

static dls_status announce(const dls_pass *p, dls_point point, int backward)
{
    return p->points ? p->points->fn(p->points->self, point, backward) : DLS_OK;
}

/* A pass of other rows, for the layers inside. */
static dls_pass with_rows(const dls_pass *p, int rows)
{
    dls_pass q = *p;
    q.B = rows;
    q.T = 1;
    return q;
}

static dls_groups groups_of(const dls_layer *l, const dls_pass *p, int in, int out)
{
    const dls_routes *r = routes_of(l, p);
    return (dls_groups){r->segment, r->segments, l->experts->count, in, out};
}

/* run the experts */
/* which 0: the experts' fc; 1: proj. */
static void list_weights(const dls_layer *l, const dls_pass *p, int which,
                         const void **weight)
{
    for (int e = 0; e < l->experts->count; e++)
        weight[e] = dls_pass_value(p, l->experts->weights + 2 * e + which);
}

static dls_status activate(const dls_layer *l, dls_pass *p)
{
    const dls_layer *f = l->experts->activation;
    dls_pass q = with_rows(p, routes_of(l, p)->arrived);
    return f->kind->forward(f, &q, place(l, p, MOE_ACT), place(l, p, MOE_PRE));
}

static dls_status run_experts(const dls_layer *l, dls_pass *p)
{
    const dls_layer *f = l->experts->activation;
    dls_groups up = groups_of(l, p, l->in, f->in), down = groups_of(l, p, f->out, l->out);
    const void *weight[l->experts->count];
    list_weights(l, p, 0, weight);
    DLS_TRY(dls_grouped_forward(p->ctx, &up, place(l, p, MOE_PRE),
                                place(l, p, MOE_ARRIVED), weight));
    DLS_TRY(activate(l, p));
    list_weights(l, p, 1, weight);
    return dls_grouped_forward(p->ctx, &down, place(l, p, MOE_OUT),
                               place(l, p, MOE_ACT), weight);
}

/* run the expert layer forward */
static void *row_of(const dls_layer *l, const dls_pass *p, const void *base, int row)
{
    return base ? (char *)base + (size_t)row * l->in * dls_dtype_size(p->ctx->dtype)
                : NULL;
}

/* With padding every place gets a row, and nobody's are zeros. */
static dls_status clear_padding(const dls_layer *l, dls_pass *p, void *rows)
{
    size_t count = (size_t)routes_of(l, p)->sent * l->in;
    if (l->experts->moe.padded && count > 0)
        DLS_CUDA(cudaMemsetAsync(rows, 0, count * dls_dtype_size(p->ctx->dtype),
                                 p->ctx->stream));
    return DLS_OK;
}

static dls_status send_rows(const dls_layer *l, dls_pass *p, const void *x, own_rows own)
{
    void *rows = place(l, p, MOE_ROWS);
    DLS_TRY(dls_route(&l->experts->routing, p, x, own.n, own.number));
    if (l->experts->by_nodes) {
        DLS_TRY(dls_expert_nodes_send(l, p, x, own.n, own.number));
        return announce(p, DLS_POINT_DISPATCH, 0);
    }
    DLS_TRY(count_routes(l, p, own));
    DLS_TRY(clear_padding(l, p, rows));
    DLS_TRY(dls_permute(p->ctx, rows, x, routed(l, p).place, own.n,
                        l->experts->moe.chosen, l->in));
    DLS_TRY(dls_dispatch_rows(p, &l->experts->dispatch, place(l, p, MOE_ARRIVED),
                              rows));
    return announce(p, DLS_POINT_DISPATCH, 0);
}

/* rows (N, C) := the bands of all ranks of the tensor axis that have the same ones. */
static dls_status gather_bands(const dls_layer *l, const dls_pass *p, void *rows)
{
    int t = bands(l), me = l->sharding->tensor_rank, N = dls_pass_rows(l, p), mine;
    size_t C = l->in;
    dls_comm *comm;
    dls_status s = DLS_OK;
    if (t == 1)
        return DLS_OK;
    int n = band(l, me, N, &mine);
    DLS_TRY(dls_tensor_comm(p, &comm));
    /* exchange bands in one group */
    DLS_TRY(dls_comm_group_begin(comm));
    for (int r = 0, first; r < t && s == DLS_OK; r++) {
        /* exchange bands with a rank */
        int come = band(l, r, N, &first);
        if (r != me && n > 0)
            s = dls_comm_send(comm, row_of(l, p, rows, mine), n * C, p->ctx->dtype, r,
                              p->ctx->stream);
        if (r != me && come > 0 && s == DLS_OK)
            s = dls_comm_recv(comm, row_of(l, p, rows, first), come * C, p->ctx->dtype, r,
                              p->ctx->stream);
    }
    dls_status end = dls_comm_group_end(comm);
    return s != DLS_OK ? s : end;
}

static dls_status expert_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    const dls_expert_part *e = l->experts;
    const dls_layer *shared = e->shared;
    own_rows own = rows_of(l, p);
    dls_pass q = with_rows(p, own.n);
    void *to = row_of(l, p, y, own.first);
    const void *from = row_of(l, p, x, own.first);
    if (!p->host)
        return DLS_FAIL(DLS_ERR_STATE, "an expert layer runs without a host region");
    DLS_TRY(send_rows(l, p, from, own));
    if (shared)
        DLS_TRY(shared->kind->forward(shared, &q, to, from));
    /* pass the arrived rows through the experts */
    DLS_TRY(dls_dispatch_wait(p));
    if (e->by_nodes)
        DLS_TRY(dls_expert_nodes_arrive(l, p));
    DLS_TRY(run_experts(l, p));
    DLS_TRY(e->by_nodes ? dls_expert_nodes_answer(l, p)
                        : dls_combine_rows(p, &e->dispatch, place(l, p, MOE_BACK),
                                           place(l, p, MOE_OUT)));
    DLS_TRY(announce(p, DLS_POINT_COMBINE, 0));
    DLS_TRY(dls_dispatch_wait(p));
    if (!y)
        return DLS_OK;
    /* add what came back with the weights */
    if (e->by_nodes)
        DLS_TRY(dls_expert_nodes_add(l, p, to, place(l, p, MOE_BACK), own.n,
                                     shared != NULL));
    else
        DLS_TRY(dls_unpermute(p->ctx, to, shared ? to : NULL, place(l, p, MOE_BACK),
                              routed(l, p).weights, routed(l, p).place, own.n,
                              e->moe.chosen, l->in));
    return gather_bands(l, p, y);
}

/* go back through the experts */
static dls_status experts_input(const dls_layer *l, dls_pass *p)
{
    const dls_layer *f = l->experts->activation;
    dls_groups up = groups_of(l, p, l->in, f->in), down = groups_of(l, p, f->out, l->out);
    dls_pass q = with_rows(p, routes_of(l, p)->arrived);
    const void *weight[l->experts->count];
    list_weights(l, p, 1, weight);
    DLS_TRY(dls_grouped_backward_input(p->ctx, &down, slope(l, p, MOE_DACT),
                                       slope(l, p, MOE_DOUT), weight));
    DLS_TRY(f->kind->backward_input(f, &q, slope(l, p, MOE_DPRE), slope(l, p, MOE_DACT),
                                    place(l, p, MOE_PRE), NULL));
    list_weights(l, p, 0, weight);
    return dls_grouped_backward_input(p->ctx, &up, slope(l, p, MOE_DARRIVED),
                                      slope(l, p, MOE_DPRE), weight);
}

static dls_status weight_gradients(const dls_layer *l, dls_pass *p, int which, int in,
                                   int out, const void *dy, const void *x)
{
    int count = l->experts->count, first = l->experts->weights + which;
    dls_groups g = groups_of(l, p, in, out);
    void *dweight[count];
    double keep[count];
    /* ask for the gradient of each expert */
    for (int e = 0; e < count; e++) {
        dweight[e] = dls_pass_grad(p, first + 2 * e);
        keep[e] = dls_pass_keep(p, first + 2 * e);
    }
    DLS_TRY(dls_grouped_backward_weight(p->ctx, &g, dweight, keep, dy, x));
    for (int e = 0; e < count; e++)
        DLS_TRY(dls_pass_added(p, first + 2 * e));
    return DLS_OK;
}

static dls_status experts_weight(const dls_layer *l, dls_pass *p)
{
    const dls_layer *f = l->experts->activation;
    if (f->discarded)
        DLS_TRY(activate(l, p));
    DLS_TRY(weight_gradients(l, p, 1, f->out, l->out, slope(l, p, MOE_DOUT),
                             place(l, p, MOE_ACT)));
    return weight_gradients(l, p, 0, l->in, f->in, slope(l, p, MOE_DPRE),
                            place(l, p, MOE_ARRIVED));
}

/* run the expert layer backward */
static dls_status send_gradients(const dls_layer *l, dls_pass *p, const void *dy, int n)
{
    void *rows = slope(l, p, MOE_DBACK);
    if (l->experts->by_nodes) {
        DLS_TRY(dls_expert_nodes_send_back(l, p, dy));
        return announce(p, DLS_POINT_COMBINE, 1);
    }
    /* weigh the gradients of rows */
    DLS_TRY(clear_padding(l, p, rows));
    DLS_TRY(dls_unpermute_backward(p->ctx, rows, slope(l, p, MOE_DWEIGHTS), dy,
                                   place(l, p, MOE_BACK), routed(l, p).weights,
                                   routed(l, p).place, n, l->experts->moe.chosen,
                                   l->in));
    DLS_TRY(dls_dispatch_rows(p, &l->experts->dispatch, slope(l, p, MOE_DOUT), rows));
    return announce(p, DLS_POINT_COMBINE, 1);
}

static dls_status route_back(const dls_layer *l, dls_pass *p, void *dx, const void *x,
                             own_rows own, int fused)
{
    const dls_routing *r = &l->experts->routing;
    DLS_TRY(dls_route_back(r, p, l->experts->shared != NULL, dx,
                           slope(l, p, MOE_DWEIGHTS), own.n, own.number));
    return !fused ? DLS_OK : dls_route_weight(r, p, x, own.n);
}

/* What does not wait for the rows under way: through the shared expert and the router. */
static dls_status go_back_beside(const dls_layer *l, dls_pass *p, void *dx,
                                 const void *dy, const void *x, own_rows own, int fused)
{
    const dls_layer *shared = l->experts->shared;
    dls_pass q = with_rows(p, own.n);
    if (shared)
        DLS_TRY((fused ? dls_layer_backward : shared->kind->backward_input)(
            shared, &q, dx, dy, x, NULL));
    return l->experts->by_nodes ? DLS_OK : route_back(l, p, dx, x, own, fused);
}

static dls_status expert_walk(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                              const void *x, int fused)
{
    const dls_expert_part *e = l->experts;
    own_rows own = rows_of(l, p);
    void *to = row_of(l, p, dx, own.first);
    const void *from = row_of(l, p, dy, own.first);
    DLS_TRY(send_gradients(l, p, from, own.n));
    DLS_TRY(go_back_beside(l, p, to, from, row_of(l, p, x, own.first), own, fused));
    DLS_TRY(dls_dispatch_wait(p));
    if (e->by_nodes)
        DLS_TRY(dls_expert_nodes_arrive_back(l, p));
    DLS_TRY(experts_input(l, p));
    /* send gradients back beside the weights */
    DLS_TRY(e->by_nodes ? dls_expert_nodes_answer_back(l, p)
                        : dls_combine_rows(p, &e->dispatch, slope(l, p, MOE_DROWS),
                                           slope(l, p, MOE_DARRIVED)));
    DLS_TRY(announce(p, DLS_POINT_DISPATCH, 1));
    if (fused)
        DLS_TRY(experts_weight(l, p));
    DLS_TRY(dls_dispatch_wait(p));
    if (e->by_nodes) {
        DLS_TRY(route_back(l, p, to, row_of(l, p, x, own.first), own, fused));
        DLS_TRY(dls_expert_nodes_add(l, p, to, slope(l, p, MOE_DROWS), own.n, 1));
    } else {
        DLS_TRY(dls_unpermute(p->ctx, to, to, slope(l, p, MOE_DROWS), NULL,
                              routed(l, p).place, own.n, e->moe.chosen, l->in));
    }
    return gather_bands(l, p, dx);
}

static dls_status expert_backward_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                         const void *x)
{
    const dls_layer *shared = l->experts->shared;
    own_rows own = rows_of(l, p);
    dls_pass q = with_rows(p, own.n);
    x = row_of(l, p, x, own.first);
    DLS_TRY(experts_weight(l, p));
    if (shared)
        DLS_TRY(shared->kind->backward_weight(shared, &q, row_of(l, p, dy, own.first),
                                              x));
    return dls_route_weight(&l->experts->routing, p, x, own.n);
}

static dls_status expert_backward(const dls_layer *l, dls_pass *p, void *dx,
                                  const void *dy, const void *x, void *y)
{
    (void)y;
    return expert_walk(l, p, dx, dy, x, 1);
}

static dls_status expert_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    (void)y;
    return expert_walk(l, p, dx, dy, x, 0);
}

/* make the expert layer */
static const dls_layer_kind expert_kind = {
    .name = "moe",
    .plan = expert_plan,
    .forward = expert_forward,
    .backward_input = expert_backward_input,
    .backward_weight = expert_backward_weight,
    .backward = expert_backward,
};

/* register the experts */
static void register_experts(dls_build *b, const char *name, const dls_layer *l,
                             double std, double out_std)
{
    dls_expert_part *e = l->experts;
    int F = e->moe.hidden, C = l->in;
    const dls_section half = {F, 1}, up[] = {half, half};
    int halves = e->activation->in / e->activation->out;
    dls_build cut = *b;
    cut.sharding.tensor = b->sharding.expert_tensor;
    cut.sharding.tensor_rank = b->sharding.expert_tensor_rank;
    for (int i = 0; i < e->count && b->status == DLS_OK; i++) {
        char suffix[DLS_PARAM_NAME];
        dls_param fc = {.ndim = 2, .shape = {(size_t)halves * F, (size_t)C},
                        .init = DLS_INIT_NORMAL, .init_scale = std, .decay = 1,
                        .overwritten = 1, .expert = 1}, proj = fc;
        /* register the first weight of an expert */
        dls_tensor_cut(&cut, &fc, 0, up, halves);
        snprintf(suffix, sizeof suffix, "expert.%d.fc.weight", e->first + i);
        int index = dls_layer_param(b, name, suffix, fc);
        e->weights = i == 0 ? index : e->weights;
        /* register the second weight of an expert */
        proj.shape[0] = C;
        proj.shape[1] = F;
        proj.init_scale = out_std;
        dls_tensor_cut(&cut, &proj, 1, &half, 1);
        snprintf(suffix, sizeof suffix, "expert.%d.proj.weight", e->first + i);
        dls_layer_param(b, name, suffix, proj);
        if (b->status == DLS_OK)
            b->params->items[index].partial = b->params->items[index + 1].partial = 0;
    }
}

dls_layer *dls_expert_layer(dls_build *b, const char *name, int channels,
                            const dls_moe *moe, dls_layer *activation, dls_layer *shared,
                            double std, double out_std)
{
    dls_layer *l = dls_layer_make(b, &expert_kind, channels, channels);
    if (!l)
        return NULL;
    dls_expert_part *e = l->experts = calloc(1, sizeof *e);
    if (!e) {
        b->status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for an expert layer");
        return NULL;
    }
    /* deal out the experts */
    b->status = dls_dispatch_check(&b->sharding, moe);
    int ranks = b->sharding.expert > 1 ? b->sharding.expert : 1;
    *e = (dls_expert_part){.moe = *moe, .count = moe->experts / ranks,
                           .first = moe->experts / ranks * b->sharding.expert_rank,
                           .activation = activation, .shared = shared};
    l->ignores_x = 1;
    e->router = dls_routing_param(b, name, channels, moe, std);
    register_experts(b, name, l, std, out_std);
    return b->status == DLS_OK ? l : NULL;
}

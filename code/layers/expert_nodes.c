/* code/layers/expert_nodes.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* An expert layer whose rows go over the nodes. See expert_nodes.h. */
#include "layers/expert_nodes.h"

#include "kernels/elementwise.h"
#include "kernels/permute.h"

/* plan an expert layer over nodes */
void dls_expert_nodes_plan(dls_layer *l, dls_plan *plan, int n)
{
    dls_expert_part *e = l->experts;
    e->by_nodes = dls_dispatch_over_nodes(l->sharding, &e->moe);
    if (!e->by_nodes)
        return;
    dls_node_dispatch_plan(&e->nodes, plan, l->sharding, &e->moe, n, e->dispatch.room,
                           l->in);
    e->dispatch.sent_room = e->nodes.landed;
}

void dls_expert_nodes_places(dls_layer *l, dls_plan *plan)
{
    dls_expert_part *e = l->experts;
    size_t numbers = (size_t)e->nodes.landed * e->moe.chosen;
    size_t wide = dls_dtype_size(dls_dtype_accumulator(plan->dtype)) /
                  dls_dtype_size(plan->dtype);
    if (!e->by_nodes)
        return;
    e->at[MOE_OUT] = dls_plan_stash(plan, (size_t)e->dispatch.room * l->in, plan->dtype);
    e->at[MOE_NEAR] = dls_plan_stash(plan, numbers * wide, plan->dtype);
    e->at[MOE_DNEAR] = dls_plan_passing(plan, numbers * wide);
}

/* find places of the layer */
static void *place(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_stash(p, l->experts->at[slot]);
}

static void *slope(const dls_layer *l, const dls_pass *p, int slot)
{
    return dls_pass_gradient(p, l->experts->at[slot]);
}

/* send tokens over nodes */
dls_status dls_expert_nodes_send(const dls_layer *l, const dls_pass *p, const void *x,
                                 int n, int number)
{
    const dls_expert_part *e = l->experts;
    dls_routed r = dls_routing_found(&e->routing, p);
    dls_node_choice choice = {r.index, r.place, r.counts, n, number};
    int counts[e->moe.experts];
    int known = dls_routing_known(&e->routing, n, number, counts) != NULL;
    DLS_TRY(dls_routing_explain(&e->routing, p,
                                dls_node_dispatch_count(p, &e->nodes, &choice, known)));
    DLS_TRY(dls_node_dispatch_rows(p, &e->nodes, place(l, p, MOE_NEAR), r.weights,
                                   e->moe.chosen,
                                   dls_dtype_accumulator(p->ctx->dtype)));
    return dls_node_dispatch_rows(p, &e->nodes, place(l, p, MOE_ROWS), x, l->in,
                                  p->ctx->dtype);
}

dls_status dls_expert_nodes_arrive(const dls_layer *l, const dls_pass *p)
{
    const dls_node_routes *r = dls_node_dispatch_routes(p, &l->experts->nodes);
    return dls_permute(p->ctx, place(l, p, MOE_ARRIVED), place(l, p, MOE_ROWS),
                       r->place[2], r->landed, l->experts->moe.chosen, l->in);
}

dls_status dls_expert_nodes_answer(const dls_layer *l, const dls_pass *p)
{
    const dls_expert_part *e = l->experts;
    const dls_node_routes *r = dls_node_dispatch_routes(p, &e->nodes);
    void *sums = place(l, p, MOE_ROWS);
    DLS_TRY(dls_unpermute(p->ctx, sums, NULL, place(l, p, MOE_OUT), place(l, p, MOE_NEAR),
                          r->place[2], r->landed, e->moe.chosen, l->in));
    return dls_node_combine_rows(p, &e->nodes, place(l, p, MOE_BACK), sums, l->in,
                                 p->ctx->dtype);
}

/* send gradients over nodes */
dls_status dls_expert_nodes_send_back(const dls_layer *l, const dls_pass *p,
                                      const void *dy)
{
    return dls_node_dispatch_rows(p, &l->experts->nodes, slope(l, p, MOE_DBACK), dy, l->in,
                                  p->ctx->dtype);
}

dls_status dls_expert_nodes_arrive_back(const dls_layer *l, const dls_pass *p)
{
    const dls_expert_part *e = l->experts;
    const dls_node_routes *r = dls_node_dispatch_routes(p, &e->nodes);
    DLS_TRY(dls_unpermute_backward(p->ctx, slope(l, p, MOE_DOUT), slope(l, p, MOE_DNEAR),
                                   slope(l, p, MOE_DBACK), place(l, p, MOE_OUT),
                                   place(l, p, MOE_NEAR), r->place[2], r->landed,
                                   e->moe.chosen, l->in));
    return dls_node_combine_rows(p, &e->nodes, slope(l, p, MOE_DWEIGHTS),
                                 slope(l, p, MOE_DNEAR), e->moe.chosen,
                                 dls_dtype_accumulator(p->ctx->dtype));
}

/* bring gradients home */
dls_status dls_expert_nodes_answer_back(const dls_layer *l, const dls_pass *p)
{
    const dls_expert_part *e = l->experts;
    const dls_node_routes *r = dls_node_dispatch_routes(p, &e->nodes);
    void *sums = slope(l, p, MOE_DBACK);
    DLS_TRY(dls_unpermute(p->ctx, sums, NULL, slope(l, p, MOE_DARRIVED), NULL, r->place[2],
                          r->landed, e->moe.chosen, l->in));
    return dls_node_combine_rows(p, &e->nodes, slope(l, p, MOE_DROWS), sums, l->in,
                                 p->ctx->dtype);
}

dls_status dls_expert_nodes_add(const dls_layer *l, const dls_pass *p, void *to,
                                const void *came, int n, int keeps)
{
    size_t count = (size_t)n * l->in;
    if (count == 0)
        return DLS_OK;
    if (keeps)
        return dls_add(p->ctx, to, to, came, count);
    DLS_CUDA(cudaMemcpyAsync(to, came, count * dls_dtype_size(p->ctx->dtype),
                             cudaMemcpyDeviceToDevice, p->ctx->stream));
    return DLS_OK;
}

/* code/layers/expert_route.c: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The router of an expert layer: products around the kernels of kernels/router.h. */
#include <math.h>

#include "kernels/router.h"
#include "layers/expert_layer.h"
#include "tensor/gemm.h"

/* plan the routing */
void dls_route_plan(dls_layer *l, dls_plan *plan, int rows)
{
    dls_expert_part *e = l->experts;
    dls_dtype wide = dls_dtype_accumulator(plan->dtype);
    size_t n = (size_t)rows, E = e->moe.experts, k = e->moe.chosen, *at = e->at;
    size_t times = dls_dtype_size(wide) / dls_dtype_size(plan->dtype);
    at[MOE_SCORES] = dls_plan_stash(plan, n * E, wide);
    at[MOE_INDEX] = dls_plan_stash(plan, n * k, DLS_F32);
    at[MOE_WEIGHT] = dls_plan_stash(plan, n * k, wide);
    at[MOE_PLACE] = dls_plan_stash(plan, n * k, DLS_F32);
    at[MOE_COUNTS] = dls_plan_scratch(plan, E, DLS_F32);
    at[MOE_CHOSEN] = dls_plan_stash(plan, plan->max_B * E + 1, DLS_F32);
    at[MOE_DWEIGHT] = dls_plan_passing(plan, n * k * times);
    at[MOE_DSCORES] = dls_plan_gradient(plan, n * E);
}

/* describe the router */
static dls_router router_of(const dls_layer *l, const dls_pass *p)
{
    const dls_moe *m = &l->experts->moe;
    int first;
    dls_router r = {.E = m->experts, .k = m->chosen, .gate = m->gate,
                    .normalised = m->normalised, .scale = m->scale ? m->scale : 1,
                    .groups = m->groups, .group_limit = m->group_limit,
                    .balanced = m->balanced, .padded = m->padded, .B = p->B, .T = p->T};
    r.N = dls_expert_rows(l, p, &first);
    r.first = dls_pass_first_row(l, p) + first;
    if (m->capacity > 0)
        r.capacity = (int)ceil(m->capacity * m->chosen * p->T / m->experts);
    return r;
}

/* route rows */
dls_status dls_route_forward(const dls_layer *l, dls_pass *p, const void *x, int n,
                             int counted)
{
    const dls_expert_part *e = l->experts;
    dls_router r = router_of(l, p);
    void *scores = dls_pass_stash(p, e->at[MOE_SCORES]);
    int *index = dls_pass_stash(p, e->at[MOE_INDEX]);
    int *chosen = dls_pass_stash(p, e->at[MOE_CHOSEN]);
    (void)counted;
    DLS_TRY(dls_gemm_into(p->ctx, 0, 1, n, r.E, l->in, 1, x,
                          dls_pass_value(p, e->router), 0, scores,
                          dls_dtype_accumulator(p->ctx->dtype)));
    DLS_TRY(dls_router_choose(p->ctx, &r, index, dls_pass_stash(p, e->at[MOE_WEIGHT]),
                              chosen, scores, NULL));
    return dls_router_place(p->ctx, &r, dls_pass_stash(p, e->at[MOE_PLACE]),
                            dls_pass_stash(p, e->at[MOE_COUNTS]), index, chosen, NULL,
                            0);
}

/* go back through the routing */
dls_status dls_route_backward(const dls_layer *l, dls_pass *p)
{
    const dls_expert_part *e = l->experts;
    dls_router r = router_of(l, p);
    dls_router_aux none = {.tokens = p->T};
    return dls_router_backward(p->ctx, &r, &none, p->loss_scale,
                               dls_pass_gradient(p, e->at[MOE_DSCORES]),
                               dls_pass_gradient(p, e->at[MOE_DWEIGHT]),
                               dls_pass_stash(p, e->at[MOE_SCORES]),
                               dls_pass_stash(p, e->at[MOE_INDEX]),
                               dls_pass_stash(p, e->at[MOE_PLACE]));
}

dls_status dls_route_backward_input(const dls_layer *l, dls_pass *p, void *dx, int n,
                                    int adds)
{
    const dls_expert_part *e = l->experts;
    return dls_gemm(p->ctx, 0, 0, n, l->in, e->moe.experts, 1,
                    dls_pass_gradient(p, e->at[MOE_DSCORES]),
                    dls_pass_value(p, e->router), adds, dx);
}

dls_status dls_route_backward_weight(const dls_layer *l, dls_pass *p, const void *x,
                                     int n)
{
    const dls_expert_part *e = l->experts;
    DLS_TRY(dls_gemm_into(p->ctx, 1, 0, e->moe.experts, l->in, n, 1,
                          dls_pass_gradient(p, e->at[MOE_DSCORES]), x,
                          dls_pass_keep(p, e->router), dls_pass_grad(p, e->router),
                          dls_dtype_accumulator(p->ctx->dtype)));
    return dls_pass_added(p, e->router);
}

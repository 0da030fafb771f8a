/* code/layers/expert_route.c: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The router of an expert layer. */
#include "layers/expert_layer.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/convert.h"
#include "tensor/gemm.h"

/* route on the host */
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
    at[MOE_COUNTS] = dls_plan_stash(plan, E, DLS_F32);
    at[MOE_DWEIGHT] = dls_plan_passing(plan, n * k * times);
    at[MOE_DSCORES] = dls_plan_gradient(plan, n * E);
}

static double get(const void *at, size_t i, dls_dtype t)
{
    return t == DLS_F64 ? ((const double *)at)[i] : ((const float *)at)[i];
}

static void put(void *at, size_t i, dls_dtype t, double x)
{
    if (t == DLS_F64)
        ((double *)at)[i] = x;
    else
        ((float *)at)[i] = (float)x;
}

static double probability(const dls_moe *m, const void *s, size_t t, int e, dls_dtype w)
{
    double x = get(s, t * m->experts + e, w), most = x, sum = 0;
    if (m->gate == DLS_GATE_IDENTITY)
        return x;
    if (m->gate == DLS_GATE_SIGMOID)
        return 1 / (1 + exp(-x));
    for (int i = 0; i < m->experts; i++)
        most = fmax(most, get(s, t * m->experts + i, w));
    for (int i = 0; i < m->experts; i++)
        sum += exp(get(s, t * m->experts + i, w) - most);
    return exp(x - most) / sum;
}

static void choose(const dls_moe *m, const void *s, size_t t, int *index, void *weight,
                   dls_dtype w)
{
    double sum = 0, scale = m->scale ? m->scale : 1;
    for (int j = 0; j < m->chosen; j++) {
        int best = -1;
        for (int e = 0; e < m->experts; e++) {
            int taken = 0;
            for (int i = 0; i < j; i++)
                taken |= index[t * m->chosen + i] == e;
            if (!taken && (best < 0 || get(s, t * m->experts + e, w)
                                       > get(s, t * m->experts + best, w)))
                best = e;
        }
        if (m->balanced)
            best = (int)((t * m->chosen + j) % m->experts);
        index[t * m->chosen + j] = best;
        sum += probability(m, s, t, best, w);
    }
    for (int j = 0; j < m->chosen; j++)
        put(weight, t * m->chosen + j, w, scale / (m->normalised ? sum : 1)
            * probability(m, s, t, index[t * m->chosen + j], w));
}

dls_status dls_route_forward(const dls_layer *l, dls_pass *p, const void *x, int n,
                             int counted)
{
    const dls_expert_part *e = l->experts;
    const dls_moe *m = &e->moe;
    dls_dtype w = dls_dtype_accumulator(p->ctx->dtype);
    void *s = dls_pass_stash(p, e->at[MOE_SCORES]);
    int *index = dls_pass_stash(p, e->at[MOE_INDEX]);
    int *place = dls_pass_stash(p, e->at[MOE_PLACE]);
    int *counts = dls_pass_stash(p, e->at[MOE_COUNTS]), row = 0;
    (void)counted;
    DLS_TRY(dls_gemm_into(p->ctx, 0, 1, n, m->experts, l->in, 1, x,
                          dls_pass_value(p, e->router), 0, s, w));
    DLS_TRY(dls_ctx_sync(p->ctx));
    for (int t = 0; t < n; t++)
        choose(m, s, (size_t)t, index, dls_pass_stash(p, e->at[MOE_WEIGHT]), w);
    for (int i = 0; i < m->experts; i++) {
        int before = row;
        for (int a = 0; a < n * m->chosen; a++)
            if (index[a] == i)
                place[a] = row++;
        counts[i] = row - before;
    }
    return DLS_OK;
}

dls_status dls_route_backward(const dls_layer *l, dls_pass *p, int n)
{
    const dls_expert_part *e = l->experts;
    const dls_moe *m = &e->moe;
    dls_dtype w = dls_dtype_accumulator(p->ctx->dtype);
    void *s = dls_pass_stash(p, e->at[MOE_SCORES]);
    void *dw = dls_pass_gradient(p, e->at[MOE_DWEIGHT]);
    void *ds = dls_pass_gradient(p, e->at[MOE_DSCORES]);
    int *index = dls_pass_stash(p, e->at[MOE_INDEX]), k = m->chosen, E = m->experts;
    DLS_TRY(dls_ctx_sync(p->ctx));
    for (size_t t = 0; t < (size_t)n; t++) {
        double dp[E], scale = m->scale ? m->scale : 1, sum = 0, dot = 0, inner = 0;
        for (int i = 0; i < E; i++)
            dp[i] = 0;
        for (int j = 0; j < k; j++) {
            double q = probability(m, s, t, index[t * k + j], w);
            sum += q;
            dot += q * get(dw, t * k + j, w);
        }
        for (int j = 0; j < k; j++) {
            double d = get(dw, t * k + j, w);
            dp[index[t * k + j]] += scale * (m->normalised ? d / sum - dot / sum / sum
                                                           : d);
        }
        for (int i = 0; i < E; i++)
            inner += dp[i] * probability(m, s, t, i, w);
        for (int i = 0; i < E; i++) {
            double q = probability(m, s, t, i, w);
            double d = m->gate == DLS_GATE_SOFTMAX ? q * (dp[i] - inner)
                     : m->gate == DLS_GATE_SIGMOID ? dp[i] * q * (1 - q) : dp[i];
            if (p->ctx->dtype == DLS_BF16)
                ((unsigned short *)ds)[t * E + i] = 0;
            else
                put(ds, t * E + i, w, d);
        }
    }
    return DLS_OK;
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

/* code/layers/router.c: from chapters/08-router-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The router in a pass: which buffers, which kernels, and what has to be asked of other
 * ranks. Three numbers of a token depend on tokens elsewhere: its place in an expert's
 * capacity (on earlier rows of its sequence), the loss of its sequence, and that of the
 * batch. Each needs counts, never scores. */
#include "layers/router.h"

#include <math.h>
#include <stdio.h>

#include "layers/internal.h"

/* register the router */
int dls_routing_param(dls_build *b, const char *name, int channels, const dls_moe *m,
                      double std)
{
    int index = dls_layer_param(b, name, "router.weight", (dls_param){
        .ndim = 2, .shape = {m->experts, channels}, .init = DLS_INIT_NORMAL,
        .init_scale = std, .decay = 1, .overwritten = 1});
    if (index >= 0)             // with tensor ranks each has its own rows
        b->params->items[index].partial = b->sharding.tensor > 1;
    return index;
}
/* check a routing */
static dls_router rules(const dls_moe *m)
{
    return (dls_router){.E = m->experts, .k = m->chosen, .gate = m->gate,
                        .normalised = m->normalised,
                        .scale = m->scale == 0 ? 1 : m->scale, .groups = m->groups,
                        .group_limit = m->group_limit, .balanced = m->balanced};
}

dls_status dls_routing_check(const dls_sharding *s, const dls_moe *m)
{
    dls_router r = rules(m);
    DLS_TRY(dls_router_check(&r));
    if (m->capacity > 0 && s && s->context > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "capacity: expected 0 with sequences over %d "
                        "context ranks, whose rows have no common order", s->context);
    if (m->capacity < 0 || !isfinite(m->capacity))
        return DLS_FAIL(DLS_ERR_INPUT, "capacity: expected 0 (all rows) or more, got %g",
                        m->capacity);
    if (m->padded && m->capacity == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "padded: expected a capacity to pad to, got 0");
    if (m->balanced && m->capacity > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "balanced: expected capacity 0, got %g",
                        m->capacity);
    return DLS_OK;
}
/* plan a routing */
void dls_routing_plan(dls_routing *out, dls_plan *plan, const dls_sharding *s,
                      const dls_moe *m, int rows, int channels, int weight)
{
    dls_dtype wide = dls_dtype_accumulator(plan->dtype);
    size_t E = m->experts, choices = (size_t)rows * m->chosen;
    size_t table = plan->max_B * E + 1;
    *out = (dls_routing){.moe = *m, .sharding = *s, .channels = channels,
                         .weight = weight, .ordinal = plan->experts++};
    /* stash the choice of a pass */
    out->scores = dls_plan_stash(plan, rows * E, wide);
    out->weights = dls_plan_stash(plan, choices, wide);
    out->index = dls_plan_stash(plan, choices, DLS_F32);
    out->place = dls_plan_stash(plan, choices, DLS_F32);
    out->counts = dls_plan_stash(plan, E, DLS_F32);
    out->chosen = dls_plan_stash(plan, table, DLS_F32);
    /* plan the counts of a routing */
    if (m->aux_batch > 0)
        out->in_batch = dls_plan_stash(plan, E, DLS_F32);
    if (m->aux_sequence > 0)
        out->in_sequence = dls_plan_stash(plan, table, DLS_F32);
    out->dscores = dls_plan_gradient(plan, rows * E);
    if (m->capacity > 0 && s->tensor > 1)
        out->before = dls_plan_scratch(plan, s->tensor * table, DLS_F32);
    out->values = dls_plan_scratch(plan, (size_t)rows * DLS_TALLY_SUMS, wide);
}
/* describe the rows of a pass */
static dls_router router_of(const dls_routing *r, const dls_pass *p, int n, int first)
{
    const dls_moe *m = &r->moe;
    dls_router of = rules(m);
    of.capacity = m->capacity > 0 ? (int)ceil(m->capacity * m->chosen * p->T / m->experts)
                                  : 0;
    of.padded = m->padded;
    of.N = n;
    of.first = first;
    of.B = p->B;
    of.T = p->T;
    return of;
}

static dls_router_aux aux_of(const dls_routing *r, const dls_pass *p)
{
    const dls_moe *m = &r->moe;
    dls_router_aux a = {.batch = m->aux_batch, .sequence = m->aux_sequence,
                        .z = m->z_loss, .tokens = p->T_whole ? p->T_whole : p->T};
    if (m->aux_batch > 0)
        a.in_batch = dls_pass_stash(p, r->in_batch);
    if (m->aux_sequence > 0)
        a.in_sequence = dls_pass_stash(p, r->in_sequence);
    return a;
}
/* ask the ranks of a sequence */
/* counts += those of the other ranks that have rows of the same sequences. */
static dls_status add_sequences(const dls_routing *r, const dls_pass *p, int *counts,
                                size_t n)
{
    const dls_axes *a = p->axes;
    if (r->sharding.tensor > 1)
        DLS_TRY(dls_comm_all_reduce(a->tensor, counts, n, DLS_COMM_I32, DLS_SUM,
                                    p->ctx->stream));
    if (r->sharding.context > 1)
        DLS_TRY(dls_comm_all_reduce(a->context, counts, n, DLS_COMM_I32, DLS_SUM,
                                    p->ctx->stream));
    return DLS_OK;
}

/* The tables of all tensor ranks, in the order of their rows; how many are before us. */
static dls_status ask_before(const dls_routing *r, const dls_pass *p, size_t n,
                             int *earlier)
{
    *earlier = 0;
    if (r->moe.capacity == 0 || r->sharding.tensor <= 1)
        return DLS_OK;
    *earlier = r->sharding.tensor_rank;
    return dls_comm_all_gather(p->axes->tensor, dls_pass_stash(p, r->chosen),
                               dls_pass_stash(p, r->before), n, DLS_COMM_I32,
                               p->ctx->stream);
}
static dls_status copy_ints(const dls_pass *p, void *to, const void *from, size_t n)
{
    DLS_CUDA(cudaMemcpyAsync(to, from, n * sizeof(int), cudaMemcpyDeviceToDevice,
                             p->ctx->stream));
    return DLS_OK;
}

/* What the losses need of rows elsewhere. */
static dls_status ask_counts(const dls_routing *r, const dls_pass *p)
{
    const dls_moe *m = &r->moe;
    const int *chosen = dls_pass_stash(p, r->chosen);
    size_t n = (size_t)p->B * m->experts;
    if (m->aux_sequence > 0) {
        int *of = dls_pass_stash(p, r->in_sequence);
        DLS_TRY(copy_ints(p, of, chosen, n));
        DLS_TRY(add_sequences(r, p, of, n));
    }
    if (m->aux_batch == 0)
        return DLS_OK;
    int *all = dls_pass_stash(p, r->in_batch);
    DLS_TRY(dls_router_gather(p->ctx, all, chosen, p->B, m->experts));
    return !p->axes || !p->axes->rows ? DLS_OK
         : dls_comm_all_reduce(p->axes->rows, all, m->experts, DLS_COMM_I32, DLS_SUM,
                               p->ctx->stream);
}
/* route rows */
/* The layer's part of the pass's tally, and its bias; NULL: there is none. */
static void *part_of(const dls_pass *p, void *all, size_t at)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(p->ctx->dtype));
    return all ? (char *)all + at * size : NULL;
}

static dls_status tally(const dls_routing *r, const dls_pass *p, const dls_router *of,
                        int earlier)
{
    dls_router_aux a = aux_of(r, p);
    void *to = part_of(p, p->tally, r->ordinal * dls_tally_length(r->moe.experts));
    if (!to || p->again)
        return DLS_OK;
    return dls_router_tally(p->ctx, of, &a, to, dls_pass_stash(p, r->values),
                            dls_pass_stash(p, r->scores), dls_pass_stash(p, r->chosen),
                            dls_pass_stash(p, r->before), earlier);
}
dls_status dls_route(const dls_routing *r, const dls_pass *p, const void *x, int n,
                     int first)
{
    const dls_moe *m = &r->moe;
    dls_router of = router_of(r, p, n, first);
    void *scores = dls_pass_stash(p, r->scores);
    int *index = dls_pass_stash(p, r->index), *chosen = dls_pass_stash(p, r->chosen);
    void *bias = part_of(p, m->bias_rate > 0 ? p->balance : NULL,
                         (size_t)r->ordinal * m->experts);
    int earlier;
    /* score and choose */
    DLS_TRY(dls_gemm_into(p->ctx, 0, 1, n, m->experts, r->channels, 1, x,
                          dls_pass_value(p, r->weight), 0, scores,
                          dls_dtype_accumulator(p->ctx->dtype)));
    DLS_TRY(dls_router_choose(p->ctx, &of, index, dls_pass_stash(p, r->weights), chosen,
                              scores, bias));
    /* ask and place */
    DLS_TRY(ask_before(r, p, (size_t)p->B * m->experts + 1, &earlier));
    DLS_TRY(ask_counts(r, p));
    DLS_TRY(dls_router_place(p->ctx, &of, dls_pass_stash(p, r->place),
                             dls_pass_stash(p, r->counts), index, chosen,
                             dls_pass_stash(p, r->before), earlier));
    return tally(r, p, &of, earlier);
}

dls_routed dls_routing_found(const dls_routing *r, const dls_pass *p)
{
    return (dls_routed){dls_pass_stash(p, r->index), dls_pass_stash(p, r->place),
                        dls_pass_stash(p, r->weights), dls_pass_stash(p, r->counts)};
}
/* know the counts */
const int *dls_routing_known(const dls_routing *r, int n, int first, int *counts)
{
    const dls_moe *m = &r->moe;
    long long from = (long long)first * m->chosen, to = from + (long long)n * m->chosen;
    for (int e = 0; m->balanced && e < m->experts; e++)     // numbers e mod E below each
        counts[e] = (int)((to + m->experts - 1 - e) / m->experts
                          - (from + m->experts - 1 - e) / m->experts);
    return m->balanced ? counts : NULL;
}
/* go back through the router */
dls_status dls_route_back(const dls_routing *r, const dls_pass *p, double keep, void *dx,
                          const void *dweights, int n, int first)
{
    dls_router of = router_of(r, p, n, first);
    dls_router_aux a = aux_of(r, p);
    void *dscores = dls_pass_gradient(p, r->dscores);
    DLS_TRY(dls_router_backward(p->ctx, &of, &a, p->loss_scale, dscores, dweights,
                                dls_pass_stash(p, r->scores),
                                dls_pass_stash(p, r->index),
                                dls_pass_stash(p, r->place)));
    return dls_gemm(p->ctx, 0, 0, n, r->channels, r->moe.experts, 1, dscores,
                    dls_pass_value(p, r->weight), keep, dx);
}

dls_status dls_route_weight(const dls_routing *r, dls_pass *p, const void *x, int n)
{
    DLS_TRY(dls_gemm_into(p->ctx, 1, 0, r->moe.experts, r->channels, n, 1,
                          dls_pass_gradient(p, r->dscores), x,
                          dls_pass_keep(p, r->weight), dls_pass_grad(p, r->weight),
                          dls_dtype_accumulator(p->ctx->dtype)));
    return dls_pass_added(p, r->weight);
}
/* report a bad score */
dls_status dls_routing_fault(const int *counts, int sources, int E)
{
    for (int i = 0; i < sources; i++)
        if (counts[(size_t)i * E] < 0)
            return DLS_FAIL(DLS_ERR_STATE, "the router's scores of token %d of rank %d "
                            "of the expert group are not finite numbers",
                            -1 - counts[(size_t)i * E], i);
    return DLS_OK;
}

dls_status dls_routing_explain(const dls_routing *r, const dls_pass *p, dls_status s)
{
    return s == DLS_OK ? s
         : DLS_FAIL(s, "%s: %s", p->params->items[r->weight].name, dls_status_message());
}

/* code/layers/dispatch_nodes.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Routes over nodes: planned, counted, and selected on the device. */
#include "layers/dispatch_nodes.h"

#include <string.h>

#include "comm/comm.h"
#include "kernels/node_rows.h"
#include "layers/dispatch_nodes_internal.h"
#include "layers/router.h"

/* decide for nodes */
int dls_dispatch_over_nodes(const dls_sharding *s, const dls_moe *m)
{
    return s->dispatch == DLS_DISPATCH_NODES && s->expert > 1 && s->expert_tensor <= 1 &&
           s->wire == DLS_ROWS_SAME && !m->padded;
}

/* plan a dispatch over nodes */
// The bounds hold for any number of nodes N <= R: R tokens rows are forwarded at most, and
// as many land.
static size_t host_ints(const dls_node_dispatch *d)
{
    size_t R = d->ranks, E = d->moe.experts;
    return R * (2 * R + E) + R * E + 3 * (2 * R + E);
}

static size_t table_ints(const dls_node_dispatch *d)
{
    size_t R = d->ranks, n = d->tokens, k = d->moe.chosen, E = d->moe.experts;
    return n * k + (2 * R + E) + 2 * n * k + 2 * R * n + R * n * k;
}

void dls_node_dispatch_plan(dls_node_dispatch *out, dls_plan *plan, const dls_sharding *s,
                            const dls_moe *m, int tokens, int room, int columns)
{
    size_t R = s->expert, numbers = 2 * R * (2 * R + m->experts);
    size_t wide = columns > 2 * m->chosen ? columns : 2 * m->chosen;
    *out = (dls_node_dispatch){.moe = *m, .ranks = s->expert, .rank = s->expert_rank,
                               .columns = columns, .tokens = tokens, .room = room};
    out->landed = s->expert * tokens;
    out->host = plan->host;
    plan->host += sizeof(dls_node_routes) + m->experts / R * sizeof(dls_segment) +
                  host_ints(out) * sizeof(int);
    plan->host = (plan->host + 15) / 16 * 16;
    out->tables = dls_plan_stash(plan, table_ints(out), DLS_F32);
    size_t elements = out->landed * wide > numbers ? out->landed * wide : numbers;
    for (int i = 0; i < 2; i++)
        out->buffer[i] = dls_plan_scratch(plan, elements, plan->dtype);
}

/* lay out the tables */
const dls_node_routes *dls_node_dispatch_routes(const dls_pass *p,
                                                const dls_node_dispatch *d)
{
    return (const dls_node_routes *)((const char *)p->host + d->host);
}

// Host memory of the pass, but for the tables; *legs: room for the legs' arrays.
static dls_node_routes *lay_out(const dls_pass *p, const dls_node_dispatch *d, int tokens,
                                int **legs)
{
    int R = d->ranks, E = d->moe.experts, P = dls_comm_size(p->axes->node);
    dls_node_routes *r = (dls_node_routes *)((char *)p->host + d->host);
    *r = (dls_node_routes){.tokens = tokens, .grid = {R / P, P, E, d->moe.chosen}};
    r->routes = (dls_routes){.ranks = R, .experts = E / R, .sources = R};
    r->routes.segment = (dls_segment *)(r + 1);
    r->routes.counts = (int *)(r->routes.segment + E / R);
    r->censuses = r->routes.counts + R * E;
    *legs = r->censuses + R * dls_node_census_ints(&r->grid);
    return r;
}

/* lay out the device tables */
// Pointers into the device tables, side by side as the legs need them.
static void lay_out_tables(const dls_pass *p, const dls_node_dispatch *d,
                           dls_node_routes *r)
{
    int *at = r->kept = dls_pass_stash(p, d->tables);
    at += (size_t)d->tokens * d->moe.chosen;
    for (int l = 0; l < DLS_LEGS; l++, at += r->leg[l - 1].ranges)
        r->begin[l] = at;
    for (int l = 0; l < DLS_LEGS; l++) {
        int last = l == DLS_LEGS - 1, width = last ? d->moe.chosen : r->leg[l].width;
        r->list[l] = last ? NULL : at;
        r->place[l] = at + (last ? 0 : r->leg[l].copies);
        at = r->place[l] + (size_t)r->leg[l].rows * width;
    }
}

/* gather the censuses */
static dls_status ask(const dls_pass *p, const dls_node_dispatch *d, dls_node_routes *r,
                      const int *counts)
{
    const dls_node_grid *g = &r->grid;
    int R = g->nodes * g->places, ints = dls_node_census_ints(g), at = 0;
    int ranges[] = {g->nodes, R};
    int *all = dls_pass_stash(p, d->buffer[0]), *mine = dls_pass_stash(p, d->buffer[1]);
    for (int i = 0; i < 2; at += ranges[i++]) {
        dls_select s = {r->tokens, g->chosen, ranges[i], 0, g->experts / ranges[i], 0};
        DLS_TRY(dls_node_tally(p->ctx, &s, r->kept, mine + at));
    }
    DLS_CUDA(cudaMemcpyAsync(mine + at, counts, sizeof(int) * g->experts,
                             cudaMemcpyDeviceToDevice, p->ctx->stream));
    DLS_TRY(dls_comm_all_gather(p->axes->counts, mine, all, ints, DLS_COMM_I32,
                                p->ctx->stream));
    DLS_CUDA(cudaMemcpyAsync(r->censuses, all, sizeof(int) * R * ints,
                             cudaMemcpyDeviceToHost, p->ctx->stream));
    DLS_CUDA(cudaStreamSynchronize(p->ctx->stream));
    return DLS_OK;
}

static dls_status tell(const dls_pass *p, dls_node_routes *r, int number)
{
    const dls_node_grid *g = &r->grid;
    int mine[dls_node_census_ints(g)];
    dls_node_census_balanced(g, r->tokens, number, mine);
    return dls_comm_all_gather_host(p->axes->counts, mine, sizeof mine, r->censuses);
}

/* route over the nodes */
static void describe_arrived(const dls_node_dispatch *d, dls_node_routes *r)
{
    const dls_node_grid *g = &r->grid;
    dls_routes *x = &r->routes;
    int ints = dls_node_census_ints(g), E = g->experts;
    for (int s = 0; s < x->ranks; s++)
        memcpy(x->counts + s * E, r->censuses + (s + 1) * ints - E, sizeof(int) * E);
    for (int e = 0; e < E; e++)
        x->sent += x->counts[d->rank * E + e];
    r->landed = r->leg[DLS_LEGS - 1].rows;
    for (int e = 0; e < x->experts; e++) {
        int rows = r->leg[DLS_LEGS - 1].go[e];
        if (rows > 0)
            x->segment[x->segments++] = (dls_segment){e, x->arrived, rows};
        x->arrived += rows;
    }
    x->own = x->arrived;
}

/* check the legs */
static dls_status check_legs(const dls_node_dispatch *d, const dls_node_routes *r)
{
    dls_leg most[DLS_LEGS];
    dls_node_most(&r->grid, d->tokens, most);
    most[2].copies = most[2].copies < d->room ? most[2].copies : d->room;
    for (int l = 0; l < DLS_LEGS; l++)
        if (r->leg[l].rows < 0 || r->leg[l].rows > most[l].rows || r->leg[l].copies < 0 ||
            r->leg[l].copies > most[l].copies)
            return DLS_FAIL(DLS_ERR_STATE, "dispatch over nodes: leg %d has %d rows and "
                            "%d copies; there is room for %d and %d", l, r->leg[l].rows,
                            r->leg[l].copies, most[l].rows, most[l].copies);
    return DLS_OK;
}

/* select rows for the legs */
static dls_status select_leg(dls_ctx *comm, const dls_node_routes *r, int l,
                             const int *index)
{
    const dls_leg *leg = &r->leg[l];
    dls_select s = {leg->rows, r->grid.chosen, leg->ranges, leg->first, leg->per,
                    leg->width};
    return dls_node_select(comm, &s, index, r->begin[l], r->list[l], r->place[l]);
}

// begin: host memory (N + P + E / R), good as long as the routes.
static dls_status select_all(const dls_pass *p, const dls_node_dispatch *d,
                             const dls_node_routes *r, int *begin)
{
    dls_node_way way;
    size_t n = 0;
    for (int l = 0; l < DLS_LEGS; l++)
        for (int i = 0, at = 0; i < r->leg[l].ranges; at += r->leg[l].go[i++])
            begin[n++] = at;
    DLS_TRY(dls_node_way_begin(&way, p, d, r->kept, r->grid.chosen, DLS_F32));
    DLS_CUDA(cudaMemcpyAsync(r->begin[0], begin, n * sizeof *begin,
                             cudaMemcpyHostToDevice, way.ctx.stream));
    for (int l = 0; l < DLS_LEGS; l++) {
        DLS_TRY(select_leg(&way.ctx, r, l, (const int *)way.at));
        if (l < DLS_LEGS - 1)
            DLS_TRY(dls_node_way_go(&way, l, NULL));
    }
    return DLS_OK;
}

/* count over the nodes */
dls_status dls_node_dispatch_count(const dls_pass *p, const dls_node_dispatch *d,
                                   const dls_node_choice *c, int known)
{
    int *legs;
    const dls_axes *a = p->axes;
    if (!a || !a->node || !a->across || !a->counts)
        return DLS_FAIL(DLS_ERR_STATE, "dispatch over nodes, and no communicators within "
                        "and across them");
    if (c->tokens > d->tokens)
        return DLS_FAIL(DLS_ERR_STATE, "dispatch over nodes: %d tokens; there is room for "
                        "%d", c->tokens, d->tokens);
    dls_node_routes *r = lay_out(p, d, c->tokens, &legs);
    lay_out_tables(p, d, r);    // kept has its place; the legs' do not count yet
    DLS_TRY(dls_node_keep(p->ctx, r->kept, c->index, c->place, c->tokens,
                          d->moe.chosen));
    DLS_TRY(known ? tell(p, r, c->number) : ask(p, d, r, c->counts));
    dls_node_legs(&r->grid, d->rank, c->tokens, r->censuses, legs, r->leg);
    describe_arrived(d, r);
    DLS_TRY(dls_routing_fault(r->routes.counts, r->routes.ranks, r->grid.experts));
    DLS_TRY(check_legs(d, r));
    lay_out_tables(p, d, r);
    return select_all(p, d, r, legs + dls_node_leg_ints(&r->grid));
}

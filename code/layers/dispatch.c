/* code/layers/dispatch.c: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Routes of rows over the ranks that share the experts: who sends how many where. */
#include "layers/dispatch.h"

#include <math.h>
#include <string.h>

#include "comm/comm.h"
#include "layers/dispatch_internal.h"
#include "layers/router.h"

/* size a dispatch */
int dls_dispatch_moves(const dls_sharding *s)
{
    return s->expert > 1 || s->expert_tensor > 1;
}

dls_status dls_dispatch_check(const dls_sharding *s, const dls_moe *m)
{
    int ep = dls_at_least_one(s->expert), E = m->experts, below = E / ep * ep;
    if (E % ep == 0)
        return DLS_OK;
    if (below == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "experts: %d ranks (ep) can not share %d experts "
                        "equally; the nearest number of experts that works is %d", ep, E,
                        ep);
    return DLS_FAIL(DLS_ERR_INPUT, "experts: %d ranks (ep) can not share %d experts "
                    "equally; the nearest numbers of experts that work are %d and %d", ep,
                    E, below, below + ep);
}

// Of how many sequences of T tokens `rows` rows can be. A slice of them may begin and end
// within one.
static int most_sequences(const dls_sharding *s, int rows, int T)
{
    int more = s->tensor > 1 ? 2 * T - 2 : T - 1;
    return rows > 0 && T > 0 ? (rows + more) / T : 0;
}

// The most rows that one rank's `rows` tokens send to one expert.
static long most_to_expert(const dls_sharding *s, const dls_moe *m, int rows, int T)
{
    int of_sequence = rows < T ? rows : T;
    long most = of_sequence, each = (long)of_sequence * m->chosen;
    if (m->balanced)
        most = (each + m->experts - 1) / m->experts;
    if (m->capacity > 0) {
        long taken = (long)ceil(m->capacity * m->chosen * T / m->experts);
        most = m->padded || taken < most ? taken : most;
    }
    return most * most_sequences(s, rows, T);
}

// The most that it sends to so many experts together.
static int most_to(const dls_sharding *s, const dls_moe *m, int rows, int T, int experts)
{
    int chosen = m->chosen < experts ? m->chosen : experts;
    long free = (long)rows * chosen, bound;
    bound = experts * most_to_expert(s, m, rows, T);
    return (int)(!m->padded && free < bound ? free : bound);
}

/* plan a dispatch */
size_t dls_dispatch_counts_bytes(const dls_dispatch *d)
{
    size_t ranks = dls_at_least_one(d->sharding.expert);
    size_t shares = dls_at_least_one(d->sharding.expert_tensor);
    size_t numbers = ranks * (shares + 1) * d->moe.experts;
    return dls_dispatch_moves(&d->sharding) ? (numbers * sizeof(int) + 255) / 256 * 256
                                            : 0;
}

static size_t scratch_bytes(const dls_dispatch *d, dls_dtype dtype)
{
    size_t shares = dls_at_least_one(d->sharding.expert_tensor), own = d->room / shares;
    size_t there = 0, back = (shares - 1) * own * d->columns * dls_dtype_size(dtype);
    if (dls_dispatch_row_type(d, dtype, 0) != DLS_ROWS_SAME)
        there = (d->sent_room + d->room) * dls_dispatch_row_bytes(d, dtype, 0);
    if (dls_dispatch_row_type(d, dtype, 1) != DLS_ROWS_SAME)
        back += (d->sent_room + own) * dls_dispatch_row_bytes(d, dtype, 1);
    there = dls_dispatch_moves(&d->sharding) ? there > back ? there : back : 0;
    return dls_dispatch_counts_bytes(d) + (there + 255) / 256 * 256 + 512;
}

static size_t routes_bytes(const dls_sharding *s, const dls_moe *m)
{
    size_t ranks = dls_at_least_one(s->expert);
    size_t sources = ranks * dls_at_least_one(s->expert_tensor);
    return sizeof(dls_routes) + sources * m->experts / ranks * sizeof(dls_segment)
         + sources * m->experts * sizeof(int);
}

void dls_dispatch_plan(dls_dispatch *out, dls_plan *plan, const dls_sharding *s,
                       const dls_moe *m, int rows, int T, int columns)
{
    int ranks = dls_at_least_one(s->expert);
    int sources = ranks * dls_at_least_one(s->expert_tensor);
    *out = (dls_dispatch){.sharding = *s, .moe = *m, .columns = columns};
    out->sent_room = most_to(s, m, rows, T, m->experts);
    out->room = sources * most_to(s, m, rows, T, m->experts / ranks);
    if (s->dispatch == DLS_DISPATCH_ONE_SIDED && s->expert > 1)
        dls_one_sided_plan(out, plan, most_to(s, m, rows, T, 1));
    out->host = plan->host;
    plan->host += (routes_bytes(s, m) + 15) / 16 * 16;
    out->scratch = dls_plan_scratch(plan, scratch_bytes(out, plan->dtype) / 4, DLS_F32);
}

/* count the rows */
const dls_routes *dls_dispatch_routes(const dls_pass *p, const dls_dispatch *d)
{
    return (const dls_routes *)((const char *)p->host + d->host);
}

static dls_routes *lay_out(const dls_pass *p, const dls_dispatch *d)
{
    dls_routes *r = (dls_routes *)((char *)p->host + d->host);
    int ranks = dls_at_least_one(d->sharding.expert);
    int sources = ranks * dls_at_least_one(d->sharding.expert_tensor);
    *r = (dls_routes){.ranks = ranks, .experts = d->moe.experts / ranks,
                      .sources = sources};
    r->segment = (dls_segment *)(r + 1);
    r->counts = (int *)(r->segment + sources * r->experts);
    return r;
}

// r->counts := those of all sources, by way of the device.
static dls_status ask(const dls_pass *p, const dls_dispatch *d, dls_routes *r,
                      const int *counts)
{
    const dls_axes *a = p->axes;
    int E = d->moe.experts, *all = dls_pass_stash(p, d->scratch);
    cudaStream_t stream = p->ctx->stream;
    if (r->ranks > 1) {
        DLS_TRY(dls_comm_all_gather(a->counts ? a->counts : a->expert, counts, all, E,
                                    DLS_COMM_I32, stream));
        counts = all;
    }
    if (r->sources > r->ranks) {
        DLS_TRY(dls_comm_all_gather(a->shares ? a->shares : a->expert_tensor, counts,
                                    all + r->ranks * E, r->ranks * E, DLS_COMM_I32,
                                    stream));
        counts = all + r->ranks * E;
    }
    DLS_CUDA(cudaMemcpyAsync(r->counts, counts, sizeof(int) * r->sources * E,
                             cudaMemcpyDeviceToHost, stream));
    DLS_CUDA(cudaStreamSynchronize(stream));
    return DLS_OK;
}

// The same from host to host.
static dls_status tell(const dls_pass *p, const dls_dispatch *d, dls_routes *r,
                       const int *known)
{
    const dls_axes *a = p->axes;
    int E = d->moe.experts, mine[r->ranks * E];
    memcpy(mine, known, sizeof *mine * E);
    if (r->ranks > 1)
        DLS_TRY(dls_comm_all_gather_host(a->counts ? a->counts : a->expert, known,
                                         sizeof(int) * E, mine));
    if (r->sources > r->ranks)
        return dls_comm_all_gather_host(a->shares ? a->shares : a->expert_tensor, mine,
                                        sizeof mine, r->counts);
    memcpy(r->counts, mine, sizeof mine);
    return DLS_OK;
}

/* route the rows */
int dls_routes_rows(const dls_routes *r, int source, int e)
{
    const int *counts = r->counts + (size_t)source * r->ranks * r->experts;
    int rows = 0;
    for (int j = 0; j < r->experts; j++)
        rows += counts[e * r->experts + j];
    return rows;
}

// A source's counts are none below zero, and together no more than it can have.
static dls_status check_source(const dls_dispatch *d, const dls_routes *r, int source)
{
    int E = d->moe.experts;
    long rows = 0;
    for (int e = 0; e < E; e++) {
        int n = r->counts[source * E + e];
        if (n < 0 || n > d->sent_room)
            return DLS_FAIL(DLS_ERR_STATE, "dispatch: source %d has %d rows for expert "
                            "%d; expected 0 to %d", source, n, e, d->sent_room);
        rows += n;
    }
    return rows <= d->sent_room ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "dispatch: source %d has %ld rows; expected at most %d",
                   source, rows, d->sent_room);
}

static dls_status check_counts(const dls_dispatch *d, const dls_routes *r)
{
    DLS_TRY(dls_routing_fault(r->counts, r->sources, d->moe.experts));
    for (int source = 0; source < r->sources; source++)
        DLS_TRY(check_source(d, r, source));
    for (int e = 0; e < r->ranks; e++) {
        long rows = 0;
        for (int source = 0; source < r->sources; source++)
            rows += dls_routes_rows(r, source, e);
        if (rows > d->room)
            return DLS_FAIL(DLS_ERR_STATE, "dispatch: %ld rows for the experts of rank "
                            "%d; there is room for %d", rows, e, d->room);
    }
    return DLS_OK;
}

static void add_segments(dls_routes *r, int source, int me)
{
    const int *counts = r->counts + ((size_t)source * r->ranks + me) * r->experts;
    for (int j = 0; j < r->experts; j++) {
        if (counts[j] > 0)
            r->segment[r->segments++] = (dls_segment){j, r->arrived, counts[j]};
        r->arrived += counts[j];
    }
}

static void route(const dls_dispatch *d, dls_routes *r)
{
    int me = r->ranks > 1 ? d->sharding.expert_rank : 0;
    int share = r->sources > r->ranks ? d->sharding.expert_tensor_rank : 0;
    for (int source = 0; source < r->sources; source++) {
        if (source == share * r->ranks)
            r->own_first = r->arrived;
        add_segments(r, source, me);
        if (source == (share + 1) * r->ranks - 1)
            r->own = r->arrived - r->own_first;
    }
    for (int e = 0; e < r->ranks; e++)
        r->sent += dls_routes_rows(r, share * r->ranks + me, e);
}

static dls_status check_axes(const dls_pass *p, const dls_dispatch *d)
{
    const dls_sharding *s = &d->sharding;
    if ((s->expert > 1 && !(p->axes && p->axes->expert)) ||
        (s->expert_tensor > 1 && !(p->axes && p->axes->expert_tensor)))
        return DLS_FAIL(DLS_ERR_STATE, "dispatch over %d x %d ranks, and no communicator "
                        "between them", dls_at_least_one(s->expert),
                        dls_at_least_one(s->expert_tensor));
    return dls_dispatch_check(s, &d->moe);
}

dls_status dls_dispatch_count(const dls_pass *p, const dls_dispatch *d, const int *counts,
                              const int *known)
{
    DLS_TRY(check_axes(p, d));
    dls_routes *r = lay_out(p, d);
    if (d->block)
        return dls_one_sided_count(p, d, r, counts, known);
    DLS_TRY(ask(p, d, r, counts));
    if (known)
        DLS_TRY(tell(p, d, r, known));
    DLS_TRY(check_counts(d, r));
    route(d, r);
    return DLS_OK;
}

/* code/parallel/expert/dispatch_bench.c: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* Making rows for experts, and sending them in one of three ways. */
#include "parallel/expert/dispatch_bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "comm/window.h"
#include "vgpu/gpu.h"

/* choose where rows go */
// The experts of a token, into chosen (k); scratch (E): room.
static void choose(const dls_dispatch_bench *b, int token, int *scratch, int *chosen)
{
    const dls_dispatch_options *o = b->o;
    int E = (int)o->experts, k = (int)o->chosen;
    for (int e = 0; e < E; e++)
        scratch[e] = e;
    for (int j = 0; j < k; j++) {
        /* draw a choice that was not drawn before */
        uint64_t index = (uint64_t)token * o->chosen + j;
        int at = j + (int)(dls_rng_u32(3, (uint64_t)b->rank, index) % (uint32_t)(E - j));
        int e = scratch[at];
        scratch[at] = scratch[j];
        scratch[j] = e;
        chosen[j] = *o->pattern == 'r' ? e : *o->pattern == 'o' ? j : (token * k + j) % E;
    }
}

static dls_status route_all(dls_dispatch_bench *b)
{
    int E = (int)b->o->experts, k = (int)b->o->chosen, tokens = (int)b->o->tokens;
    int *first = calloc(2 * (size_t)E, sizeof *first);
    b->all = malloc(sizeof *b->all * (size_t)(b->n * E));
    if (!first || !b->all)
        return free(first), DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d experts", E);
    memset(b->counts, 0, sizeof *b->counts * E);
    for (int i = 0; i < tokens; i++)
        choose(b, i, first + E, b->index + i * k);
    for (int i = 0; i < tokens * k; i++)
        b->counts[b->index[i]]++;
    for (int e = 1; e < E; e++)
        first[e] = first[e - 1] + b->counts[e - 1];
    for (int i = 0; i < tokens * k; i++)
        b->place[i] = first[b->index[i]]++;
    free(first);
    return dls_comm_all_gather_host(b->comm, b->counts, sizeof(int) * E, b->all);
}

/* make a measured dispatch */
static void plan(dls_dispatch_bench *b)
{
    const dls_dispatch_options *o = b->o;
    dls_moe moe = {.experts = (int)o->experts, .chosen = (int)o->chosen,
                   .balanced = *o->pattern == 'e'};
    int tokens = (int)o->tokens, C = (int)o->channels;
    b->plan = (dls_plan){.max_B = 1, .max_T = tokens, .dtype = o->dtype};
    dls_dispatch_plan(&b->d, &b->plan, &b->axes.sharding, &moe, tokens, tokens, C);
    if (o->way == DLS_DISPATCH_NODES)
        dls_node_dispatch_plan(&b->nodes, &b->plan, &b->axes.sharding, &moe, tokens,
                               b->d.room, C);
}

static dls_status take(void *pointer, size_t bytes)
{
    return dls_flat_buffer(pointer, bytes, DLS_MEM_ACTIVATIONS);
}

static dls_status make_buffers(dls_dispatch_bench *b)
{
    const dls_dispatch_options *o = b->o;
    size_t row = (size_t)o->channels * dls_dtype_size(o->dtype);
    size_t choices = sizeof(int) * o->tokens * o->chosen;
    int come = b->nodes.landed > b->d.room ? b->nodes.landed : b->d.room;
    int least = come > o->tokens ? come : (int)o->tokens;   // a pipeline's, too
    DLS_TRY(take(&b->counts, sizeof(int) * o->experts));
    DLS_TRY(take(&b->index, choices));
    DLS_TRY(take(&b->place, choices));
    DLS_TRY(take(&b->rows, b->d.sent_room * row));
    DLS_TRY(take(&b->arrived, least * row));
    DLS_TRY(take(&b->activations, dls_plan_bytes(&b->plan)));
    b->host = malloc(b->plan.host);
    return b->host ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for routes");
}

dls_status dls_dispatch_bench_open(dls_dispatch_bench *b, const dls_dispatch_options *o,
                                   dls_comm *comm)
{
    *b = (dls_dispatch_bench){.o = o, .comm = comm, .n = dls_comm_size(comm),
                              .rank = dls_comm_rank(comm)};
    dls_sharding by = {.expert = b->n, .expert_rank = b->rank, .wire = o->wire,
                       .dispatch = o->way};
    dls_moe moe = {.experts = (int)o->experts, .chosen = (int)o->chosen};
    DLS_TRY(dls_dispatch_check(&by, &moe));
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), o->dtype));
    DLS_TRY(dls_axes_open(&b->axes, &by, 1, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&b->axes, comm, NULL, NULL));
    plan(b);
    DLS_TRY(make_buffers(b));
    b->pass = (dls_pass){.ctx = &b->ctx, .axes = &b->axes, .B = 1, .T = (int)o->tokens,
                         .host = b->host};
    dls_pass_regions(&b->pass, &b->plan, b->activations);
    return route_all(b);
}

void dls_dispatch_bench_close(dls_dispatch_bench *b)
{
    void *all[] = {b->counts, b->index,   b->place,
                   b->rows,   b->arrived, b->activations};
    for (int i = 0; i < 6; i++)
        dls_device_free(all[i]);
    free(b->host);
    free(b->all);
    dls_axes_close(&b->axes);
    dls_ctx_destroy(&b->ctx);
}

/* move measured rows */
static dls_status send_on(dls_dispatch_bench *b)
{
    size_t bytes = (size_t)b->o->tokens * b->o->channels * dls_dtype_size(b->o->dtype);
    dls_status s = DLS_OK;
    DLS_TRY(dls_comm_group_begin(b->comm));
    s = dls_comm_send(b->comm, b->rows, bytes, DLS_COMM_U8, (b->rank + 1) % b->n,
                      b->ctx.stream);
    if (s == DLS_OK)
        s = dls_comm_recv(b->comm, b->arrived, bytes, DLS_COMM_U8,
                          (b->rank + b->n - 1) % b->n, b->ctx.stream);
    dls_status end = dls_comm_group_end(b->comm);
    return s != DLS_OK ? s : end;
}

static dls_status move_over_nodes(dls_dispatch_bench *b, dls_movement w)
{
    const dls_pass *p = &b->pass;
    const dls_node_choice choice = {b->index, b->place, b->counts, (int)b->o->tokens, 0};
    int C = (int)b->o->channels;
    if (w == DLS_MOVE_COUNTS)
        return dls_node_dispatch_count(p, &b->nodes, &choice, 0);
    return w == DLS_MOVE_DISPATCH
        ? dls_node_dispatch_rows(p, &b->nodes, b->arrived, b->rows, C, b->o->dtype)
        : dls_node_combine_rows(p, &b->nodes, b->rows, b->arrived, C, b->o->dtype);
}

dls_status dls_dispatch_bench_move(dls_dispatch_bench *b, dls_movement w)
{
    const dls_pass *p = &b->pass;
    if (w == DLS_MOVE_PIPELINE)
        return send_on(b);
    if (b->o->way == DLS_DISPATCH_NODES)
        DLS_TRY(move_over_nodes(b, w));
    else if (w == DLS_MOVE_COUNTS)
        DLS_TRY(dls_dispatch_count(p, &b->d, b->counts, NULL));
    else if (w == DLS_MOVE_DISPATCH)
        DLS_TRY(dls_dispatch_rows(p, &b->d, b->arrived, b->rows));
    else
        DLS_TRY(dls_combine_rows(p, &b->d, b->rows, b->arrived));
    return dls_dispatch_wait(p);
}

/* count bytes by link */
int dls_dispatch_bench_node(const dls_dispatch_bench *b, int rank)
{
    return dls_comm_world_rank(b->comm, rank) / dls_gpu_cluster()->gpus_per_node;
}

static double wire_bytes(const dls_comm *comm)
{
    return comm ? (double)dls_comm_stats(comm).wire_bytes : 0;
}

void dls_dispatch_bench_sent(const dls_dispatch_bench *b, dls_movement w,
                             double bytes[2])
{
    const dls_axes *a = &b->axes;
    bytes[0] = b->o->way == DLS_DISPATCH_NODES ? wire_bytes(a->node) : -1;
    bytes[1] = b->o->way == DLS_DISPATCH_NODES ? wire_bytes(a->across)
                                               : wire_bytes(b->comm);
    if (w == DLS_MOVE_PIPELINE) {
        bytes[0] = -1;
        bytes[1] = wire_bytes(b->comm);
    } else if (b->o->way == DLS_DISPATCH_ONE_SIDED && a->window->window) {
        dls_window_statistics s = dls_window_stats(a->window->window);
        bytes[0] = bytes[1] = 0;
        for (int r = 0; r < b->n; r++)
            if (r != b->rank)
                bytes[dls_dispatch_bench_node(b, r) !=
                      dls_dispatch_bench_node(b, b->rank)] += (double)s.bytes[r];
    }
}

// Rows that a rank has for the experts of another.
static int rows_for(const dls_dispatch_bench *b, int from, int to)
{
    int E = (int)b->o->experts, each = E / b->n, rows = 0;
    for (int j = 0; j < each; j++)
        rows += b->all[from * E + to * each + j];
    return rows;
}

double dls_dispatch_bench_between(const dls_dispatch_bench *b, dls_movement w, int from,
                                  int to)
{
    const dls_dispatch_options *o = b->o;
    int back = w == DLS_MOVE_COMBINE;
    size_t row = dls_dispatch_row_bytes(&b->d, o->dtype, back);
    if (from == to || w == DLS_MOVE_COUNTS)
        return 0;
    if (w == DLS_MOVE_PIPELINE)
        return to == (from + 1) % b->n
            ? (double)o->tokens * o->channels * dls_dtype_size(o->dtype) : 0;
    return (double)row * (back ? rows_for(b, to, from) : rows_for(b, from, to));
}

void dls_dispatch_bench_rows(const dls_dispatch_bench *b, dls_movement w, int rows[2])
{
    int back = w == DLS_MOVE_COMBINE, tokens = (int)b->o->tokens;
    rows[0] = rows[1] = 0;
    for (int r = 0; r < b->n; r++) {
        rows[back] += rows_for(b, b->rank, r);
        rows[!back] += rows_for(b, r, b->rank);
    }
    if (b->o->way == DLS_DISPATCH_NODES) {
        rows[back] = tokens;
        rows[!back] = dls_node_dispatch_routes(&b->pass, &b->nodes)->landed;
    }
    if (w == DLS_MOVE_PIPELINE)
        rows[0] = rows[1] = tokens;
}

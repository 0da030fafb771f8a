/* code/parallel/expert/ways_command.c: from chapters/08-dispatch-nodes-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* A dispatch and a combine by three ways, with their bytes by link and their times. */
#include "parallel/expert/ways_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/rng.h"
#include "base/table.h"
#include "comm/window.h"
#include "kernels/permute.h"
#include "layers/dispatch_internal.h"
#include "layers/dispatch_nodes.h"
#include "vgpu/gpu.h"

/* describe a race */
typedef struct options {
    int64_t tokens, channels, experts, chosen, limit;
    const char *cluster;
    int json;
} options;

typedef struct race {
    const options *o;
    dls_comm *comm;
    dls_ctx ctx;
    dls_axes axes;
    dls_plan plan;
    dls_pass pass;
    dls_dispatch d;
    dls_node_dispatch nodes;
    dls_node_grid grid;
    int n, rank, sent, landed;      // landed: the most rows
    int *index, *place, *counts;    // (tokens, k), (E): device, written by the host
    char *x, *rows, *landing, *arrived, *weights, *near, *activations;
    dls_table *table;
} race;

/* prepare a race */
/* choose experts for a race */
// m distinct numbers of 0 ... n - 1 in front of list (n).
static void draw(const race *r, int *list, int n, int m, uint64_t *at)
{
    for (int i = 0; i < n; i++)
        list[i] = i;
    for (int i = 0; i < m; i++) {
        int j = i + (int)(dls_rng_u32(5, (uint64_t)r->rank, (*at)++) % (unsigned)(n - i));
        int x = list[j];
        list[j] = list[i];
        list[i] = x;
    }
}

/* choose for every token */
static dls_status choose(race *r)
{
    const options *o = r->o;
    int E = (int)o->experts, k = (int)o->chosen, N = r->grid.nodes, per = E / N;
    int M = o->limit > 0 && o->limit < N ? (int)o->limit : N, node[N], places[E];
    int *which = malloc(sizeof *which * (size_t)E);
    uint64_t at = 0;
    if (!which)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d experts", E);
    memset(r->counts, 0, sizeof *r->counts * (size_t)E);
    for (int t = 0; t < o->tokens; t++) {
        draw(r, node, N, M, &at);
        draw(r, which, M * per, k, &at);
        for (int j = 0; j < k; j++) {
            int e = node[which[j] / per] * per + which[j] % per;
            r->index[t * k + j] = e;
            r->counts[e]++;
        }
    }
    free(which);
    places[0] = 0;
    for (int e = 1; e < E; e++)
        places[e] = places[e - 1] + r->counts[e - 1];
    for (int i = 0; i < o->tokens * k; i++)
        r->place[i] = places[r->index[i]]++;
    return DLS_OK;
}

/* take memory for a race */
static dls_status take(void *pointer, size_t bytes)
{
    return dls_flat_buffer(pointer, bytes ? bytes : 1, DLS_MEM_ACTIVATIONS);
}

/* plan a race */
static dls_status plan(race *r, dls_dispatch_way way)
{
    const options *o = r->o;
    dls_moe m = {.experts = (int)o->experts, .chosen = (int)o->chosen};
    dls_sharding by = r->axes.sharding;
    int n = (int)o->tokens, k = (int)o->chosen;
    size_t row = (size_t)o->channels * dls_dtype_size(r->ctx.dtype);
    by.dispatch = way;
    r->plan = (dls_plan){.max_B = 1, .max_T = n, .dtype = r->ctx.dtype};
    dls_dispatch_plan(&r->d, &r->plan, &by, &m, n, n, (int)o->channels);
    dls_node_dispatch_plan(&r->nodes, &r->plan, &by, &m, n, r->d.room, (int)o->channels);
    r->landed = r->nodes.landed;
    DLS_TRY(take(&r->x, n * row));
    DLS_TRY(take(&r->rows, r->d.sent_room * row));
    DLS_TRY(take(&r->landing, r->landed * row));
    DLS_TRY(take(&r->arrived, r->d.room * row));
    DLS_TRY(take(&r->weights, n * k * sizeof(double)));
    DLS_TRY(take(&r->near, r->landed * k * sizeof(double)));
    DLS_TRY(take(&r->index, n * k * sizeof(int)));
    DLS_TRY(take(&r->place, n * k * sizeof(int)));
    DLS_TRY(take(&r->counts, o->experts * sizeof(int)));
    DLS_TRY(take(&r->activations, dls_plan_bytes(&r->plan)));
    r->pass = (dls_pass){.ctx = &r->ctx, .axes = &r->axes, .B = 1, .T = n,
                         .host = malloc(r->plan.host)};
    dls_pass_regions(&r->pass, &r->plan, r->activations);
    return r->pass.host ? choose(r) : DLS_FAIL(DLS_ERR_MEMORY, "no memory for routes");
}

/* give memory back */
static void give_back(race *r)
{
    void *all[] = {r->x, r->rows, r->landing, r->arrived, r->weights, r->near, r->index,
                   r->place, r->counts, r->activations};
    for (int i = 0; i < 10; i++)
        dls_device_free(all[i]);
    free(r->pass.host);
}

/* go by a way */
static dls_status go_flat(race *r, int back)
{
    const options *o = r->o;
    int n = (int)o->tokens, k = (int)o->chosen, C = (int)o->channels;
    if (back) {
        DLS_TRY(dls_combine_rows(&r->pass, &r->d, r->rows, r->arrived));
        DLS_TRY(dls_dispatch_wait(&r->pass));
        return dls_unpermute(&r->ctx, r->x, NULL, r->rows, r->weights, r->place, n, k, C);
    }
    DLS_TRY(dls_dispatch_count(&r->pass, &r->d, r->counts, NULL));
    DLS_TRY(dls_permute(&r->ctx, r->rows, r->x, r->place, n, k, C));
    DLS_TRY(dls_dispatch_rows(&r->pass, &r->d, r->arrived, r->rows));
    return dls_dispatch_wait(&r->pass);
}

/* go over the nodes */
static dls_status go_nodes(race *r, int back)
{
    const options *o = r->o;
    int k = (int)o->chosen, C = (int)o->channels;
    dls_dtype type = r->ctx.dtype, wide = dls_dtype_accumulator(type);
    dls_node_choice choice = {r->index, r->place, r->counts, (int)o->tokens, 0};
    const dls_node_routes *to = dls_node_dispatch_routes(&r->pass, &r->nodes);
    if (back) {
        DLS_TRY(dls_unpermute(&r->ctx, r->landing, NULL, r->arrived, r->near,
                              to->place[2], to->landed, k, C));
        DLS_TRY(dls_node_combine_rows(&r->pass, &r->nodes, r->x, r->landing, C, type));
        return dls_dispatch_wait(&r->pass);
    }
    DLS_TRY(dls_node_dispatch_count(&r->pass, &r->nodes, &choice, 0));
    DLS_TRY(dls_node_dispatch_rows(&r->pass, &r->nodes, r->near, r->weights, k, wide));
    DLS_TRY(dls_node_dispatch_rows(&r->pass, &r->nodes, r->landing, r->x, C, type));
    DLS_TRY(dls_dispatch_wait(&r->pass));
    return dls_permute(&r->ctx, r->arrived, r->landing, to->place[2], to->landed, k, C);
}

static dls_status go(race *r, dls_dispatch_way way, int back)
{
    return way == DLS_DISPATCH_NODES ? go_nodes(r, back) : go_flat(r, back);
}

/* time a way */
// Seconds of the slowest rank, from a moment at which all were idle.
static dls_status time_way(race *r, dls_dispatch_way way, int back, double *seconds)
{
    double before, mine, all[r->n];
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_TRY(dls_comm_barrier(r->comm));
    before = dls_gpu_host_time();
    DLS_TRY(go(r, way, back));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    mine = dls_gpu_host_time() - before;
    DLS_TRY(dls_comm_all_gather_host(r->comm, &mine, sizeof mine, all));
    *seconds = 0;
    for (int i = 0; i < r->n; i++)
        *seconds = all[i] > *seconds ? all[i] : *seconds;
    return DLS_OK;
}

/* count far rows */
// Rows that this rank sent to other nodes (0) and within its own (1), in the way there.
static void count_rows(const race *r, dls_dispatch_way way, const double *before,
                       double *rows)
{
    double row = (double)r->o->channels * dls_dtype_size(r->ctx.dtype);
    const dls_routes *to = dls_dispatch_routes(&r->pass, &r->d);
    rows[0] = rows[1] = 0;
    if (way == DLS_DISPATCH_NODES) {
        const dls_node_routes *x = dls_node_dispatch_routes(&r->pass, &r->nodes);
        dls_node_traffic t = dls_node_nested(&r->grid, r->rank, x->censuses);
        rows[0] = t.slow;
        rows[1] = t.fast;
        return;
    }
    for (int i = 0; i < r->n; i++) {
        int far = i / r->grid.places != r->rank / r->grid.places;
        if (i != r->rank && way == DLS_DISPATCH_FLAT)
            rows[!far] += dls_routes_rows(to, r->rank, i);
        else if (i != r->rank)
            rows[!far] += ((double)dls_window_stats(r->axes.window->window).bytes[i] -
                           before[i]) / row;
    }
}

static void note_bytes(const race *r, double *before)
{
    for (int i = 0; i < r->n; i++)
        before[i] = r->axes.window->window
            ? (double)dls_window_stats(r->axes.window->window).bytes[i] : 0;
}

/* tell of a race */
static const dls_column columns[] = {
    {"way", NULL}, {"there µs", "%.1f"}, {"back µs", "%.1f"}, {"far rows", "%.3f"},
    {"expected", "%.3f"}, {"near rows", "%.3f"}, {"room MB", "%.1f"}};

static double expected(const race *r, dls_dispatch_way way)
{
    double N = r->grid.nodes;
    return (way == DLS_DISPATCH_NODES ? dls_nodes_expected(&r->grid, (int)r->o->limit)
                                      : (double)r->o->chosen) * (1 - 1 / N);
}

static double room(const race *r, dls_dispatch_way way)
{
    double row = (double)r->o->channels * dls_dtype_size(r->ctx.dtype);
    double bytes = r->d.room * row;
    if (way == DLS_DISPATCH_ONE_SIDED)
        bytes += (double)dls_window_stats(r->axes.window->window).memory;
    return bytes + (way == DLS_DISPATCH_NODES ? 3 * r->landed * row
                                              : r->d.sent_room * row);
}

/* measure a way */
static dls_status measure(race *r, dls_dispatch_way way)
{
    static const char *const names[] = {"flat", "nodes", "one-sided"};
    double there, back, rows[2], all[2 * r->n], before[r->n], sum[2] = {0, 0};
    DLS_TRY(plan(r, way));
    DLS_TRY(go(r, way, 0));         // the first takes memory
    DLS_TRY(go(r, way, 1));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    note_bytes(r, before);
    DLS_TRY(time_way(r, way, 0, &there));
    count_rows(r, way, before, rows);
    DLS_TRY(time_way(r, way, 1, &back));
    DLS_TRY(dls_comm_all_gather_host(r->comm, rows, sizeof rows, all));
    for (int i = 0; i < 2 * r->n; i++)
        sum[i % 2] += all[i] / (double)r->n / (double)r->o->tokens;
    dls_table_add_text(r->table, names[way]);
    dls_table_add_real(r->table, there * 1e6);
    dls_table_add_real(r->table, back * 1e6);
    dls_table_add_real(r->table, sum[0]);
    dls_table_add_real(r->table, expected(r, way));
    dls_table_add_real(r->table, sum[1]);
    dls_table_add_real(r->table, room(r, way) * 1e-6);
    give_back(r);
    return DLS_OK;
}

/* run the ways command */
static dls_status check(const options *o, const dls_sharding *by)
{
    DLS_TRY(dls_args_in("--experts", o->experts, 1, 4096));
    DLS_TRY(dls_dispatch_check(by, &(dls_moe){.experts = (int)o->experts}));
    DLS_TRY(dls_args_in("--chosen", o->chosen, 1, o->experts / by->expert));
    DLS_TRY(dls_args_in("--tokens", o->tokens, 1, (1 << 24) / o->chosen));
    DLS_TRY(dls_args_in("--channels", o->channels, 1, 1 << 20));
    return dls_args_in("--limit", o->limit, 0, by->expert);
}

static dls_status open_race(race *r)
{
    const options *o = r->o;
    r->n = dls_comm_size(r->comm);
    r->rank = dls_comm_rank(r->comm);
    if (r->n < 2)
        return DLS_FAIL(DLS_ERR_INPUT, "dls ways: one rank has nobody to send to; try "
                        "`dls run -n 16 -- ways --cluster two-dgx-h100`");
    dls_sharding by = {.expert = r->n, .expert_rank = r->rank};
    DLS_TRY(check(o, &by));
    DLS_TRY(dls_ctx_create(&r->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_axes_open(&r->axes, &by, 1, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&r->axes, r->comm, NULL, NULL));
    DLS_TRY(dls_axes_add_nodes(&r->axes));
    r->axes.window = calloc(1, sizeof *r->axes.window);
    int P = dls_comm_size(r->axes.node);
    r->grid = (dls_node_grid){r->n / P, P, (int)o->experts, (int)o->chosen};
    return r->axes.window ? dls_table_create(&r->table, columns,
                                             sizeof columns / sizeof *columns)
                          : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a window");
}

/* run all ways */
static dls_status run_race(race *r)
{
    const options *o = r->o;
    DLS_TRY(open_race(r));
    for (int way = DLS_DISPATCH_FLAT; way <= DLS_DISPATCH_ONE_SIDED; way++)
        if (way != DLS_DISPATCH_ONE_SIDED || o->tokens <= 128)
            DLS_TRY(measure(r, (dls_dispatch_way)way));
    if (r->rank > 0)
        return DLS_OK;
    if (!o->json)
        printf("%d ranks on %d node%s with %lld tokens of %lld columns, bf16; %lld "
               "experts, %lld chosen\n", r->n, r->grid.nodes,
               r->grid.nodes > 1 ? "s" : "", (long long)o->tokens,
               (long long)o->channels, (long long)o->experts, (long long)o->chosen);
    DLS_TRY(dls_table_print(r->table, stdout, o->json));
    if (!o->json)
        puts("Times of the slowest rank. Rows of a token to other nodes and within them, "
             "on the way there;\nexpected: to other nodes, by the formula; room: of "
             "buffers for the worst case.");
    return DLS_OK;
}

/* read the options of a race */
dls_status dls_ways_command(int argc, char **argv, int *exit_code)
{
    options o = {.tokens = 64, .channels = 2048, .experts = 128, .chosen = 8};
    race r = {.o = &o};
    int helped;
    const dls_arg args[] = {
        {"--tokens", DLS_ARG_INT, &o.tokens, "N", "of each rank (64)"},
        {"--channels", DLS_ARG_INT, &o.channels, "C", "columns of a row (2048)"},
        {"--experts", DLS_ARG_INT, &o.experts, "E", "of all ranks together (128)"},
        {"--chosen", DLS_ARG_INT, &o.chosen, "K", "experts of a token (8)"},
        {"--limit", DLS_ARG_INT, &o.limit, "M", "nodes of a token; 0: any (0)"},
        {"--cluster", DLS_ARG_STRING, &o.cluster, "NAME", "the hardware (dgx-h100)"},
        {"--json", DLS_ARG_FLAG, &o.json, NULL, "print JSON"}};
    const dls_args spec = {"dls ways", "Sends rows to experts and back by three ways, on "
                           "the virtual clock. Up to 128 tokens: one-sided as well.",
                           "dls run -n 16 -- ways --cluster two-dgx-h100", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_gpu_init(&(dls_gpu_options){.cluster_file = o.cluster}));
    DLS_TRY(dls_comm_create(&r.comm, NULL));
    dls_status s = run_race(&r);
    if (s == DLS_ERR_INPUT && r.rank > 0) {
        sleep(1);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    dls_table_free(r.table);
    dls_axes_close(&r.axes);
    dls_ctx_destroy(&r.ctx);
    dls_comm_destroy(r.comm);
    return s;
}

/* code/comm/bench_command.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* dls bench collectives: steps, bytes, virtual time and bandwidths of collectives. Runs
 * on every rank of a job; rank 0 prints. */
#include "comm/bench_command.h"

#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/table.h"
#include "comm/choose.h"
#include "comm/cost.h"

/* describe a measurement */
typedef struct plan {
    dls_comm *comm;
    const char *op, *type, *algorithm;
    int64_t least, most, factor; // bytes
    int json, dtype;
    char *in, *out;
    dls_table *table;
} plan;

/* Blocks per rank in and out of an operation; factor of the bus bandwidth. */
static int has_blocks(dls_message_kind kind)
{
    return kind != DLS_MESSAGE_ALL_REDUCE && kind != DLS_MESSAGE_BROADCAST &&
           kind != DLS_MESSAGE_REDUCE;
}

static double bus_factor(dls_message_kind kind, int n)
{
    double share = (n - 1.0) / n;
    return kind == DLS_MESSAGE_ALL_REDUCE ? 2 * share : has_blocks(kind) ? share : 1;
}

/* start all ranks together */
static double common_start;

static int idle_run(void *arg, double start, double *finish)
{
    double until = *(double *)arg;
    *finish = until > start ? until : start;
    return 0;
}

static dls_status start_together(dls_comm *comm)
{
    dls_gpu_op idle = {.name = "idle", .kind = DLS_GPU_HOST, .run = idle_run};
    double now = dls_gpu_host_time(), all[DLS_COMM_RANKS];
    DLS_TRY(dls_comm_all_gather_host(comm, &now, sizeof now, all));
    for (int r = 0; r < dls_comm_size(comm); r++)
        now = all[r] > now ? all[r] : now;
    common_start = now + 1e-3;
    DLS_CUDA(dls_gpu_enqueue(0, &idle, &common_start));
    return DLS_OK;
}

/* call one collective */
static dls_status call_one(const plan *p, dls_message_kind kind, size_t count)
{
    switch (kind) {
    case DLS_MESSAGE_ALL_REDUCE:
        return dls_comm_all_reduce(p->comm, p->out, count, p->dtype, DLS_SUM, 0);
    case DLS_MESSAGE_BROADCAST:
        return dls_comm_broadcast(p->comm, p->out, count, p->dtype, 0, 0);
    case DLS_MESSAGE_REDUCE:
        return dls_comm_reduce(p->comm, p->out, count, p->dtype, DLS_SUM, 0, 0);
    case DLS_MESSAGE_REDUCE_SCATTER:
        return dls_comm_reduce_scatter(p->comm, p->in, p->out, count, p->dtype, DLS_SUM,
                                       0);
    case DLS_MESSAGE_ALL_GATHER:
        return dls_comm_all_gather(p->comm, p->in, p->out, count, p->dtype, 0);
    case DLS_MESSAGE_GATHER:
        return dls_comm_gather(p->comm, p->in, p->out, count, p->dtype, 0, 0);
    case DLS_MESSAGE_SCATTER:
        return dls_comm_scatter(p->comm, p->in, p->out, count, p->dtype, 0, 0);
    default: return dls_comm_all_to_all(p->comm, p->in, p->out, count, p->dtype, 0);
    }
}

/* measure a collective */
typedef struct share { double seconds; uint64_t steps, bytes; } share;

static dls_status measure(plan *p, dls_message_kind kind, size_t count, share *most)
{
    share all[DLS_COMM_RANKS];
    DLS_TRY(start_together(p->comm));
    dls_comm_statistics a = dls_comm_stats(p->comm);
    DLS_TRY(call_one(p, kind, count));
    DLS_CUDA(cudaStreamSynchronize(0));
    dls_comm_statistics b = dls_comm_stats(p->comm);
    share mine = {b.busy_seconds - a.busy_seconds, b.steps - a.steps,
                  b.wire_bytes - a.wire_bytes};
    DLS_TRY(dls_comm_all_gather_host(p->comm, &mine, sizeof mine, all));
    *most = (share){0};
    for (int r = 0; r < dls_comm_size(p->comm); r++) {
        most->seconds = all[r].seconds > most->seconds ? all[r].seconds : most->seconds;
        most->steps = all[r].steps > most->steps ? all[r].steps : most->steps;
        most->bytes = all[r].bytes > most->bytes ? all[r].bytes : most->bytes;
    }
    return DLS_OK;
}

static dls_status add_row(plan *p, dls_message_kind kind, size_t count)
{
    int n = dls_comm_size(p->comm);
    size_t element = dls_comm_type_size(p->dtype);
    double S = (double)(count * element) * (has_blocks(kind) ? n : 1);
    const dls_algorithm *algorithm;
    dls_shape shape = {.world = n, .count = count, .per_node = p->comm->per_node};
    dls_cost cost = {0};
    share is;
    shape.root = kind == DLS_MESSAGE_BROADCAST || kind == DLS_MESSAGE_REDUCE ||
                 kind == DLS_MESSAGE_GATHER || kind == DLS_MESSAGE_SCATTER ? 0 : -1;
    DLS_TRY(dls_comm_choose(p->comm, (int)kind, &shape, element, &algorithm));
    DLS_TRY(measure(p, kind, count, &is));
    DLS_TRY(dls_cost_of(algorithm, &shape, p->comm->links, element, NULL, &cost));
    dls_table_add_text(p->table, dls_operation_name(kind));
    dls_table_add_text(p->table, algorithm->name);
    dls_table_add_int(p->table, (int64_t)S);
    dls_table_add_int(p->table, (int64_t)is.steps);
    dls_table_add_int(p->table, (int64_t)is.bytes);
    dls_table_add_real(p->table, is.seconds * 1e6);
    dls_table_add_real(p->table, cost.seconds * 1e6);
    dls_table_add_real(p->table, S / is.seconds * 1e-9);
    dls_table_add_real(p->table, S / is.seconds * 1e-9 * bus_factor(kind, n));
    return DLS_OK;
}

/* measure all sizes */
static dls_status measure_sizes(plan *p, dls_message_kind kind)
{
    size_t element = dls_comm_type_size(p->dtype);
    size_t parts = has_blocks(kind) ? (size_t)dls_comm_size(p->comm) : 1;
    for (int64_t bytes = p->least; bytes <= p->most; bytes *= p->factor) {
        size_t count = (size_t)bytes / element / parts;
        DLS_TRY(add_row(p, kind, count ? count : 1));
    }
    return DLS_OK;
}

static int is_for(const plan *p, const dls_algorithm *a)
{
    return strcmp(p->algorithm, "all") == 0 || strcmp(p->algorithm, a->name) == 0;
}

static dls_status measure_operation(plan *p, dls_message_kind kind)
{
    char wanted[64];
    int found = 0;
    if (strcmp(p->algorithm, "auto") == 0)
        return measure_sizes(p, kind);
    for (int i = 0; i < dls_algorithm_count; i++) {
        const dls_algorithm *a = &dls_algorithms[i];
        dls_shape shape = {.world = dls_comm_size(p->comm),
                           .per_node = p->comm->per_node};
        if (a->kind != kind || !is_for(p, a) || (a->fits && !a->fits(&shape)))
            continue;
        snprintf(wanted, sizeof wanted, "%s:%s", dls_operation_name(kind), a->name);
        DLS_TRY(dls_comm_want(p->comm, wanted));
        DLS_TRY(measure_sizes(p, kind));
        found = 1;
    }
    return found ? DLS_OK
                 : DLS_FAIL(DLS_ERR_INPUT, "--algorithm: no %s for %s of %d ranks",
                            p->algorithm, dls_operation_name(kind),
                            dls_comm_size(p->comm));
}

/* run the bench command */
static const char legend[] =
    "\nbytes: of the whole operation, S. steps, wire: of the busiest rank. µs: virtual,\n"
    "until the last rank has ended; law: the same from the steps alone. GB/s: S / time.\n"
    "bus GB/s: times 2(n-1)/n for all_reduce, (n-1)/n with blocks, 1 for broadcast and\n"
    "reduce: what a port must at least carry, to compare with the wire's bandwidth.\n";

static dls_status find_type(plan *p)
{
    static const int types[] = {DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16, DLS_COMM_I32,
                                DLS_COMM_I64, DLS_COMM_U8};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        p->dtype = types[i];
        if (strcmp(dls_comm_type_name(types[i]), p->type) == 0)
            return DLS_OK;
    }
    return DLS_FAIL(DLS_ERR_INPUT, "--type: expected f32, f64, bf16, f16, i32, i64 or "
                    "u8, got '%s'", p->type);
}

static dls_status run_plan(plan *p)
{
    static const dls_column columns[] = {
        {"operation", NULL}, {"algorithm", NULL}, {"bytes", NULL}, {"steps", NULL},
        {"wire", NULL}, {"µs", "%.2f"}, {"law", "%.2f"}, {"GB/s", "%.2f"},
        {"bus GB/s", "%.2f"}};
    dls_message_kind kind = dls_operation_find(p->op, strlen(p->op));
    size_t room = (size_t)p->most + 8 * DLS_COMM_RANKS;
    /* refuse what cannot be measured */
    if (!kind || kind == DLS_MESSAGE_ALL_TO_ALL_V)
        return DLS_FAIL(DLS_ERR_INPUT, "--op: expected all_reduce, reduce_scatter, "
                        "all_gather, broadcast, reduce, gather, scatter or all_to_all, "
                        "got '%s'", p->op);
    if (dls_comm_size(p->comm) == 1)
        return DLS_FAIL(DLS_ERR_INPUT, "one rank has nobody to talk to; try "
                        "`dls run -n 8 -- bench collectives`");
    DLS_CUDA(dls_gpu_alloc_shared((void **)&p->in, room));
    DLS_CUDA(dls_gpu_alloc_shared((void **)&p->out, room));
    memset(p->in, 0, room);
    memset(p->out, 0, room);
    DLS_TRY(dls_table_create(&p->table, columns, sizeof columns / sizeof *columns));
    DLS_TRY(measure_operation(p, kind));
    if (dls_comm_rank(p->comm) != 0)
        return DLS_OK;
    DLS_TRY(dls_table_print(p->table, stdout, p->json));
    if (!p->json)
        fputs(legend, stdout);
    return DLS_OK;
}

dls_status dls_bench_command(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    const char *what = NULL, *cluster = NULL;
    int helped;
    plan p = {.op = "all_reduce", .type = "f32", .algorithm = "auto", .least = 8,
              .most = 1 << 20, .factor = 8};
    const dls_arg args[] = {
        {"WHAT", DLS_ARG_STRING, &what, NULL, "collectives"},
        {"--op", DLS_ARG_STRING, &p.op, "NAME", "the operation (all_reduce)"},
        {"--algorithm", DLS_ARG_STRING, &p.algorithm, "NAME", "one, all, or auto (auto)"},
        {"--type", DLS_ARG_STRING, &p.type, "NAME", "of the elements (f32)"},
        {"--from", DLS_ARG_INT, &p.least, "BYTES", "smallest size (8)"},
        {"--to", DLS_ARG_INT, &p.most, "BYTES", "largest size (1048576)"},
        {"--factor", DLS_ARG_INT, &p.factor, "N", "from one size to the next (8)"},
        {"--cluster", DLS_ARG_STRING, &cluster, "NAME", "the hardware (dgx-h100)"},
        {"--json", DLS_ARG_FLAG, &p.json, NULL, "print JSON"}};
    const dls_args spec = {"dls bench", "Measures collectives on the virtual clock.",
                           "dls run -n 8 -- bench collectives --algorithm all", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    /* refuse impossible sizes */
    if (strcmp(what, "collectives") != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "expected `dls bench collectives`, got '%s'",
                        what);
    if (p.least < 1 || p.most < p.least || p.factor < 2 || p.most > (int64_t)1 << 32)
        return DLS_FAIL(DLS_ERR_INPUT, "--from, --to, --factor: expected 1 <= from <= to "
                        "<= 4294967296 and factor >= 2");
    DLS_TRY(find_type(&p));
    DLS_TRY(dls_gpu_init(&(dls_gpu_options){.cluster_file = cluster}));
    DLS_TRY(dls_comm_create(&p.comm, NULL));
    dls_status status = run_plan(&p);
    dls_table_free(p.table);
    dls_comm_destroy(p.comm);
    return status;
}

/* tests/comm/test_every_collective.c: from chapters/04-data-parallelism-collectives-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every algorithm, operation and type, for 1 to 9 forked ranks: values, steps, bytes and
 * virtual times. */
#include "world.h"

#include "comm/choose.h"
#include "comm/cost.h"
#include "tensor/bf16.h"

/* write and read every type */
static const int types[] = {DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16, DLS_COMM_I32,
                            DLS_COMM_I64, DLS_COMM_U8};
enum { TYPES = 7, LONGEST = 67, RANKS = 9 };

static void put(void *buf, int type, size_t i, int value)
{
    switch (type) {
    case DLS_F32: ((float *)buf)[i] = (float)value; break;
    case DLS_F64: ((double *)buf)[i] = value; break;
    case DLS_BF16: ((dls_bfloat16 *)buf)[i] = dls_narrow_bf16((float)value); break;
    case DLS_COMM_F16: ((_Float16 *)buf)[i] = (_Float16)value; break;
    case DLS_COMM_I32: ((int32_t *)buf)[i] = value; break;
    case DLS_COMM_I64: ((int64_t *)buf)[i] = value; break;
    default: ((uint8_t *)buf)[i] = (uint8_t)value; break;
    }
}

static int get(const void *buf, int type, size_t i)
{
    switch (type) {
    case DLS_F32: return (int)((const float *)buf)[i];
    case DLS_F64: return (int)((const double *)buf)[i];
    case DLS_BF16: return (int)dls_widen_bf16(((const dls_bfloat16 *)buf)[i]);
    case DLS_COMM_F16: return (int)((const _Float16 *)buf)[i];
    case DLS_COMM_I32: return ((const int32_t *)buf)[i];
    case DLS_COMM_I64: return (int)((const int64_t *)buf)[i];
    default: return ((const uint8_t *)buf)[i];
    }
}

/* say what must come out */
typedef struct trial {
    const dls_algorithm *algorithm;
    int n, rank, type, root, in_place;
    size_t count;
    dls_reduce op;
} trial;

static int value(const trial *t, int rank, size_t i)
{
    int v = (int)((7 * i + 3 * (size_t)rank + i / 5) % (t->type == DLS_COMM_U8 ? 3 : 5));
    v = t->type == DLS_COMM_U8 ? v : v - 2;
    return t->op == DLS_AVG ? t->n * v : v;
}

static int reduced(const trial *t, size_t i)
{
    int sum = 0, product = 1, least = 1000, most = -1000;
    for (int r = 0; r < t->n; r++) {
        int v = value(t, r, i);
        sum += v;
        product *= v;
        least = v < least ? v : least;
        most = v > most ? v : most;
    }
    switch (t->op) {
    case DLS_SUM: return sum;
    case DLS_AVG: return sum / t->n;
    case DLS_MIN: return least;
    case DLS_MAX: return most;
    default: return t->type == DLS_COMM_U8 ? product & 255 : product;
    }
}

static int expected(const trial *t, size_t i)
{
    size_t c = t->count, mine = (size_t)t->rank * c;
    switch (t->algorithm->kind) {
    case DLS_MESSAGE_BROADCAST: return value(t, t->root, i);
    case DLS_MESSAGE_REDUCE_SCATTER: return reduced(t, mine + i);
    case DLS_MESSAGE_ALL_GATHER:
    case DLS_MESSAGE_GATHER: return value(t, (int)(i / c), i % c);
    case DLS_MESSAGE_SCATTER: return value(t, t->root, mine + i);
    case DLS_MESSAGE_ALL_TO_ALL:
    case DLS_MESSAGE_ALL_TO_ALL_V: return value(t, (int)(i / c), mine + i % c);
    default: return reduced(t, i);
    }
}

/* call by kind */
static dls_status exchange_v(dls_comm *comm, const trial *t, const void *in, void *out)
{
    size_t counts[RANKS], offsets[RANKS];
    for (int r = 0; r < t->n; r++) {
        counts[r] = t->count;
        offsets[r] = (size_t)r * t->count;
    }
    return dls_comm_all_to_all_v(comm, in, counts, offsets, out, counts, offsets, t->type,
                                 0);
}

static dls_status call(dls_comm *comm, const trial *t, void *in, void *out)
{
    size_t c = t->count;
    switch (t->algorithm->kind) {
    case DLS_MESSAGE_ALL_REDUCE:
        return dls_comm_all_reduce(comm, out, c, t->type, t->op, 0);
    case DLS_MESSAGE_REDUCE:
        return dls_comm_reduce(comm, out, c, t->type, t->op, t->root, 0);
    case DLS_MESSAGE_BROADCAST:
        return dls_comm_broadcast(comm, out, c, t->type, t->root, 0);
    case DLS_MESSAGE_REDUCE_SCATTER:
        return dls_comm_reduce_scatter(comm, in, out, c, t->type, t->op, 0);
    case DLS_MESSAGE_ALL_GATHER:
        return dls_comm_all_gather(comm, in, out, c, t->type, 0);
    case DLS_MESSAGE_GATHER:
        return dls_comm_gather(comm, in, out, c, t->type, t->root, 0);
    case DLS_MESSAGE_SCATTER:
        return dls_comm_scatter(comm, in, out, c, t->type, t->root, 0);
    case DLS_MESSAGE_ALL_TO_ALL:
        return dls_comm_all_to_all(comm, in, out, c, t->type, 0);
    default: return exchange_v(comm, t, in, out);
    }
}

/* run one collective */
static dls_status run(dls_comm *comm, const trial *t, char *in, char *out)
{
    dls_message_kind kind = t->algorithm->kind;
    size_t size = dls_comm_type_size(t->type), mine = (size_t)t->rank * t->count;
    int gives = kind == DLS_MESSAGE_REDUCE_SCATTER || kind >= DLS_MESSAGE_ALL_TO_ALL ||
                kind == DLS_MESSAGE_SCATTER;
    int takes = kind == DLS_MESSAGE_ALL_GATHER || kind >= DLS_MESSAGE_ALL_TO_ALL ||
                kind == DLS_MESSAGE_GATHER;
    int one = kind == DLS_MESSAGE_ALL_REDUCE || kind == DLS_MESSAGE_REDUCE ||
              kind == DLS_MESSAGE_BROADCAST;
    size_t ins = t->count * (size_t)(gives ? t->n : 1);
    size_t outs = t->count * (size_t)(takes ? t->n : 1);
    if (one)
        in = out;
    else if (t->in_place && gives && !takes)
        out = in + mine * size;
    else if (t->in_place && takes && !gives)
        in = out + mine * size;
    put(out, t->type, outs, 77);
    for (size_t i = 0; i < ins; i++)
        put(in, t->type, i, value(t, t->rank, i));
    int guard = get(out, t->type, outs);
    DLS_TRY(call(comm, t, in, out));
    DLS_CUDA(cudaStreamSynchronize(0));
    int counts = (kind != DLS_MESSAGE_REDUCE && kind != DLS_MESSAGE_GATHER) ||
                 t->rank == t->root;
    for (size_t i = 0; counts && i < outs; i++)
        EXPECT(get(out, t->type, i) == expected(t, i),
               "%s by %s of %zu %s (%d), root %d, element %zu is %d, not %d",
               dls_message_name(&(dls_message){.kind = (uint8_t)kind}, 0),
               t->algorithm->name, t->count, dls_comm_type_name(t->type), t->op, t->root,
               i, get(out, t->type, i), expected(t, i));
    EXPECT(get(out, t->type, outs) == guard, "%s writes behind the end",
           t->algorithm->name);
    return DLS_OK;
}

/* compare with the cost */
static double until;

static int compute_run(void *arg, double start, double *finish)
{
    (void)start;
    *finish = *(double *)arg;
    return 0;
}

static dls_status run_timed(dls_comm *comm, const trial *t, void *in, void *out)
{
    dls_gpu_op op = {.name = "computation", .kind = DLS_GPU_COMPUTE, .run = compute_run};
    dls_shape shape = {.world = t->n, .root = t->root, .count = t->count,
                       .per_node = comm->per_node};
    size_t size = dls_comm_type_size(t->type);
    dls_comm_statistics a = dls_comm_stats(comm), all[RANKS];
    double finish[RANKS];
    dls_cost cost;
    until += 0.01;
    DLS_CUDA(dls_gpu_enqueue(0, &op, &until));
    DLS_TRY(run(comm, t, in, out));
    if (t->n == 1 || t->algorithm->kind == DLS_MESSAGE_ALL_TO_ALL_V)
        return DLS_OK;
    shape.block = dls_cost_block(t->algorithm, &shape, comm->links, size);
    DLS_TRY(dls_cost_of(t->algorithm, &shape, comm->links, size, finish, &cost));
    dls_comm_statistics b = dls_comm_stats(comm);
    double took = b.busy_seconds - a.busy_seconds;
    EXPECT(fabs(took - finish[t->rank]) < 1e-12 * took + 1e-15, "%s takes %.15g s, not "
           "%.15g", t->algorithm->name, took, finish[t->rank]);
    b.steps -= a.steps;
    b.wire_bytes -= a.wire_bytes;
    DLS_TRY(dls_comm_all_gather_host(comm, &b, sizeof b, all));
    for (int r = 0; r < t->n; r++) {
        EXPECT(all[r].steps <= cost.steps && all[r].wire_bytes <= cost.bytes, "steps");
        cost.all_bytes -= all[r].wire_bytes;
    }
    EXPECT(cost.all_bytes == 0, "%s: bytes", t->algorithm->name);
    return DLS_OK;
}

/* walk through the product */
static dls_status try_algorithm(dls_comm *comm, trial t, void *in, void *out)
{
    static const size_t counts[] = {0, 1, 8, LONGEST};
    int reduces = *dls_message_reduction(&(dls_message){.kind =
                                                        (uint8_t)t.algorithm->kind});
    for (int i = 0; i < TYPES; i++)
        for (t.op = DLS_SUM; t.op <= (reduces ? DLS_PROD : DLS_SUM); t.op++) {
            t.type = types[i];
            t.root = (i + (int)t.op) % t.n;
            t.count = 13;
            DLS_TRY(run(comm, &t, in, out));
        }
    t.type = DLS_F32;
    t.op = DLS_SUM;
    for (int i = 0; i < 8; i++) {
        t.count = counts[i / 2];
        t.in_place = i % 2;
        t.root = i % t.n;
        DLS_TRY(run_timed(comm, &t, in, out));
    }
    return DLS_OK;
}

static dls_status try_world(int rank, void *arg)
{
    world *w = arg;
    char *in, *out, wanted[64];
    dls_comm *comm;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(test_buffer(&in, (w->n * LONGEST + 1) * sizeof(double)));
    DLS_TRY(test_buffer(&out, (w->n * LONGEST + 1) * sizeof(double)));
    for (int i = 0; i < dls_algorithm_count; i++) {
        const dls_algorithm *a = &dls_algorithms[i];
        dls_shape shape = {.world = w->n, .per_node = comm->per_node};
        trial t = {.algorithm = a, .n = w->n, .rank = rank};
        if (a->fits && !a->fits(&shape))
            continue;
        snprintf(wanted, sizeof wanted, "%s:%s", dls_operation_name(a->kind), a->name);
        DLS_TRY(dls_comm_want(comm, wanted));
        DLS_TRY(try_algorithm(comm, t, in, out));
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

static void try_worlds(int most, int nodes, int per_node)
{
    world w = {0, test_cluster(nodes, per_node)};
    for (w.n = nodes > 1 ? most : 1; w.n <= most; w.n++)
        expect_ranks(w.n, try_world, &w);
    unlink(w.cluster);
}

Test(collectives, every_algorithm_is_exact_in_every_type_for_1_to_6_ranks)
{
    try_worlds(6, 1, 16);
}

Test(collectives, every_algorithm_is_exact_in_every_type_for_7_ranks_or_more)
{
    world w = {7, test_cluster(1, 16)};
    for (; w.n <= RANKS; w.n++)
        expect_ranks(w.n, try_world, &w);
    unlink(w.cluster);
}

Test(collectives, every_algorithm_is_exact_on_two_and_three_nodes)
{
    try_worlds(4, 2, 2);
    try_worlds(6, 3, 2);
    try_worlds(8, 2, 4);
}

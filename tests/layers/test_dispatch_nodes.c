/* tests/layers/test_dispatch_nodes.c: from chapters/08-dispatch-nodes-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Dispatch and combine over nodes, with rows that carry their origin. */
#include "nodes_case.h"

#include "../comm/world.h"
#include "kernels/permute.h"
#include "tensor/bf16.h"

/* open a rank of nodes */
typedef struct rank_of_nodes {
    const nodes_case *c;
    dls_comm *comm;
    dls_ctx ctx;
    dls_axes axes;
    dls_plan plan;
    dls_pass pass;
    dls_node_dispatch d;
    void *memory, *rows;            // activations; (tokens, C)
    void *landed, *arrived;         // (landed, C), (room, C)
    int *index, *place, *counts;    // (tokens, k); (E)
    void *weight, *near;            // (tokens, k), (landed, k): accumulators
} rank_of_nodes;

static dls_status open_rank(rank_of_nodes *x, const nodes_case *c, dls_gpu_kernels how)
{
    dls_gpu_options options = {.cluster_file = test_cluster(c->nodes, c->places),
                               .kernels = how};
    int n = c->nodes * c->places;
    DLS_TRY(dls_gpu_init(&options));
    *x = (rank_of_nodes){.c = c};
    DLS_TRY(dls_comm_create(&x->comm, NULL));
    dls_sharding by = {.expert = n, .expert_rank = dls_comm_rank(x->comm),
                       .dispatch = DLS_DISPATCH_NODES};
    DLS_TRY(dls_axes_open(&x->axes, &by, 1, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&x->axes, x->comm, NULL, NULL));
    return dls_ctx_create(&x->ctx, 0, c->dtype);
}

static void count_choices(rank_of_nodes *x, int choices)
{
    memset(x->counts, 0, sizeof(int) * nodes_grid(x->c).experts);
    for (int i = 0; i < choices; i++)
        x->counts[x->index[i]] += x->place[i] >= 0;
}

/* open a case over nodes */
static dls_status open_case(rank_of_nodes *x, const nodes_case *c)
{
    dls_node_grid g = nodes_grid(c);
    dls_moe m = {.experts = g.experts, .chosen = c->k};
    x->c = c;
    x->ctx.dtype = c->dtype;
    x->plan = (dls_plan){.max_B = 1, .max_T = NODES_MOST, .dtype = c->dtype};
    EXPECT(dls_dispatch_over_nodes(&x->axes.sharding, &m), "this way is not taken");
    int n = c->nodes * c->places, k = c->k;
    dls_node_dispatch_plan(&x->d, &x->plan, &x->axes.sharding, &m, NODES_MOST,
                           n * NODES_MOST * k, c->columns);
    size_t row = c->columns * dls_dtype_size(c->dtype);
    DLS_TRY(test_buffer(&x->memory, dls_plan_bytes(&x->plan)));
    DLS_TRY(test_buffer(&x->rows, NODES_MOST * row));
    DLS_TRY(test_buffer(&x->landed, x->d.landed * row));
    DLS_TRY(test_buffer(&x->arrived, x->d.room * row));
    DLS_TRY(test_buffer(&x->index, sizeof(int) * NODES_MOST * k));
    DLS_TRY(test_buffer(&x->place, sizeof(int) * NODES_MOST * k));
    DLS_TRY(test_buffer(&x->counts, sizeof(int) * g.experts));
    DLS_TRY(test_buffer(&x->weight, sizeof(double) * NODES_MOST * k));
    DLS_TRY(test_buffer(&x->near, sizeof(double) * x->d.landed * k));
    x->pass = (dls_pass){.ctx = &x->ctx, .axes = &x->axes, .host = malloc(x->plan.host)};
    dls_pass_regions(&x->pass, &x->plan, x->memory);
    nodes_choose(c, x->d.rank, x->index, x->place);
    count_choices(x, nodes_tokens(c, x->d.rank) * k);
    return x->pass.host ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a case");
}

/* close a case over nodes */
static void close_case(rank_of_nodes *x)
{
    void *all[] = {x->memory, x->rows, x->landed, x->arrived, x->index, x->place,
                   x->counts, x->weight, x->near};
    for (int i = 0; i < 9; i++)
        cudaFree(all[i]);
    free(x->pass.host);
}

static dls_status settle(rank_of_nodes *x)
{
    DLS_TRY(dls_dispatch_wait(&x->pass));
    DLS_CUDA(cudaStreamSynchronize(x->axes.stream));
    return dls_ctx_sync(&x->ctx);
}

/* put and get numbers */
static void put(void *to, dls_dtype type, size_t i, double x)
{
    if (type == DLS_F32)
        ((float *)to)[i] = (float)x;
    else if (type == DLS_F64)
        ((double *)to)[i] = x;
    else
        ((dls_bfloat16 *)to)[i] = dls_narrow_bf16((float)x);
}

static double get(const void *from, dls_dtype type, size_t i)
{
    return type == DLS_F32   ? ((const float *)from)[i]
           : type == DLS_F64 ? ((const double *)from)[i]
                             : dls_widen_bf16(((const dls_bfloat16 *)from)[i]);
}

// Column c of row t of rank s: at most 180, with eight bits to be exact in bf16.
static double origin(int s, int t, int c)
{
    return c % 3 == 0 ? s + 1 : c % 3 == 1 ? t + 1 : c + 1;
}

static double weight_of(int s, int t, int j) { return 1 + (s + 2 * t + j) % 3; }

/* check what arrived */
// Ticks off the row of expert e; an error if it is none that belongs here.
static dls_status tick(const rank_of_nodes *x, int e, int i, unsigned char *seen)
{
    const nodes_case *c = x->c;
    int index[NODES_MOST * 64], C = c->columns;
    int s = (int)get(x->arrived, c->dtype, (size_t)i * C) - 1;
    int t = (int)get(x->arrived, c->dtype, (size_t)i * C + 1) - 1;
    EXPECT(s >= 0 && s < c->nodes * c->places && t >= 0 && t < nodes_tokens(c, s),
           "row %d of expert %d claims to be row %d of rank %d", i, e, t, s);
    for (int col = 0; col < C; col++)
        EXPECT(get(x->arrived, c->dtype, (size_t)i * C + col) == origin(s, t, col),
               "column %d of row %d of rank %d", col, t, s);
    nodes_kept(c, s, index);
    int chosen = 0;
    for (int j = 0; j < c->k; j++)
        chosen |= index[t * c->k + j] == e;
    EXPECT(chosen, "row %d of rank %d came to expert %d uninvited", t, s, e);
    EXPECT(!seen[s * NODES_MOST + t]++, "row %d of rank %d came twice", t, s);
    return DLS_OK;
}

/* check all that arrived */
static dls_status check_arrived(const rank_of_nodes *x)
{
    const dls_routes *r = &dls_node_dispatch_routes(&x->pass, &x->d)->routes;
    int R = r->ranks, expected = 0, index[NODES_MOST * 64];
    for (int s = 0; s < R; s++) {
        nodes_kept(x->c, s, index);
        for (int i = 0; i < nodes_tokens(x->c, s) * x->c->k; i++)
            expected += index[i] >= 0 && index[i] / r->experts == x->d.rank;
    }
    EXPECT(r->arrived == expected, "%d rows arrived, not %d", r->arrived, expected);
    for (int i = 0; i < r->segments; i++) {
        const dls_segment *g = &r->segment[i];
        unsigned char seen[64 * NODES_MOST] = {0};
        for (int row = g->begin; row < g->begin + g->count; row++)
            DLS_TRY(tick(x, x->d.rank * r->experts + g->expert, row, seen));
        expected -= g->count;
    }
    EXPECT(expected == 0, "%d rows in no segment", expected);
    return DLS_OK;
}

/* check what returned */
static void answer(rank_of_nodes *x, dls_dtype type, int weighted)
{
    const dls_routes *r = &dls_node_dispatch_routes(&x->pass, &x->d)->routes;
    int C = x->c->columns;
    for (int i = 0; i < r->segments; i++)
        for (int row = r->segment[i].begin, n = r->segment[i].count; n > 0; row++, n--)
            for (int col = 0; col < C; col++) {
                size_t at = (size_t)row * C + col;
                int e = x->d.rank * r->experts + r->segment[i].expert;
                double by = weighted ? e + 1 : 1;
                put(x->arrived, type, at, by * get(x->arrived, type, at));
            }
}

static dls_status check_returned(const rank_of_nodes *x, int weighted)
{
    const nodes_case *c = x->c;
    int index[NODES_MOST * 64], s = x->d.rank;
    nodes_kept(c, s, index);
    for (int t = 0; t < nodes_tokens(c, s); t++)
        for (int col = 0; col < c->columns; col++) {
            double want = 0, got = get(x->rows, c->dtype, (size_t)t * c->columns + col);
            for (int j = 0; j < c->k; j++) {
                int e = index[t * c->k + j];
                want += e < 0 ? 0 : origin(s, t, col) *
                                    (weighted ? weight_of(s, t, j) * (e + 1) : 1);
            }
            EXPECT(got == want, "token %d, column %d: %g, not %g", t, col, got, want);
        }
    return DLS_OK;
}

/* check weights over nodes */
static dls_status check_weights(rank_of_nodes *x, dls_dtype wide)
{
    const nodes_case *c = x->c;
    const dls_node_routes *r = dls_node_dispatch_routes(&x->pass, &x->d);
    for (int i = 0; i < r->landed; i++) {
        int s = (int)get(x->landed, c->dtype, (size_t)i * c->columns) - 1;
        int t = (int)get(x->landed, c->dtype, (size_t)i * c->columns + 1) - 1;
        for (int j = 0; j < c->k; j++) {
            int here = r->place[2][i * c->k + j] >= 0;
            EXPECT(get(x->near, wide, i * c->k + j) == weight_of(s, t, j),
                   "weight %d of row %d of rank %d", j, t, s);
            put(x->near, wide, i * c->k + j, here ? 100 * x->d.rank + 10 * t + j : 0);
        }
    }
    return DLS_OK;
}

static dls_status check_numbers(const rank_of_nodes *x, dls_dtype wide)
{
    const nodes_case *c = x->c;
    int index[NODES_MOST * 64];
    nodes_kept(c, x->d.rank, index);
    for (int i = 0; i < nodes_tokens(c, x->d.rank) * c->k; i++) {
        double want = 100 * (index[i] / c->per_rank) + 10 * (i / c->k) + i % c->k;
        want = index[i] < 0 ? 0 : want;
        EXPECT(get(x->weight, wide, i) == want, "number of choice %d: %g, not %g", i,
               get(x->weight, wide, i), want);
    }
    return DLS_OK;
}

/* count bytes over nodes */
typedef struct bytes { uint64_t slow, fast; } bytes;

static bytes counted(const rank_of_nodes *x)
{
    return (bytes){dls_comm_stats(x->axes.across).wire_bytes,
                   dls_comm_stats(x->axes.node).wire_bytes};
}

// back: what this rank sends on the way back is what it got.
static dls_status check_bytes(const rank_of_nodes *x, bytes before, int back)
{
    const dls_node_routes *r = dls_node_dispatch_routes(&x->pass, &x->d);
    const dls_node_grid *g = &r->grid;
    bytes after = counted(x);
    uint64_t row = x->c->columns * dls_dtype_size(x->c->dtype);
    dls_node_traffic t = dls_node_nested(g, x->d.rank, r->censuses);
    if (back) {
        int node = x->d.rank / g->places, place = x->d.rank % g->places;
        t.slow = r->leg[1].rows - r->leg[0].come[node];
        t.fast = r->leg[2].rows - r->leg[1].come[place];
    }
    EXPECT(after.slow - before.slow == t.slow * row, "%llu bytes between nodes, not %llu",
           (unsigned long long)(after.slow - before.slow),
           (unsigned long long)(t.slow * row));
    EXPECT(after.fast - before.fast == t.fast * row, "%llu bytes within nodes, not %llu",
           (unsigned long long)(after.fast - before.fast),
           (unsigned long long)(t.fast * row));
    return DLS_OK;
}

/* run cases over nodes */
static dls_status land(rank_of_nodes *x)
{
    const nodes_case *c = x->c;
    int s = x->d.rank, tokens = nodes_tokens(c, s), k = c->k, C = c->columns;
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    dls_node_choice choice = {x->index, x->place, x->counts, tokens, 0};
    for (int i = 0; i < tokens * C; i++)
        put(x->rows, c->dtype, i, origin(s, i / C, i % C));
    for (int i = 0; i < tokens * k; i++)
        put(x->weight, wide, i, weight_of(s, i / k, i % k));
    DLS_TRY(dls_node_dispatch_count(&x->pass, &x->d, &choice, 0));
    DLS_TRY(settle(x));
    bytes before = counted(x);
    DLS_TRY(dls_node_dispatch_rows(&x->pass, &x->d, x->landed, x->rows, C, c->dtype));
    DLS_TRY(settle(x));
    DLS_TRY(check_bytes(x, before, 0));
    DLS_TRY(dls_node_dispatch_rows(&x->pass, &x->d, x->near, x->weight, k, wide));
    DLS_TRY(dls_dispatch_wait(&x->pass));
    const dls_node_routes *r = dls_node_dispatch_routes(&x->pass, &x->d);
    DLS_TRY(dls_permute(&x->ctx, x->arrived, x->landed, r->place[2], r->landed, k, C));
    DLS_TRY(settle(x));
    return check_arrived(x);
}

/* bring answers home */
// The experts answer, and what is added up here returns.
static dls_status go_home(rank_of_nodes *x, int weighted)
{
    const nodes_case *c = x->c;
    const dls_node_routes *r = dls_node_dispatch_routes(&x->pass, &x->d);
    int k = c->k, C = c->columns;
    answer(x, c->dtype, weighted);
    DLS_TRY(dls_unpermute(&x->ctx, x->landed, NULL, x->arrived, weighted ? x->near : NULL,
                          r->place[2], r->landed, k, C));
    bytes before = counted(x);
    DLS_TRY(dls_node_combine_rows(&x->pass, &x->d, x->rows, x->landed, C, c->dtype));
    DLS_TRY(settle(x));
    DLS_TRY(check_bytes(x, before, 1));
    return check_returned(x, weighted);
}

/* run a case over nodes */
static dls_status run_case(rank_of_nodes *x, const nodes_case *c)
{
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    for (int weighted = 0; weighted < 2; weighted++) {
        DLS_TRY(open_case(x, c));
        DLS_TRY(land(x));
        if (!weighted) {
            DLS_TRY(check_weights(x, wide));
            DLS_TRY(dls_node_combine_rows(&x->pass, &x->d, x->weight, x->near, c->k,
                                          wide));
            DLS_TRY(settle(x));
            DLS_TRY(check_numbers(x, wide));
        }
        DLS_TRY(go_home(x, weighted));
        close_case(x);
    }
    return DLS_OK;
}

/* run all cases over nodes */
typedef struct nodes_world { int nodes, places; dls_gpu_kernels how; } nodes_world;

static dls_status run_nodes(int rank, void *arg)
{
    const nodes_world *w = arg;
    rank_of_nodes x;
    nodes_case c = {.nodes = w->nodes, .places = w->places, .dtype = DLS_F32};
    (void)rank;
    DLS_TRY(open_rank(&x, &c, w->how));
    for (c.per_rank = 1; c.per_rank <= 3; c.per_rank++)
        for (int pattern = 0; pattern < NODES_PATTERNS; pattern++) {
            c.pattern = (nodes_pattern)pattern;
            c.k = 1 + (pattern + c.per_rank) % (2 * c.per_rank);
            c.columns = 3 + 4 * pattern;
            c.dtype = pattern % 2 ? DLS_F64 : DLS_F32;
            DLS_TRY(run_case(&x, &c));
        }
    dls_axes_close(&x.axes);
    dls_ctx_destroy(&x.ctx);
    dls_comm_destroy(x.comm);
    return DLS_OK;
}

#define NODES_TEST(nodes, places, name, how)                    \
    Test(dispatch_nodes, every_row_once_##name)                 \
    {                                                           \
        nodes_world w = {nodes, places, how};                   \
        expect_ranks(nodes * places, run_nodes, &w);            \
    }
NODES_TEST(2, 1, on_two_nodes_of_one, DLS_KERNELS_HOST)
NODES_TEST(3, 1, on_three_nodes_of_one, DLS_KERNELS_HOST)
NODES_TEST(1, 3, on_one_node_of_three, DLS_KERNELS_HOST)
NODES_TEST(2, 2, on_two_nodes_of_two, DLS_KERNELS_HOST)
NODES_TEST(2, 4, on_two_nodes_of_four, DLS_KERNELS_HOST)
NODES_TEST(4, 2, on_four_nodes_of_two, DLS_KERNELS_HOST)
NODES_TEST(2, 2, by_every_thread, DLS_KERNELS_SIMT)

/* refuse uneven nodes */
static dls_status refuse_uneven(int rank, void *arg)
{
    dls_gpu_options options = {.cluster_file = test_cluster(2, 3)};
    dls_comm *comm, *five;
    dls_axes axes;
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_comm_split(comm, rank < 5 ? 0 : -1, rank, &five));
    (void)arg;
    if (five) {
        dls_sharding by = {.expert = 5, .expert_rank = rank,
                           .dispatch = DLS_DISPATCH_NODES};
        DLS_TRY(dls_axes_open(&axes, &by, 1, NULL, NULL));
        EXPECT(dls_axes_add_experts(&axes, five, NULL, NULL) == DLS_ERR_INPUT,
               "uneven nodes were taken");
        EXPECT(strstr(dls_status_message(), "expected 3 ranks of the expert group on "
                      "every node, in order, but its rank 4 (of the world: 4) is on node "
                      "1"), "%s", dls_status_message());
        dls_axes_close(&axes);
    }
    dls_comm_destroy(five);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(dispatch_nodes, uneven_nodes_are_refused) { expect_ranks(6, refuse_uneven, NULL); }

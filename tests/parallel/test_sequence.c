/* tests/parallel/test_sequence.c: from chapters/06-sequence-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Models whose rows are cut: the values, with pieces and without; the bytes they send. */
#include "tensor_model.h"

#include "parallel/tensor/traffic_laws.h"

/* test sliced models */
/* All combinations of what is kept and when W comes, each on its number of ranks. */
static void in_all_ways(tensor_case c, const int *ranks, int n)
{
    c.dtype = DLS_F64;
    for (int i = 0; i < 6; i++) {
        char seed[16];
        c.recompute = (dls_recompute)(i / 2);
        c.split = i % 2;
        snprintf(seed, sizeof seed, "%d", 17 * i + 3);
        setenv("DLS_SEED", seed, 1);
        expect_ranks(ranks[i % n], tensor_prove, &c);
    }
}

static const int few[] = {2, 3}, many[] = {6, 2, 3}, four[] = {4};

#define C(...) (tensor_case){.sequence = 1, __VA_ARGS__}

Test(sequence, gpt2_in_slices) { in_all_ways(C(.dropout = 0.25), few, 2); }
Test(sequence, gpt2_in_pieces) { in_all_ways(C(.dropout = 0.25, .chunks = 2), many, 3); }
Test(sequence, gpt2_in_halves) { in_all_ways(C(.chunks = 12, .untied = 1), few, 2); }
Test(sequence, four_ranks) { in_all_ways(C(.heads = 4, .chunks = 4), four, 1); }

Test(sequence, llama_in_slices)
{
    in_all_ways(C(.llama = 1, .kv_heads = 2, .dropout = 0.25), (const int[]){2, 6}, 2);
}

Test(sequence, llama_in_pieces)
{
    in_all_ways(C(.llama = 1, .kv_heads = 3, .chunks = 6, .untied = 1), few + 1, 1);
    in_all_ways(C(.llama = 1, .heads = 4, .chunks = 99), four, 1);
}

Test(sequence, whole_rows_beside_products)
{
    in_all_ways((tensor_case){.chunks = 2, .dropout = 0.25}, few, 2);
    in_all_ways((tensor_case){.llama = 1, .kv_heads = 2, .chunks = 2}, few, 1);
}

/* count the bytes of a block */
typedef struct traffic { uint64_t forward, backward; } traffic;

typedef struct expected_traffic { tensor_case c; uint64_t forward, backward; } expected;

static dls_status measure(dls_comm *comm, tensor_case c, int layers, traffic *out)
{
    tensor_side side;
    c.layers = layers;
    DLS_TRY(tensor_open(&side, &c, comm));
    uint64_t start = dls_comm_stats(comm).wire_bytes;
    DLS_TRY(tensor_forward(&side, &c));
    uint64_t middle = dls_comm_stats(comm).wire_bytes;
    DLS_TRY(dls_transformer_backward(side.model, 1, NULL));
    DLS_TRY(dls_ctx_sync(&side.ctx));
    *out = (traffic){middle - start, dls_comm_stats(comm).wire_bytes - middle};
    tensor_close(&side);
    return DLS_OK;
}

static dls_status count(int rank, void *arg)
{
    const expected *want = arg;
    tensor_case c = want->c;
    traffic one, two;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(measure(comm, c, 1, &one));
    DLS_TRY(measure(comm, c, 2, &two));
    int t = dls_comm_size(comm), C = 4 * (c.heads ? c.heads : 6);
    uint64_t unit = (uint64_t)TM_N * C / t * (t - 1) * dls_dtype_size(c.dtype);
    uint64_t forward = two.forward - one.forward, backward = two.backward - one.backward;
    EXPECT(forward == want->forward * unit && backward == want->backward * unit,
           "%g and %g, expected %d and %d", (double)forward / unit,
           (double)backward / unit, (int)want->forward,
           (int)want->backward);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(sequence, a_block_sends_what_the_formulas_say)
{
    const expected cases[] = {
        {{0}, 4, 4}, {{.chunks = 4}, 4, 4},
        {{.sequence = 1}, 4, 6}, {{.sequence = 1, .chunks = 2}, 4, 6},
        {{.sequence = 1, .chunks = 12, .hidden = 7}, 4, 6},
        {{.sequence = 1, .llama = 1, .kv_heads = 1}, 4, 6},
        {{.sequence = 1, .llama = 1, .chunks = 2}, 4, 6},
        {{.sequence = 1, .recompute = DLS_RECOMPUTE_SELECTIVE}, 4, 6},
        {{.recompute = DLS_RECOMPUTE_FULL}, 4, 4 + 2},
        {{.sequence = 1, .recompute = DLS_RECOMPUTE_FULL}, 4, 6 + 3}};
    setenv("DLS_ALGORITHM", "all_reduce:ring,reduce_scatter:ring,all_gather:ring", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expected one = cases[i];
        one.c.dtype = i % 3 ? DLS_F64 : DLS_F32;
        expect_ranks(i % 2 ? 3 : 2, count, &one);
    }
}

/* count the bytes of a model */
static dls_status count_model(int rank, void *arg)
{
    const tensor_case *c = arg;
    dls_transformer_config m = tensor_config(c);
    const dls_kept_case at = {TM_B, TM_T, c->dtype};
    tensor_side side;
    dls_comm *comm;
    DLS_TRY(test_world(NULL, &comm));
    m.sharding = (dls_sharding){.tensor = dls_comm_size(comm), .tensor_rank = rank,
                                .sequence = c->sequence};
    dls_tensor_traffic law = dls_law_tensor_traffic(&m, &at);
    DLS_TRY(tensor_open(&side, c, comm));
    uint64_t before = dls_comm_stats(comm).wire_bytes;
    DLS_TRY(tensor_forward(&side, c));
    DLS_TRY(c->split ? dls_transformer_backward_input(side.model, 1)
                     : dls_transformer_backward(side.model, 1, NULL));
    DLS_TRY(c->split ? dls_transformer_backward_weight(side.model, NULL) : DLS_OK);
    DLS_TRY(dls_ctx_sync(&side.ctx));
    uint64_t sent = dls_comm_stats(comm).wire_bytes - before;
    uint64_t all = law.embedding + law.head + law.losses + m.layers * law.block;
    EXPECT(sent == all, "recompute %d, split %d, sequence %d: %llu, expected %llu",
           c->recompute, c->split, c->sequence, (unsigned long long)sent,
           (unsigned long long)all);
    tensor_close(&side);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(sequence, a_model_sends_what_the_law_says)
{
    setenv("DLS_ALGORITHM", "all_reduce:ring,reduce_scatter:ring,all_gather:ring", 1);
    for (int i = 0; i < 12; i++) {
        tensor_case c = {.recompute = (dls_recompute)(i % 3), .split = i / 3 % 2,
                         .sequence = i / 6, .llama = i % 2, .untied = i % 2,
                         .chunks = i % 4 == 3 ? 4 : 0, .layers = 1 + i % 3,
                         .dtype = i % 5 ? DLS_F32 : DLS_F64};
        expect_ranks(i % 4 == 1 ? 3 : 2, count_model, &c);
    }
}

/* time a block in pieces */
typedef struct passes { double forward, backward; } passes;

static dls_status time_block(dls_comm *comm, int sequence, int chunks, passes *out)
{
    enum { T = 1024 };
    dls_transformer_config m = dls_transformer_gpt2(64, T, 1, 8, 1024);
    dls_transformer *model;
    dls_axes axes;
    dls_ctx ctx;
    int *ids;
    m.sharding = (dls_sharding){.tensor = dls_comm_size(comm), .sequence = sequence,
                                .tensor_rank = dls_comm_rank(comm), .chunks = chunks};
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    DLS_TRY(dls_axes_open(&axes, &m.sharding, m.kv_heads, comm, NULL));
    DLS_TRY(dls_transformer_create(&model, &ctx, &m, 1, T));
    dls_transformer_connect(model, &axes);
    DLS_TRY(dls_device_alloc((void **)&ids, 2 * T, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_comm_barrier(comm));
    double start = dls_gpu_host_time();
    DLS_TRY(dls_transformer_forward(model, ids, ids + T, 1, T));
    DLS_TRY(dls_ctx_sync(&ctx));
    double middle = dls_gpu_host_time();
    DLS_TRY(dls_transformer_backward(model, 1, NULL));
    DLS_TRY(dls_ctx_sync(&ctx));
    *out = (passes){middle - start, dls_gpu_host_time() - middle};
    dls_device_free(ids);
    dls_transformer_free(model);
    dls_axes_close(&axes);
    dls_ctx_destroy(&ctx);
    return DLS_OK;
}

static dls_status time_ways(int rank, void *arg)
{
    passes whole, beside, slices, pieces;
    dls_comm *comm;
    (void)rank, (void)arg;
    DLS_TRY(test_world(test_cluster(1, 4), &comm));
    DLS_TRY(time_block(comm, 0, 1, &whole));
    DLS_TRY(time_block(comm, 0, 4, &beside));
    DLS_TRY(time_block(comm, 1, 1, &slices));
    DLS_TRY(time_block(comm, 1, 4, &pieces));
    double first[] = {fabs(whole.forward - beside.forward),
                      whole.forward - slices.forward, slices.forward - pieces.forward};
    double second[] = {whole.backward - beside.backward,
                       slices.backward - pieces.backward};
    EXPECT(first[0] < 5e-6 && first[1] > 40e-6 && first[2] > 110e-6, "forward: %g %g %g",
           first[0], first[1], first[2]);
    EXPECT(second[0] > 130e-6 && second[1] > 190e-6, "backward: %g %g", second[0],
           second[1]);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(sequence, pieces_are_faster_where_products_are_large)
{
    setenv("DLS_KERNELS", "timed", 1);
    expect_ranks(4, time_ways, NULL);
}

/* refuse rows that do not divide */
static dls_status refuse(int rank, void *arg)
{
    tensor_case c = C(.heads = 5);
    tensor_side side;
    dls_comm *comm;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    EXPECT(tensor_open(&side, &c, comm) == DLS_ERR_INPUT, "12 rows over 5 ranks");
    EXPECT(strstr(dls_status_message(), "got 12; the nearest number is 10"), "%s",
           dls_status_message());
    tensor_close(&side);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(sequence, rows_must_divide) { expect_ranks(5, refuse, NULL); }

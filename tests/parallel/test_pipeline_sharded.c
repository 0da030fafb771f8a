/* tests/parallel/test_pipeline_sharded.c: from chapters/05-pipeline-runtime-sharded.md. Edit the chapter, or edit here and run "make untangle". */
/* Pipelines whose state is cut over their replicas: values, bytes and the wire. */
#include "pipeline_layout.h"

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"

/* test a cut optimizer */
static void prove(int zero, int gathered, int replicas, const char *schedule, int chunks,
                  int m)
{
    int layers = chunks > 2 ? 7 : 3;
    expect_pipeline_cut(zero, gathered, replicas, schedule, 2, chunks, m, NULL, 0,
                        {.exact = 1, .rows = 7, .micro = 1, .steps = 1, .clip = 8,
                         .layers = layers});
    expect_pipeline_cut(zero, gathered, replicas, schedule, 2, chunks, m, NULL, 0,
                        {.rows = 11, .micro = 2, .steps = 3, .clip = 1,
                         .layers = layers});
    expect_pipeline_cut(zero, gathered, replicas, schedule, 2, chunks, m, NULL, 0,
                        {.rows = 11, .micro = 2, .steps = 3, .clip = 1, .untied = 1,
                         .layers = layers});
}

Test(pipeline_sharded, two_replicas_of_1f1b) { prove(1, 0, 2, "1f1b", 0, 4); }
Test(pipeline_sharded, three_replicas_of_1f1b) { prove(1, 0, 3, "1f1b", 0, 4); }
Test(pipeline_sharded, two_replicas_of_zb_h1) { prove(1, 0, 2, "zb-h1", 0, 4); }
Test(pipeline_sharded, three_replicas_of_zb_h1) { prove(1, 0, 3, "zb-h1", 0, 4); }
Test(pipeline_sharded, both_ends_on_one_rank) { prove(1, 0, 2, "zb-v", 0, 4); }
Test(pipeline_sharded, both_directions) { prove(1, 0, 2, "chimera", 0, 4); }
Test(pipeline_sharded, a_single_replica) { prove(1, 0, 1, "interleaved", 2, 8); }

Test(pipeline_sharded, gradients_of_1f1b) { prove(2, 1, 2, "1f1b", 0, 4); }
Test(pipeline_sharded, gradients_of_three) { prove(2, 1, 3, "zb-h1", 0, 4); }
Test(pipeline_sharded, gradients_of_chunks) { prove(2, 1, 2, "interleaved", 2, 8); }
Test(pipeline_sharded, gradients_of_chimera) { prove(2, 2, 3, "chimera", 0, 4); }
Test(pipeline_sharded, parameters_of_1f1b) { prove(3, 1, 2, "1f1b", 0, 4); }
Test(pipeline_sharded, parameters_of_three) { prove(3, 2, 3, "1f1b", 0, 4); }
Test(pipeline_sharded, parameters_of_zb_h1) { prove(3, 1, 2, "zb-h1", 0, 4); }
Test(pipeline_sharded, parameters_of_zb_v) { prove(3, 1, 3, "zb-v", 0, 4); }
Test(pipeline_sharded, parameters_of_chunks) { prove(3, 1, 2, "interleaved", 2, 8); }
Test(pipeline_sharded, chunks_ahead_of_use) { prove(3, 2, 2, "interleaved", 4, 8); }
Test(pipeline_sharded, chunks_breadth_first) { prove(3, 2, 3, "bfs", 4, 8); }
Test(pipeline_sharded, parameters_of_chimera) { prove(3, 1, 2, "chimera", 0, 4); }
Test(pipeline_sharded, nothing_to_cut) { prove(3, 2, 1, "interleaved", 2, 8); }

/* weigh a cut optimizer */
typedef struct scale_case { dls_dtype dtype; const char *schedule; } scale_case;

static dls_status compare(const dls_pipeline *p, dls_dtype dtype, size_t held,
                          uint64_t sent)
{
    const dls_stage_update *u = &p->update[p->rank];
    size_t N = (size_t)dls_comm_size(p->data), part = dls_zero_elements(u->zero);
    size_t psi = u->stage->model->params.elements, bf16 = dtype == DLS_BF16;
    EXPECT(N * part >= psi
           && N * part - psi <= (N - 1) * (size_t)dls_zero_slices(u->zero),
           "%zu slices of %zu for %zu", N, part, psi);
    EXPECT(held == (bf16 ? 12 : 8) * part + 48, "stage %d: %zu bytes for %zu", p->rank,
           held, part);
    uint64_t all[N], sum = 0, law = (N - 1) * N * part * (4 + (bf16 ? 2 : 4));
    DLS_TRY(dls_comm_all_gather_host(p->data, &sent, sizeof sent, all));
    for (size_t i = 0; i < N; i++)
        sum += all[i];
    EXPECT(sum == law + 2 * (N - 1) * 8, "stage %d: %zu bytes sent, the law says %zu",
           p->rank, (size_t)sum, (size_t)law);
    return DLS_OK;
}

static dls_status step_once(dls_pipeline *p, int T)
{
    int ids[2 * 4 * 16] = {0}, *device;
    void *losses;
    DLS_TRY(dls_device_alloc((void **)&device, 2 * 4 * 16, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&losses, 4 * 16, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(device, ids, sizeof ids, cudaMemcpyHostToDevice));
    dls_pipeline_batch b = {.tokens = device, .targets = device + 4 * T, .rows = 4,
                            .micro = 1, .loss_scale = 1.0 / (4 * T), .losses = losses};
    DLS_TRY(dls_pipeline_step(p, &b, 1.0 / 64, 1));
    return dls_zero_sync(p->update[p->rank].zero);
}


static dls_status weigh(int rank, void *arg)
{
    const scale_case *c = arg;
    const dls_zero_options zero = {.stage = 1};
    pipeline_setup setup = {.schedule = c->schedule, .ranks = 2, .microbatches = 4};
    dls_transformer_config config = layout_config(&setup.proof);
    int first[3];
    dls_comm *comm, *pipe, *data;
    dls_gpu_memory before, is;
    dls_schedule s;
    dls_pipeline *p;
    dls_ctx ctx;
    (void)rank;
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(pipeline_groups(comm, 2, &pipe, &data));
    DLS_TRY(dls_ctx_create(&ctx, 0, c->dtype));
    DLS_TRY(pipeline_schedule(&setup, &s));
    DLS_TRY(pipeline_partition(&setup, config.layers, 2, first));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = config.context, .zero = &zero,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, 1}};
    DLS_TRY(dls_gpu_memory_stats(0, &before));
    DLS_TRY(dls_pipeline_create(&p, &ctx, pipe, data, &o));
    uint64_t sent = dls_comm_stats(data).wire_bytes;
    DLS_TRY(step_once(p, config.context));
    sent = dls_comm_stats(data).wire_bytes - sent;
    DLS_TRY(dls_gpu_memory_stats(0, &is));
    DLS_TRY(compare(p, c->dtype, is.current[DLS_MEM_OPTIMIZER]
                    - before.current[DLS_MEM_OPTIMIZER], sent));
    dls_pipeline_free(p);
    dls_schedule_free(&s);
    return DLS_OK;
}


Test(pipeline_sharded, twelve_bytes_over_n_and_two_psi)
{
    for (int i = 0; i < 4; i++) {
        scale_case c = {i % 2 ? DLS_BF16 : DLS_F32, i / 2 ? "zb-h1" : "1f1b"};
        expect_ranks(i < 2 ? 6 : 4, weigh, &c);
    }
}

/* refuse what can not be cut */
static dls_status refuse(int rank, void *arg)
{
    const struct { const char *schedule; dls_zero_options zero; int validate; } cases[] =
        {{"1f1b", {.stage = 2}, 0}, {"zb-h1", {.stage = 3}, 0},
         {"1f1b", {.stage = 1, .offload = 1}, 0},
         {"1f1b", {.stage = 1, .shard_size = 1}, 0}, {"1f1b", {.stage = 1}, 1},
         {"1f1b", {.stage = 1, .narrow_gradients = 1}, 0},
         {"pipedream", {.stage = 1}, 0}};
    const int first[] = {0, 2, 5};
    pipeline_setup setup = {.ranks = 2, .microbatches = 4, .proof = {.untied = 1}};
    dls_transformer_config config = layout_config(&setup.proof);
    dls_comm *comm;
    dls_pipeline *p;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dls_schedule s;
        setup.schedule = cases[i].schedule;
        DLS_TRY(pipeline_schedule(&setup, &s));
        dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                                  .max_B = 1, .T = 6, .zero = &cases[i].zero,
                                  .validate = cases[i].validate};
        EXPECT(dls_pipeline_create(&p, NULL, comm, comm, &o) == DLS_ERR_INPUT
               && strstr(dls_status_message(), i < 2 ? "are gathered" : "on the device"),
               "case %zu: %s", i, dls_status_message());
        dls_schedule_free(&s);
    }
    return DLS_OK;
}

Test(pipeline_sharded, what_can_not_be_cut_is_refused)
{
    expect_ranks(2, refuse, NULL);
}

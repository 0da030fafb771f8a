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
    for (int s = 0; s < p->stages; s++)
        if (p->update[s].zero)
            DLS_TRY(dls_zero_sync(p->update[s].zero));
    return DLS_OK;
}


typedef struct weighing {
    dls_ctx ctx;
    dls_comm *data;
    dls_pipeline *p;
    dls_gpu_memory before, is;
    uint64_t sent;              /* between the replicas */
} weighing;

static dls_status weigh_step(weighing *w, const dls_pipeline_options *o, dls_dtype dtype)
{
    dls_comm *comm, *pipe;
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(pipeline_groups(comm, 2, &pipe, &w->data));
    DLS_TRY(dls_ctx_create(&w->ctx, 0, dtype));
    DLS_TRY(dls_gpu_memory_stats(0, &w->before));
    DLS_TRY(dls_pipeline_create(&w->p, &w->ctx, pipe, w->data, o));
    w->sent = dls_comm_stats(w->data).wire_bytes;
    DLS_TRY(step_once(w->p, o->T));
    w->sent = dls_comm_stats(w->data).wire_bytes - w->sent;
    return dls_gpu_memory_stats(0, &w->is);
}

static dls_status weigh(int rank, void *arg)
{
    const scale_case *c = arg;
    const dls_zero_options zero = {.stage = 1};
    pipeline_setup setup = {.schedule = c->schedule, .ranks = 2, .microbatches = 4};
    dls_transformer_config config = layout_config(&setup.proof);
    int first[3];
    weighing w;
    dls_schedule s;
    (void)rank;
    DLS_TRY(pipeline_schedule(&setup, &s));
    DLS_TRY(pipeline_partition(&setup, config.layers, 2, first));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = config.context, .zero = &zero,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, 1}};
    DLS_TRY(weigh_step(&w, &o, c->dtype));
    DLS_TRY(compare(w.p, c->dtype, w.is.current[DLS_MEM_OPTIMIZER]
                    - w.before.current[DLS_MEM_OPTIMIZER], w.sent));
    dls_pipeline_free(w.p);
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

/* weigh the stretches */
typedef struct stretch_case {
    const char *schedule;
    int zero, chunks, gathered, cut;    /* cut: behind every B */
    int all, backward;          /* stretches of stage 0; -1: whatever the list says */
    dls_dtype dtype;
} stretch_case;

static void count_stretches(const dls_actions *list, int stage, int *all, int *backward)
{
    int open = 0;
    *all = *backward = 0;
    for (size_t i = 0; i < list->n; i++) {
        const dls_action *a = &list->list[i];
        if (a->stage != stage)
            continue;
        *all += a->kind == DLS_DO_UNSHARD;
        open = a->kind == DLS_DO_UNSHARD ? 1 : open;
        if (dls_action_computes(a) && a->kind != DLS_DO_F && open) {
            open = 0;
            ++*backward;
        }
    }
}

static dls_status cut_rank(const dls_actions *in, dls_actions *out)
{
    int open = 0;
    for (size_t i = 0; i < in->n; i++) {
        const dls_action *a = &in->list[i];
        if (dls_action_computes(a) && !open)
            DLS_TRY(dls_actions_add(out, DLS_DO_UNSHARD, a->stage, -1));
        open |= dls_action_computes(a);
        DLS_TRY(dls_actions_add(out, (dls_action_kind)a->kind, a->stage, a->microbatch));
        if (a->kind == DLS_DO_B)
            DLS_TRY(dls_actions_add(out, DLS_DO_RESHARD, a->stage, -1));
        open = a->kind == DLS_DO_B ? 0 : open;
    }
    return DLS_OK;
}

static dls_status make_case(const stretch_case *c, dls_schedule *out)
{
    pipeline_setup setup = {.schedule = c->schedule, .ranks = 2, .microbatches = 4,
                            .chunks = c->chunks, .gathered = c->gathered};
    dls_schedule_options o = dls_schedule_defaults(c->schedule, 2, 4);
    dls_schedule plain, updated, cut;
    if (!c->cut)
        return pipeline_schedule(&setup, out);
    DLS_TRY(dls_schedule_make(&o, &plain));
    DLS_TRY(dls_lower_updates(&plain, &updated));
    DLS_TRY(dls_schedule_empty(&updated.options, updated.placement, &cut));
    cut.backward = 1;
    for (int r = 0; r < 2; r++)
        DLS_TRY(cut_rank(&updated.order[r], &cut.order[r]));
    DLS_TRY(dls_lower_messages(&cut, out));
    return dls_schedule_check(out, NULL);
}

static dls_status compare_stretches(const dls_pipeline *p, const stretch_case *c,
                                    const size_t held[2], uint64_t sent)
{
    size_t N = (size_t)dls_comm_size(p->data), slices = 0, largest = 0;
    size_t value = dls_dtype_size(c->dtype), room, whole = 0;
    uint64_t law = 2 * (N - 1) * 8, all[N], sum = 0;
    for (int s = 0; s < p->stages; s++) {
        int stretches, backward;
        size_t part = p->stage[s] ? dls_zero_elements(p->update[s].zero) : 0;
        count_stretches(&p->o.schedule->order[p->rank], s, &stretches, &backward);
        EXPECT(s > 0 || !p->stage[0] || c->all < 0
               || (stretches == c->all && backward == c->backward),
               "%s: %d stretches, %d backward", c->schedule, stretches, backward);
        law += (N - 1) * N * part * (4 * (uint64_t)backward
                                     + value * (c->zero == 3 ? (uint64_t)stretches : 1));
        slices += part;
        whole += N * part;
        largest = N * part > largest ? N * part : largest;
    }
    room = largest * (size_t)dls_schedule_gathered(p->o.schedule, p->rank);
    DLS_TRY(dls_comm_all_gather_host(p->data, &sent, sizeof sent, all));
    for (size_t i = 0; i < N; i++)
        sum += all[i];
    EXPECT(sum == law, "%s, stage %d: %zu bytes sent, the law says %zu", c->schedule,
           c->zero, (size_t)sum, (size_t)law);
    size_t values = (c->zero == 3 ? slices + room : whole) * value;
    size_t grads = (slices + room) * 4;
    EXPECT(held[0] == values && held[1] == grads, "%s, stage %d: %zu bytes of parameters "
           "and %zu of gradients, not %zu and %zu", c->schedule, c->zero, held[0],
           held[1], values, grads);
    return DLS_OK;
}

static dls_status weigh_stretches(int rank, void *arg)
{
    const stretch_case *c = arg;
    const dls_zero_options zero = {.stage = c->zero};
    dls_transformer_config config = layout_config(&(layout_proof){.layers = 7});
    pipeline_setup setup = {0};
    weighing w;
    dls_schedule s;
    (void)rank;
    DLS_TRY(make_case(c, &s));
    int first[s.stages + 1];
    DLS_TRY(pipeline_partition(&setup, config.layers, s.stages, first));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = config.context, .zero = &zero,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, 1}};
    DLS_TRY(weigh_step(&w, &o, c->dtype));
    const size_t *peak = w.is.peak, *before = w.before.current;
    size_t held[2] = {peak[DLS_MEM_PARAMETERS] - before[DLS_MEM_PARAMETERS],
                      peak[DLS_MEM_GRADIENTS] - before[DLS_MEM_GRADIENTS]};
    DLS_TRY(compare_stretches(w.p, c, held, w.sent));
    dls_pipeline_free(w.p);
    dls_schedule_free(&s);
    return DLS_OK;
}

Test(pipeline_sharded, a_stretch_costs_a_gather_and_a_scatter)
{
    stretch_case cases[] = {{"1f1b", 2, 0, 1, 0, 1, 1, DLS_F32},
                            {"1f1b", 2, 0, 0, 1, 4, 4, DLS_F32},
                            {"1f1b", 3, 0, 0, 1, 4, 4, DLS_BF16},
                            {"zb-h1", 3, 0, 1, 0, 1, 1, DLS_F32},
                            {"bfs", 2, 4, 1, 0, 2, 1, DLS_F32},
                            {"bfs", 3, 4, 2, 0, 2, 1, DLS_BF16},
                            {"interleaved", 2, 4, 1, 0, -1, -1, DLS_F32},
                            {"interleaved", 3, 4, 2, 0, -1, -1, DLS_F32},
                            {"chimera", 3, 0, 1, 0, -1, -1, DLS_F32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_ranks(i % 2 ? 6 : 4, weigh_stretches, &cases[i]);
}

/* time gathers ahead */
/* The share of this rank's gathers and scatters that nothing waited for. */
static dls_status time_step(dls_comm *pipe, dls_comm *data, dls_ctx *ctx, int gathered,
                            double *hidden)
{
    const dls_zero_options zero = {.stage = 3};
    dls_transformer_config config = layout_config(&(layout_proof){.layers = 7});
    stretch_case c = {.schedule = "interleaved", .chunks = 4, .gathered = gathered};
    pipeline_setup setup = {0};
    dls_schedule s;
    dls_pipeline *p;
    DLS_TRY(make_case(&c, &s));
    int first[s.stages + 1];
    DLS_TRY(pipeline_partition(&setup, config.layers, s.stages, first));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = config.context, .zero = &zero,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, 1}};
    DLS_TRY(dls_pipeline_create(&p, ctx, pipe, data, &o));
    DLS_TRY(step_once(p, config.context));
    dls_ddp_times sum = {0}, one;
    for (int i = 0; i < s.stages; i++)
        if (p->stage[i]) {
            DLS_TRY(dls_zero_timing(p->update[i].zero, &one));
            sum.busy += one.busy;
            sum.exposed += one.exposed;
        }
    *hidden = 1 - sum.exposed / sum.busy;
    dls_pipeline_free(p);
    dls_schedule_free(&s);
    return DLS_OK;
}

static dls_status compare_times(int rank, void *arg)
{
    dls_comm *comm, *pipe, *data;
    double late, ahead;
    dls_ctx ctx;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(pipeline_groups(comm, 2, &pipe, &data));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    DLS_TRY(time_step(pipe, data, &ctx, 1, &late));
    DLS_TRY(time_step(pipe, data, &ctx, 2, &ahead));
    EXPECT(dls_comm_rank(pipe) > 0 || ahead > late + 0.2, "%g hidden with one stage "
           "gathered, %g with two", late, ahead);
    return DLS_OK;
}

Test(pipeline_sharded, stages_are_fetched_ahead)
{
    expect_ranks(4, compare_times, NULL);
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

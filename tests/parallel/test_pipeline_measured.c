/* tests/parallel/test_pipeline_measured.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Measured times and bytes of a real GPT-2's pipeline against the evaluator's. */
#include "pipeline_layout.h"

#include "parallel/pipeline/partition.h"
#include "parallel/pipeline/report.h"

/* run a measured pipeline */
typedef struct measured_run {
    const char *schedule;
    int chunks;
    dls_ctx ctx;
    dls_schedule s;
    dls_pipeline *pipeline;
    dls_pipeline_batch batch;
    int *ids;
    void *losses;
} measured_run;

enum { RANKS = 4, MICROBATCHES = 8, B = 4, T = 1024, BLOCKS = 8 };

static dls_transformer_config model_of_run(void)
{
    return dls_transformer_gpt2(5003, T, BLOCKS, 8, 512);
}

static dls_status make_run(measured_run *r, dls_comm *comm, dls_comm *data)
{
    pipeline_setup setup = {.schedule = r->schedule, .ranks = RANKS, .chunks = r->chunks,
                            .microbatches = MICROBATCHES};
    dls_transformer_config c = model_of_run();
    size_t rows = MICROBATCHES * B * T;
    int64_t cost[BLOCKS + 2];
    int first[2 * RANKS + 1];
    DLS_TRY(dls_ctx_create(&r->ctx, 0, DLS_BF16));
    DLS_TRY(pipeline_schedule(&setup, &r->s));
    dls_partition_flops(&c, T, cost);
    DLS_TRY(dls_partition_by_cost(cost, BLOCKS, r->s.stages, first));
    dls_pipeline_options o = {.model = &c, .schedule = &r->s, .partition = first,
                              .max_B = B, .T = T, .adamw = {0.9, 0.95, 1e-8, 0.1, 1},
                              .measured = 1};
    DLS_TRY(dls_pipeline_create(&r->pipeline, &r->ctx, comm, data, &o));
    DLS_TRY(dls_device_alloc((void **)&r->ids, rows, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&r->losses, rows, DLS_F32, DLS_MEM_OTHER));
    r->batch = (dls_pipeline_batch){.tokens = r->ids, .targets = r->ids,
                                    .rows = MICROBATCHES * B, .micro = B,
                                    .loss_scale = 1, .losses = r->losses};
    return DLS_OK;
}

static void drop_run(measured_run *r)
{
    dls_pipeline_free(r->pipeline);
    dls_schedule_free(&r->s);
    dls_device_free(r->ids);
    dls_device_free(r->losses);
    dls_ctx_destroy(&r->ctx);
}

/* compare times and bytes */
static int near(double a, double b, double part)
{
    return fabs(a - b) <= part * fabs(b);
}

static dls_status compare_times(const measured_run *r, const dls_evaluation *is)
{
    dls_schedule s = r->s;
    dls_evaluation want;
    int64_t room[s.stages * (s.stages + 4)];
    dls_pipeline_mean_costs(&s, is, room, &s.options.cost);
    DLS_TRY(dls_evaluate(&s, &want));
    for (int i = 0; i < RANKS; i++) {
        int64_t idle = is->makespan - is->busy[i];
        int64_t expected = want.makespan - want.busy[i];
        EXPECT(is->busy[i] > want.makespan / 4, "rank %d hardly works", i);
        EXPECT(near((double)idle, (double)expected, 0.01), "%s: rank %d idles %lld ns, "
               "evaluated %lld", r->schedule, i, (long long)idle, (long long)expected);
    }
    EXPECT(near((double)is->makespan, (double)want.makespan, 0.01)
           && near((double)is->span, (double)want.span, 0.01),
           "%s: makespan and span %lld %lld, evaluated %lld %lld", r->schedule,
           (long long)is->makespan, (long long)is->span, (long long)want.makespan,
           (long long)want.span);
    dls_evaluation_free(&want);
    return DLS_OK;
}

/* The peak of the rank's slots along its list. */
static size_t slots_peak(const measured_run *r, int rank)
{
    size_t held = 0, peak = 0;
    for (size_t i = 0; i < r->s.order[rank].n; i++) {
        const dls_action *a = &r->s.order[rank].list[i];
        held += (size_t)dls_stage_adds(&r->pipeline->stage[a->stage]->bytes, a);
        peak = held > peak ? held : peak;
    }
    return peak;
}

/* A rank with one stage: the evaluator's peak, in bytes. */
static dls_status compare_peak(const measured_run *r, int rank, size_t got)
{
    const dls_stage_bytes *b = &r->pipeline->stage[rank]->bytes;
    dls_schedule s = r->s;
    dls_evaluation e;
    s.options.memory.hold = (int64_t)(b->stash + b->early);
    s.options.memory.keep = (int64_t)(b->stash + b->gradients);
    if (s.options.memory.keep > s.options.memory.hold)
        s.options.memory.keep = s.options.memory.hold;
    DLS_TRY(dls_evaluate(&s, &e));
    EXPECT(near((double)got, (double)e.peak[rank], 0.01), "%s: rank %d holds %zu bytes, "
           "evaluated %lld", r->schedule, rank, got, (long long)e.peak[rank]);
    dls_evaluation_free(&e);
    return DLS_OK;
}

static dls_status compare_bytes(const measured_run *r, int rank, size_t got)
{
    size_t want = slots_peak(r, rank);
    EXPECT(got == want, "%s: rank %d holds %zu bytes instead of %zu", r->schedule, rank,
           got, want);
    int one_stage = r->s.stages == RANKS && r->s.placement != DLS_PLACE_BOTH;
    return one_stage && rank != RANKS - 1 ? compare_peak(r, rank, got) : DLS_OK;
}

static dls_status whole_model(size_t *bytes)
{
    dls_transformer_config c = model_of_run();
    dls_params all;
    c.tied_head = 0;
    DLS_TRY(dls_transformer_list(&c, &all));
    *bytes = all.elements * dls_dtype_size(DLS_BF16);
    dls_params_free(&all);
    return DLS_OK;
}

static dls_status compare_parameters(const measured_run *r, dls_comm *comm, size_t got)
{
    size_t all[RANKS], sum = 0, whole;
    dls_text says = {0};
    int copies = 1;
    dls_report_notes("", &r->s, &says);
    sscanf(says.data ? says.data : "", ": %dx parameters", &copies);
    dls_text_free(&says);
    DLS_TRY(whole_model(&whole));
    DLS_TRY(dls_comm_all_gather_host(comm, &got, sizeof got, all));
    for (int i = 0; i < RANKS; i++)
        sum += all[i];
    EXPECT(sum == (size_t)copies * whole, "%s: %zu bytes of parameters, the model has "
           "%zu, evaluated %d times", r->schedule, sum, whole, copies);
    for (int i = 0; copies == 2 && i < RANKS; i++)
        EXPECT(all[i] == all[RANKS - 1 - i], "rank %d has %zu bytes of parameters, its "
               "mirror %zu", i, all[i], all[RANKS - 1 - i]);
    return DLS_OK;
}

/* test measured pipelines */
static dls_status measure(measured_run *r, dls_comm *comm, dls_comm *data)
{
    dls_evaluation is;
    dls_gpu_memory before, after;
    int rank = dls_comm_rank(comm);
    DLS_TRY(make_run(r, comm, data));
    DLS_TRY(dls_pipeline_step(r->pipeline, &r->batch, 1e-3, 1));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_TRY(dls_gpu_memory_stats(r->ctx.device, &before));
    dls_gpu_memory_reset_peaks(r->ctx.device);
    DLS_TRY(dls_pipeline_step(r->pipeline, &r->batch, 1e-3, 2));
    DLS_TRY(dls_pipeline_times(r->pipeline, &is));
    DLS_TRY(dls_gpu_memory_stats(r->ctx.device, &after));
    DLS_TRY(compare_times(r, &is));
    DLS_TRY(compare_parameters(r, comm, after.current[DLS_MEM_PARAMETERS]));
    DLS_TRY(compare_bytes(r, rank, after.peak[DLS_MEM_ACTIVATIONS]
                                   - before.current[DLS_MEM_ACTIVATIONS]));
    dls_evaluation_free(&is);
    drop_run(r);
    return DLS_OK;
}

static dls_status measure_in_a_world(int rank, void *arg)
{
    dls_gpu_options timed = {.cluster_file = "dgx-h100", .kernels = DLS_KERNELS_TIMED};
    measured_run *r = arg;
    dls_comm *comm, *data;
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_comm_split(comm, rank, 0, &data));
    DLS_TRY(measure(r, comm, data));
    dls_comm_destroy(data);
    dls_comm_destroy(comm);
    return DLS_OK;
}

#define measured_is_evaluated(test, name, n)                         \
    Test(pipeline_measured, test)                                    \
    {                                                                \
        static measured_run r;                                       \
        r.schedule = name;                                           \
        r.chunks = n;                                                \
        expect_ranks(RANKS, measure_in_a_world, &r);                 \
    }

measured_is_evaluated(gpipe, "gpipe", 0)
measured_is_evaluated(one_forward_one_backward, "1f1b", 0)
measured_is_evaluated(interleaved, "interleaved", 2)
measured_is_evaluated(zero_bubble_h1, "zb-h1", 0)
measured_is_evaluated(zero_bubble_h2, "zb-h2", 0)
measured_is_evaluated(zero_bubble_v, "zb-v", 0)
measured_is_evaluated(chimera, "chimera", 0)
measured_is_evaluated(dualpipe, "dualpipe", 0)
measured_is_evaluated(dualpipev, "dualpipev", 0)

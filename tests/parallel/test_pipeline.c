/* tests/parallel/test_pipeline.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Pipelines of all kinds against one device. */
#include "pipeline_layout.h"

#include "exact_model.h"

/* walk the synchronous schedules */
static int synchronous(const dls_schedule_entry *e, int ranks, int m, int chunks)
{
    dls_schedule_options o = dls_schedule_defaults(e->name, ranks, m);
    dls_schedule s;
    o.chunks = e->chunks ? e->chunks : chunks;
    if (dls_schedule_make(&o, &s) != DLS_OK)
        return 0; // refused, with a reason: see the tests of the schedules
    int yes = s.backward && s.step_every == 0;
    dls_schedule_free(&s);
    return yes;
}

enum { LAYERS = 6 };    // eight units: four ranks with two chunks

/* A group of proofs, all in one world: of all schedules, in one form. */
typedef struct all_schedules {
    int ranks, m, chunks, replicas, exact;
    dls_comm *comm, *pipe, *data;
} all_schedules;

static dls_status prove_schedule(const all_schedules *a, const dls_schedule_entry *e)
{
    int rows = a->replicas * (2 * a->m - 1);
    pipeline_setup setup = {e->name, a->ranks, e->chunks ? 0 : a->chunks, a->m, NULL, 0,
                            {.exact = a->exact, .rows = rows, .micro = 2,
                             .steps = a->exact ? 1 : 2, .clip = a->exact ? 8 : 1,
                             .layers = LAYERS, .pipeline = a->ranks},
                            a->pipe, a->data, 0, 0, NULL, NULL, NULL};
    const layout l = pipeline_layout(&setup);
    setup.proof.layout = &l;
    return layout_prove_in(a->comm, &setup.proof);
}

static dls_status prove_all(int rank, void *arg)
{
    all_schedules *a = arg;
    (void)rank;
    DLS_TRY(test_world(NULL, &a->comm));
    DLS_TRY(pipeline_groups(a->comm, a->ranks, &a->pipe, &a->data));
    for (int i = 0; dls_schedule_at(i); i++)
        if (synchronous(dls_schedule_at(i), a->ranks, a->m, a->chunks))
            DLS_TRY(prove_schedule(a, dls_schedule_at(i)));
    dls_comm_destroy(a->data);
    dls_comm_destroy(a->pipe);
    dls_comm_destroy(a->comm);
    return DLS_OK;
}

/* Both forms of the proof, for each schedule that can be: at least so many. */
static void expect_all(int ranks, int m, int chunks, int replicas, int least)
{
    all_schedules a = {ranks, m, chunks, replicas, 0, NULL, NULL, NULL};
    int n = 0;
    for (int i = 0; dls_schedule_at(i); i++)
        n += synchronous(dls_schedule_at(i), ranks, m, chunks);
    cr_assert_geq(n, least, "only %d schedules on %d ranks", n, ranks);
    for (a.exact = 0; a.exact <= 1; a.exact++)
        expect_ranks(ranks * replicas, prove_all, &a);
}

/* test every schedule */
Test(pipeline_runtime, every_schedule_on_one_rank_is_one_device)
{
    expect_all(1, 5, 2, 1, 6);
}

Test(pipeline_runtime, every_schedule_on_two_ranks_is_one_device)
{
    expect_all(2, 5, 2, 1, 8);
}

Test(pipeline_runtime, every_schedule_on_three_ranks_is_one_device)
{
    expect_all(3, 6, 2, 1, 8);
}

Test(pipeline_runtime, every_schedule_on_four_ranks_is_one_device)
{
    expect_all(4, 8, 2, 1, 8);
}

/* test the hard cases */
Test(pipeline_runtime, untied_and_llama)
{
    expect_pipeline(1, "1f1b", 3, 0, 4, NULL, 0,
                    {.rows = 7, .micro = 2, .steps = 2, .clip = 1, .untied = 1});
    expect_pipeline(1, "interleaved", 2, 2, 4, NULL, 0,
                    {.rows = 7, .micro = 2, .steps = 2, .clip = 1, .llama = 1});
}

Test(pipeline_runtime, one_row_and_fewer_micro_batches_than_planned)
{
    expect_pipeline(1, "1f1b", 2, 0, 4, NULL, 0,
                    {.exact = 1, .rows = 1, .micro = 1, .steps = 1});
    expect_pipeline(1, "gpipe", 3, 0, 6, NULL, 0,
                    {.rows = 7, .micro = 3, .steps = 1, .clip = 1});
}

Test(pipeline_runtime, stages_by_hand_down_to_one_unit)
{
    const int64_t ends[] = {1, 3, 1}, head[] = {4, 1};
    expect_pipeline(1, "1f1b", 3, 0, 4, ends, 0,
                    {.exact = 1, .rows = 8, .micro = 2, .steps = 1});
    expect_pipeline(1, "gpipe", 2, 0, 3, head, 0,
                    {.rows = 5, .micro = 2, .steps = 2, .clip = 1});
}

static dls_status look_at_frozen(const dls_pipeline *p, int rank, const float *values)
{
    const dls_params *set = &p->stage[rank]->model->params;
    const dls_param *bias = dls_params_find(set, "ln_f.bias");
    static float after[1 << 12], grad[EXACT_C];
    double norm, want = 0;
    size_t at = bias ? bias->offset : set->elements, end = bias ? at + EXACT_C : at;
    DLS_TRY(dls_ctx_sync(p->ctx));
    DLS_CUDA(cudaMemcpy(after, set->values, set->elements * sizeof *after,
                        cudaMemcpyDeviceToHost));
    DLS_CUDA(cudaMemcpy(&norm, dls_pipeline_norm(p), sizeof norm,
                        cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < set->elements; i++)
        EXPECT((i >= at && i < end) || after[i] == values[i], "value %zu moved", i);
    if (!bias)
        return DLS_OK;
    DLS_CUDA(cudaMemcpy(grad, bias->grad, sizeof grad, cudaMemcpyDeviceToHost));
    for (int i = 0; i < EXACT_C; i++)
        want += grad[i] * grad[i];
    EXPECT(norm > 0 && norm == sqrt(want), "the norm is %g instead of %g", norm,
           sqrt(want));
    EXPECT(memcmp(after + at, values + at, sizeof grad) != 0, "nothing moved");
    return DLS_OK;
}

static dls_status freeze_all_but_one(int rank, void *arg)
{
    (void)arg;
    pipeline_setup setup = {.schedule = "1f1b", .ranks = 2, .microbatches = 2,
                            .proof = {.exact = 1}};
    dls_transformer_config config = layout_config(&setup.proof);
    const int first[] = {0, 2, 5}, ids[2 * EXACT_T] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    static float values[1 << 12];
    dls_comm *comm, *data;
    dls_ctx ctx;
    dls_schedule s;
    dls_pipeline *p;
    int *device;
    void *losses;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(dls_comm_split(comm, rank, 0, &data));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    DLS_TRY(pipeline_schedule(&setup, &s));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .make = exact_model_make, .max_B = 1, .T = EXACT_T,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, 0}};
    DLS_TRY(dls_pipeline_create(&p, &ctx, comm, data, &o));
    dls_params *set = &p->stage[rank]->model->params;
    const dls_param *bias = dls_params_find(set, "ln_f.bias");
    for (int i = 0; i < set->n; i++)
        set->items[i].frozen = &set->items[i] != bias;
    exact_model_fill(set, values);
    DLS_TRY(dls_pipeline_put(p, rank, values));
    DLS_TRY(dls_device_alloc((void **)&device, 2 * EXACT_T, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&losses, 2 * EXACT_T, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(device, ids, sizeof ids, cudaMemcpyHostToDevice));
    dls_pipeline_batch b = {.tokens = device, .targets = device, .rows = 2, .micro = 1,
                            .loss_scale = 1, .losses = losses};
    DLS_TRY(dls_pipeline_step(p, &b, 1.0 / 64, 1));
    return look_at_frozen(p, rank, values);
}

Test(pipeline_runtime, frozen_parameters_stay)
{
    expect_ranks(2, freeze_all_but_one, NULL);
}

/* test replicas of pipelines */
Test(pipeline_runtime, two_pipelines_of_two)
{
    expect_all(2, 3, 2, 2, 8);
}

Test(pipeline_runtime, three_pipelines_with_uneven_rows)
{
    expect_pipeline(3, "1f1b", 2, 0, 2, NULL, 0,
                    {.exact = 1, .rows = 5, .micro = 1, .steps = 1, .clip = 8});
    expect_pipeline(3, "1f1b", 2, 0, 1, NULL, 0,
                    {.rows = 2, .micro = 1, .steps = 1, .clip = 1});
}

/* tests/parallel/test_pipeline.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Pipelines of all kinds against one device. */
#include "pipeline_layout.h"

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
                            a->pipe, a->data};
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

/* tests/parallel/test_pipeline_validate.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Post-validation: the same weights as with a wait for the norm, and the way back. */
#include "pipeline_layout.h"

#include "base/rng.h"

/* test settled steps */
Test(pipeline_validate, a_settled_step_is_the_single_device_s)
{
    const double clips[] = {1e9, 8, 1, 0};
    for (int i = 0; i < 4; i++)
        expect_pipeline(1, "1f1b", 3, 0, 4, NULL, 1,
                        {.exact = 1, .rows = 7, .micro = 2, .steps = 1,
                         .clip = clips[i]});
    expect_pipeline(1, "zb-h2", 3, 0, 6, NULL, 1,
                    {.rows = 11, .micro = 2, .steps = 3, .clip = 1, .untied = 1});
    expect_pipeline(2, "zb-v", 2, 0, 4, NULL, 1,
                    {.rows = 15, .micro = 2, .steps = 3, .clip = 1});
}

/* run steps on trust */
typedef struct trust_case {
    const char *schedule;
    int ranks, chunks, m;
    double clip;
    int again;              /* how often the list is begun again */
    dls_comm *pipe, *data;
} trust_case;

enum { STEPS = 4, VOCABULARY = 13, MOST = 16 * 6 };

static dls_status fill_and_step(dls_pipeline *p, const dls_pipeline_batch *b,
                                double *values, int *n)
{
    *n = 0;
    for (int s = 0; s < p->stages; s++) {
        const dls_params *set = p->stage[s] ? &p->stage[s]->model->params : NULL;
        if (!set)
            continue;
        dls_params_fill(set, 7, values);
        DLS_TRY(dls_pipeline_put(p, s, values));
    }
    for (int step = 1; step <= STEPS; step++)
        DLS_TRY(dls_pipeline_step(p, b, 1.0 / 64, step));
    DLS_TRY(dls_pipeline_settle(p));
    DLS_TRY(dls_ctx_sync(p->ctx));
    for (int s = 0; s < p->stages; s++) {
        const dls_params *set = p->stage[s] ? &p->stage[s]->model->params : NULL;
        if (!set)
            continue;
        DLS_CUDA(cudaMemcpy(values + *n, set->values, set->elements * sizeof *values,
                            cudaMemcpyDeviceToHost));
        *n += (int)set->elements;
    }
    return DLS_OK;
}

/* Four steps with nothing between; the values of this rank's stages. */
static dls_status four_steps(const trust_case *c, int validate, double *values, int *n,
                             double *losses, int *again)
{
    pipeline_setup setup = {.schedule = c->schedule, .ranks = c->ranks,
                            .chunks = c->chunks, .microbatches = c->m,
                            .proof = {.untied = 1, .layers = 6}};
    dls_transformer_config config = layout_config(&setup.proof);
    dls_schedule s;
    dls_ctx ctx;
    dls_pipeline *p;
    int ids[2 * MOST], *device;
    void *room;
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F64));
    DLS_TRY(pipeline_schedule(&setup, &s));
    int first[s.stages + 1];
    DLS_TRY(pipeline_partition(&setup, config.layers, s.stages, first));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = 6, .validate = validate,
                              .adamw = {0.875, 0.96875, 1e-8, 0.125, c->clip}};
    DLS_TRY(dls_pipeline_create(&p, &ctx, c->pipe, c->data, &o));
    for (int i = 0; i < 2 * c->m * 6; i++)
        ids[i] = (int)(dls_rng_u32(5, 4, (uint64_t)i) % VOCABULARY);
    DLS_TRY(dls_device_alloc((void **)&device, 2 * MOST, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&room, MOST, DLS_F64, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(device, ids, sizeof ids, cudaMemcpyHostToDevice));
    dls_pipeline_batch b = {.tokens = device, .targets = device + c->m * 6,
                            .rows = c->m, .micro = 1, .loss_scale = 1.0 / (c->m * 6),
                            .losses = room};
    DLS_TRY(fill_and_step(p, &b, values, n));
    *again = p->validation.again;
    DLS_CUDA(cudaMemcpy(losses, room, (size_t)c->m * 6 * sizeof(double),
                        cudaMemcpyDeviceToHost));
    dls_pipeline_free(p);
    dls_schedule_free(&s);
    return DLS_OK;
}

/* test verdicts under way */
static dls_status prove_trust(int rank, void *arg)
{
    trust_case *c = arg;
    static double want[1 << 15], got[1 << 15];
    double losses[2][MOST];
    int n, m, again;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(pipeline_groups(comm, c->ranks, &c->pipe, &c->data));
    DLS_TRY(four_steps(c, 0, want, &n, losses[0], &again));
    DLS_TRY(four_steps(c, 1, got, &m, losses[1], &again));
    EXPECT(n == m && again == c->again, "%s: begun again %d times instead of %d",
           c->schedule, again, c->again);
    for (int i = 0; i < n; i++)
        EXPECT(fabs(got[i] - want[i]) <= 1e-12, "%s: value %d is %.17g instead of %.17g",
               c->schedule, i, got[i], want[i]);
    for (int i = 0; dls_comm_rank(c->pipe) == c->ranks - 1 && i < c->m * 6; i++)
        EXPECT(fabs(losses[0][i] - losses[1][i]) <= 1e-12, "%s: loss %d", c->schedule, i);
    return DLS_OK;
}

static void expect_trust(const char *schedule, int ranks, int chunks, int m, double clip,
                         int again)
{
    trust_case c = {schedule, ranks, chunks, m, clip, again, NULL, NULL};
    expect_ranks(ranks, prove_trust, &c);
}

Test(pipeline_validate, nobody_goes_back_when_nothing_is_clipped)
{
    expect_trust("1f1b", 3, 0, 6, 1e9, 0);
    expect_trust("zb-h2", 3, 0, 6, 0, 0);
}

Test(pipeline_validate, all_go_back_together_when_it_is)
{
    expect_trust("1f1b", 2, 0, 4, 0.1, 4);
    expect_trust("1f1b", 4, 0, 8, 0.1, 4);
    expect_trust("gpipe", 3, 0, 5, 0.1, 4);
    expect_trust("interleaved", 2, 2, 4, 0.1, 4);
    expect_trust("zb-h2", 3, 0, 6, 0.1, 4);
    expect_trust("zb-h1", 1, 0, 4, 0.1, 0);
}

/* tests/parallel/test_pipeline_async.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Asynchronous schedules against a single device that keeps all versions. */
#include "pipeline_layout.h"

#include "base/rng.h"
#include "parallel/pipeline/partition.h"

enum { MOST = 24, IDS = MOST * 6 };

/* write the rule by hand */
typedef struct async_case { const char *name; int ranks, m, every; } async_case;

static int rule(const async_case *c, int stage, int t)
{
    int n = c->ranks, late = strcmp(c->name, "pipedream") == 0 ? n - 1 - stage
        : strcmp(c->name, "pipedream-vertical") == 0 ? n - 1 : 1;
    int version = t / c->every - late;
    return version < 0 ? 0 : version;
}

/* play pipedream on one device */
typedef struct player {
    const async_case *c;
    const int *first;       // units of the stages
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *optimizer;
    double *history;        // (steps + 1, elements)
    double losses[IDS];
} player;

static int stage_of(const player *p, int unit)
{
    int s = 0;
    while (p->first[s + 1] <= unit)
        s++;
    return s;
}

/* Every stage's parameters of the version that the rule says. */
static dls_status put_patchwork(player *p, int t)
{
    const dls_params *set = &p->model->params;
    double values[set->elements];
    for (int i = 0; i < set->n; i++) {
        const dls_param *a = &set->items[i];
        int version = rule(p->c, stage_of(p, a->unit), t);
        memcpy(values + a->offset, p->history + version * set->elements + a->offset,
               a->count * sizeof *values);
    }
    return dls_params_put(&p->model->params, values);
}

static dls_status one_step(player *p, int step)
{
    dls_params *set = &p->model->params;
    size_t bytes = set->elements * sizeof(double);
    DLS_TRY(dls_params_put(set, p->history + step * set->elements));
    DLS_TRY(dls_optimizer_step(p->optimizer, 1.0 / 64, step + 1));
    DLS_TRY(dls_ctx_sync(&p->ctx));
    DLS_CUDA(cudaMemcpy(p->history + (step + 1) * set->elements, set->values, bytes,
                        cudaMemcpyDeviceToHost));
    return dls_params_zero_grads(set, &p->ctx);
}

static dls_status play(player *p, const int *ids, double scale)
{
    int T = p->model->config.context, m = p->c->m;
    for (int t = 0; t < m; t++) {
        DLS_TRY(put_patchwork(p, t));
        DLS_TRY(dls_transformer_forward(p->model, ids + t * T, ids + (m + t) * T, 1, T));
        DLS_CUDA(cudaMemcpyAsync(p->losses + t * T, dls_transformer_losses(p->model),
                                 T * sizeof(double), cudaMemcpyDeviceToHost,
                                 p->ctx.stream));
        DLS_TRY(dls_transformer_backward(p->model, scale, NULL));
        DLS_TRY(dls_ctx_sync(&p->ctx)); // before other weights are put
        if ((t + 1) % p->c->every == 0)
            DLS_TRY(one_step(p, t / p->c->every));
    }
    return DLS_OK;
}

static dls_status open_player(player *p, const dls_transformer_config *c,
                              const dls_adamw_options *w)
{
    DLS_TRY(dls_ctx_create(&p->ctx, 0, DLS_F64));
    DLS_TRY(dls_transformer_create(&p->model, &p->ctx, c, 1, c->context));
    dls_params *set = &p->model->params;
    DLS_TRY(dls_optimizer_create(&p->optimizer, &p->ctx, set, w));
    p->history = calloc((MOST + 1) * set->elements, sizeof(double));
    EXPECT(p->history, "no memory");
    dls_params_fill(set, 7, p->history);
    return dls_params_zero_grads(set, &p->ctx);
}

/* run pipedream on ranks */
typedef struct witness { const async_case *c; int wrong, asked; } witness;

static void note_version(void *to, const dls_action *a, int version)
{
    witness *w = to;
    w->asked++;
    w->wrong += version != rule(w->c, a->stage, a->microbatch);
}

/* The pipeline's step: m micro-batches of one row, with as many optimizer steps. */
static dls_status run_pipeline(dls_pipeline *p, const int *ids, double scale,
                               double *losses)
{
    int T = p->o.T, m = p->microbatches, rank = p->rank;
    void *device;
    DLS_TRY(dls_device_alloc(&device, IDS, DLS_F64, DLS_MEM_OTHER));
    dls_pipeline_batch b = {.tokens = ids, .targets = ids + m * T, .rows = m, .micro = 1,
                            .loss_scale = scale, .losses = device};
    double room[8192];
    dls_params *set = &p->stage[rank]->model->params;
    EXPECT(set->elements <= 8192, "a stage of %zu elements", set->elements);
    set->dtype = DLS_F64;
    dls_params_fill(set, 7, room);
    DLS_TRY(dls_pipeline_put(p, rank, room));
    DLS_TRY(dls_pipeline_step(p, &b, 1.0 / 64, 1));
    DLS_TRY(dls_ctx_sync(p->ctx));
    DLS_CUDA(cudaMemcpy(losses, device, (size_t)m * T * sizeof(double),
                        cudaMemcpyDeviceToHost));
    dls_device_free(device);
    return DLS_OK;
}

/* compare the two */
static int same(double a, double b)
{
    return fabs(a - b) <= 1e-10 * fabs(b) + 1e-12;
}

static dls_status compare(const player *one, dls_pipeline *p, const double *losses)
{
    const dls_params *set = &p->stage[p->rank]->model->params;
    int steps = one->c->m / one->c->every;
    for (int i = 0; i < set->n; i++) {
        const dls_param *a = &set->items[i];
        const dls_param *b = dls_params_find(&one->model->params, a->name);
        double got[a->count];
        const double *want = one->history + steps * one->model->params.elements
            + b->offset;
        DLS_CUDA(cudaMemcpy(got, a->value, sizeof got, cudaMemcpyDeviceToHost));
        for (size_t k = 0; k < a->count; k++)
            EXPECT(same(got[k], want[k]), "%s: %s[%zu] is %.17g instead of %.17g",
                   one->c->name, a->name, k, got[k], want[k]);
    }
    for (int i = 0; dls_pipeline_has_losses(p) && i < one->c->m * p->o.T; i++)
        EXPECT(same(losses[i], one->losses[i]), "%s: loss %d is %.17g instead of %.17g",
               one->c->name, i, losses[i], one->losses[i]);
    return DLS_OK;
}

/* test asynchronous schedules */
static dls_status make_ids(int m, int T, int **device)
{
    int ids[2 * IDS];
    for (int i = 0; i < 2 * m * T; i++)
        ids[i] = (int)(dls_rng_u32(5, 9, (uint64_t)i) % 13);
    DLS_TRY(dls_device_alloc((void **)device, 2 * IDS, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(*device, ids, sizeof ids, cudaMemcpyHostToDevice));
    return DLS_OK;
}

static dls_status prove_async(int rank, void *arg)
{
    const async_case *c = arg;
    pipeline_setup setup = {.schedule = c->name, .ranks = c->ranks, .microbatches = c->m,
                            .proof = {.untied = 1, .layers = 4}};
    dls_transformer_config config = layout_config(&setup.proof);
    dls_adamw_options w = {0.875, 0.96875, 1e-8, 0.125, 0};
    dls_comm *comm, *data;
    dls_schedule s;
    dls_pipeline *p;
    witness seen = {c, 0, 0};
    int first[c->ranks + 1], *ids;
    double losses[IDS], scale = 1.0 / (6 * c->every);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(dls_comm_split(comm, rank, 0, &data));
    DLS_TRY(pipeline_schedule(&setup, &s));
    DLS_TRY(pipeline_partition(&setup, config.layers, c->ranks, first));
    player one = {.c = c, .first = first};
    DLS_TRY(open_player(&one, &config, &w));
    DLS_TRY(make_ids(c->m, 6, &ids));
    DLS_TRY(play(&one, ids, scale));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = 6, .adamw = w, .observe = note_version,
                              .observer = &seen};
    DLS_TRY(dls_pipeline_create(&p, &one.ctx, comm, data, &o));
    DLS_TRY(run_pipeline(p, ids, scale, losses));
    DLS_TRY(compare(&one, p, losses));
    EXPECT(seen.asked == 2 * c->m && seen.wrong == 0, "%s: %d of %d versions are not the "
           "rule's", c->name, seen.wrong, seen.asked);
    dls_pipeline_free(p);
    dls_schedule_free(&s);
    return DLS_OK;
}

static void expect_async(const char *name, int ranks, int m, int every)
{
    async_case c = {name, ranks, m, every};
    expect_ranks(ranks, prove_async, &c);
}

Test(pipeline_async, pipedream_follows_its_rule)
{
    expect_async("pipedream", 1, 4, 1);
    expect_async("pipedream", 2, 7, 1);
    expect_async("pipedream", 3, 8, 1);
    expect_async("pipedream", 4, 10, 1);
    expect_async("pipedream", 4, 2, 1);
}

Test(pipeline_async, with_vertical_sync_all_stages_agree)
{
    expect_async("pipedream-vertical", 3, 8, 1);
    expect_async("pipedream-vertical", 2, 5, 1);
}

Test(pipeline_async, two_versions_are_one_step_late)
{
    expect_async("pipedream-2bw", 3, 12, 3);
    expect_async("pipedream-2bw", 2, 6, 2);
}

static dls_status refuse_tied(int rank, void *arg)
{
    pipeline_setup setup = {.schedule = "pipedream", .ranks = 2, .microbatches = 4};
    dls_transformer_config config = layout_config(&setup.proof);
    const int first[] = {0, 3, 5};
    dls_comm *comm;
    dls_schedule s;
    dls_pipeline *p = NULL;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(pipeline_schedule(&setup, &s));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .max_B = 1, .T = 6};
    EXPECT(dls_pipeline_create(&p, NULL, comm, comm, &o) == DLS_ERR_INPUT
           && strstr(dls_status_message(), "model.tied_head"), "not refused: %s",
           dls_status_message());
    dls_schedule_free(&s);
    return DLS_OK;
}

Test(pipeline_async, a_tied_table_can_not_step_alone)
{
    expect_ranks(2, refuse_tied, NULL);
}

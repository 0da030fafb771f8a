/* tests/parallel/test_ddp.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* DDP: the gradients of any world equal the single process's; overlap on the clock.
 * Model: h[l+1] = tanh(W[l] h[l] + b[l]), loss = sum of squares / (2 * global batch). */
#include "../comm/world.h"

#include "base/rng.h"
#include "data/sampler.h"
#include "parallel/data/ddp.h"

enum { LAYERS = 6, WIDTH = 24, BATCH = 13, PARAMS = 2 * LAYERS };
enum { ELEMENTS = LAYERS * (WIDTH * WIDTH + WIDTH) };

/* define the synthetic model */
typedef struct model {
    dls_ctx ctx;
    dls_param params[PARAMS];
    double *values, *grads;                 // (ELEMENTS)
    double h[LAYERS + 1][BATCH][WIDTH];     // activations
    double dh[BATCH][WIDTH];
    int rows;
    double layer_seconds;
} model;

/* One operation on the stream: a layer, forwards or backwards. */
typedef struct layer_call { model *m; int layer, backward; } layer_call;

static double *weight(double *flat, int layer)
{
    return flat + layer * (WIDTH * WIDTH + WIDTH);
}

/* compute the synthetic layers */
static void forward(model *m, int l)
{
    const double *W = weight(m->values, l), *b = W + WIDTH * WIDTH;
    for (int r = 0; r < m->rows; r++)
        for (int i = 0; i < WIDTH; i++) {
            double sum = b[i];
            for (int j = 0; j < WIDTH; j++)
                sum += W[i * WIDTH + j] * m->h[l][r][j];
            m->h[l + 1][r][i] = tanh(sum);
        }
}

static void backward(model *m, int l)
{
    const double *W = weight(m->values, l);
    double *dW = weight(m->grads, l), *db = dW + WIDTH * WIDTH, below[WIDTH];
    for (int r = 0; r < m->rows; r++) {
        memset(below, 0, sizeof below);
        for (int i = 0; i < WIDTH; i++) {
            double out = m->h[l + 1][r][i];
            double upstream = l == LAYERS - 1 ? out / BATCH : m->dh[r][i];
            double d = upstream * (1 - out * out);
            db[i] += d;
            for (int j = 0; j < WIDTH; j++) {
                dW[i * WIDTH + j] += d * m->h[l][r][j];
                below[j] += d * W[i * WIDTH + j];
            }
        }
        memcpy(m->dh[r], below, sizeof below);
    }
}

/* run the synthetic step */
static int layer_run(void *arg, double start, double *finish)
{
    layer_call *call = arg;
    if (call->backward)
        backward(call->m, call->layer);
    else
        forward(call->m, call->layer);
    *finish = start + call->m->layer_seconds;
    return 0;
}

static dls_status enqueue(model *m, int layer, int backward)
{
    dls_gpu_op op = {.name = backward ? "backward" : "forward", .kind = DLS_GPU_COMPUTE,
                     .run = layer_run, .destroy = free};
    layer_call *call = malloc(sizeof *call);
    EXPECT(call, "no memory");
    *call = (layer_call){m, layer, backward};
    DLS_CUDA(dls_gpu_enqueue(m->ctx.stream, &op, call));
    return DLS_OK;
}

/* Forward and backward over rows already in h[0]; hook may be NULL. */
static dls_status run_pass(model *m, const dls_grad_hook *hook)
{
    for (int l = 0; l < LAYERS; l++)
        DLS_TRY(enqueue(m, l, 0));
    for (int l = LAYERS - 1; l >= 0; l--) {
        DLS_TRY(enqueue(m, l, 1));
        for (int p = 2 * l + 1; hook && p >= 2 * l; p--)
            DLS_TRY(hook->fn(hook->self, p));
    }
    return DLS_OK;
}

/* build the synthetic model */
static dls_status load_rows(model *m, int first, int n)
{
    dls_sampler s;
    uint64_t offsets[BATCH];
    DLS_TRY(dls_sampler_init(&s, 9, 0, 5000, WIDTH, BATCH));
    DLS_TRY(dls_sampler_windows(&s, 4, first, n, offsets));
    m->rows = n;
    for (int r = 0; r < n; r++)
        for (int j = 0; j < WIDTH; j++)
            m->h[0][r][j] = dls_rng_normal(1, 2, offsets[r] + (uint64_t)j);
    return DLS_OK;
}

static dls_status build(model *m, int rank)
{
    memset(m, 0, sizeof *m);
    DLS_TRY(dls_ctx_create(&m->ctx, 0, DLS_F64));
    DLS_TRY(test_buffer(&m->values, ELEMENTS * sizeof(double)));
    DLS_TRY(test_buffer(&m->grads, ELEMENTS * sizeof(double)));
    memset(m->grads, 0, ELEMENTS * sizeof(double));
    for (int i = 0; i < ELEMENTS; i++)
        m->values[i] = 0.3 * dls_rng_normal(8, (uint64_t)rank, (uint64_t)i);
    size_t offset = 0;
    for (int p = 0; p < PARAMS; p++) {
        snprintf(m->params[p].name, DLS_PARAM_NAME, "layer.%d.%s", p / 2,
                 p % 2 ? "bias" : "weight");
        m->params[p].offset = offset;
        m->params[p].count = p % 2 ? WIDTH : WIDTH * WIDTH;
        offset += m->params[p].count;
    }
    return DLS_OK;
}

/* compare gradients across worlds */
static dls_status compare(dls_comm *comm, const model *reference, size_t bucket,
                          int passes)
{
    static model m;
    dls_ddp *ddp;
    dls_sampler s = {.batch = BATCH};
    int rank = dls_comm_rank(comm), first, n;
    DLS_TRY(build(&m, rank));
    DLS_TRY(dls_ddp_create(&ddp, &m.ctx, m.params, PARAMS, m.grads, comm,
                           &(dls_ddp_options)
                           {.bucket_bytes = bucket, .first_bucket_bytes = bucket / 4}));
    DLS_TRY(dls_ddp_broadcast(ddp, m.values, DLS_F64));
    dls_sampler_share(&s, rank, dls_comm_size(comm), &first, &n);
    dls_grad_hook hook = {ddp, dls_ddp_grad_ready};
    for (int p = 0; p < passes; p++) { // the rows of this share in `passes` micro-batches
        int from = n * p / passes, to = n * (p + 1) / passes;
        DLS_TRY(load_rows(&m, first + from, to - from));
        DLS_TRY(run_pass(&m, p == passes - 1 ? &hook : NULL));
        if (p < passes - 1)
            DLS_TRY(dls_ctx_sync(&m.ctx)); // h[0] is about to be overwritten
    }
    DLS_TRY(dls_ddp_finish(ddp));
    DLS_TRY(dls_ctx_sync(&m.ctx));
    for (int i = 0; i < ELEMENTS; i++)
        EXPECT(fabs(m.grads[i] - reference->grads[i]) <=
                   1e-12 * (1 + fabs(reference->grads[i])),
               "bucket %zu, %d passes: gradient %d is %.17g instead of %.17g", bucket,
               passes, i, m.grads[i], reference->grads[i]);
    dls_ddp_destroy(ddp);
    cudaFree(m.values);
    cudaFree(m.grads);
    dls_ctx_destroy(&m.ctx);
    return DLS_OK;
}

static dls_status compare_all(int rank, void *arg)
{
    (void)rank;
    static model reference;
    char seed[8];
    dls_comm *comm;
    snprintf(seed, sizeof seed, "%d", *(int *)arg); // another order of execution
    setenv("DLS_SEED", seed, 1);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(build(&reference, 0));
    DLS_TRY(load_rows(&reference, 0, BATCH));
    DLS_TRY(run_pass(&reference, NULL));
    DLS_TRY(dls_ctx_sync(&reference.ctx));
    const size_t buckets[] = {1, 5000, 20000, 1 << 20};
    for (int b = 0; b < 4; b++)
        for (int passes = 1; passes <= 3; passes++)
            DLS_TRY(compare(comm, &reference, buckets[b], passes));
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(parallel, ddp_gradients_equal_the_single_process)
{
    for (int n = 1; n <= 4; n++)
        for (int seed = 1; seed <= 5; seed++)
            expect_ranks(n, compare_all, &seed);
}

/* test the overlap */
static dls_status overlap(int rank, void *arg)
{
    static model m;
    world *w = arg;
    dls_comm *comm;
    dls_ddp *ddp;
    dls_ddp_times t;
    (void)rank;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(build(&m, 0));
    DLS_TRY(load_rows(&m, 0, 3));
    m.layer_seconds = 100e-6;
    const double layer = (WIDTH * WIDTH + WIDTH) * 8;
    for (int whole = 0; whole < 2; whole++) {
        size_t bytes = whole ? ELEMENTS * 8 : (size_t)layer;
        dls_ddp_options cut = {.bucket_bytes = bytes, .first_bucket_bytes = bytes};
        DLS_TRY(dls_ddp_create(&ddp, &m.ctx, m.params, PARAMS, m.grads, comm, &cut));
        EXPECT(dls_ddp_buckets(ddp) == (whole ? 1 : LAYERS), "buckets");
        DLS_TRY(run_pass(&m, &(dls_grad_hook){ddp, dls_ddp_grad_ready}));
        DLS_TRY(dls_ddp_finish(ddp));
        DLS_TRY(dls_ctx_sync(&m.ctx));
        DLS_TRY(dls_ddp_timing(ddp, &t));
        double one = 6 * (TEST_ALPHA + TEST_BETA * layer / 4);
        double all = 6 * (TEST_ALPHA + TEST_BETA * layer * LAYERS / 4);
        EXPECT(fabs(t.busy - (whole ? all : LAYERS * one)) < 2e-9, "busy %.9g", t.busy);
        EXPECT(fabs(t.exposed - (whole ? all : one)) < 2e-9, "exposed %.9g", t.exposed);
        EXPECT(fabs(t.hidden - (whole ? 0 : 5.0 / 6)) < 1e-3, "hidden %g", t.hidden);
        dls_ddp_destroy(ddp);
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(parallel, ddp_hides_all_but_the_last_bucket)
{
    world w = {4, test_cluster(1, 16)};
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1); // whose times are known
    expect_ranks(w.n, overlap, &w);
    unlink(w.cluster);
}

/* test misuse of ddp */
static dls_status disagree_on_buckets(int rank, void *arg)
{
    static model m;
    dls_comm *comm;
    dls_ddp *ddp;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(build(&m, 0));
    dls_ddp_options cut = {.bucket_bytes = rank == 1 ? 20000 : 5000,
                           .first_bucket_bytes = 1000};
    return dls_ddp_create(&ddp, &m.ctx, m.params, PARAMS, m.grads, comm, &cut);
}

Test(parallel, ddp_refuses_ranks_that_cut_differently)
{
    dls_status status = dls_run_ranks(3, disagree_on_buckets, NULL);
    cr_assert_eq(status, DLS_ERR_COMM, "%s", dls_status_message());
    cr_assert(strstr(dls_status_message(), "rank 1 has 12 (3600) in"), "%s",
              dls_status_message());
}

Test(parallel, ddp_names_what_was_not_reported_or_twice)
{
    static model m;
    dls_comm *comm;
    dls_ddp *ddp;
    dls_ddp_times t;
    cr_assert_eq(dls_comm_create(&comm, NULL), DLS_OK);
    cr_assert_eq(build(&m, 0), DLS_OK);
    cr_assert_eq(dls_ddp_create(&ddp, &m.ctx, m.params, PARAMS, m.grads, comm,
                                &(dls_ddp_options)
                           {.bucket_bytes = 1, .first_bucket_bytes = 1}), DLS_OK);
    cr_assert_eq(dls_ddp_timing(ddp, &t), DLS_ERR_STATE);
    for (int p = PARAMS - 1; p > 1; p--)
        cr_assert_eq(dls_ddp_grad_ready(ddp, p), DLS_OK);
    cr_assert_eq(dls_ddp_grad_ready(ddp, 7), DLS_ERR_STATE);
    cr_assert(strstr(dls_status_message(), "layer.3.bias was reported twice"));
    cr_assert_eq(dls_ddp_grad_ready(ddp, 12), DLS_ERR_INPUT);
    cr_assert_eq(dls_ddp_finish(ddp), DLS_ERR_STATE);
    cr_assert_str_eq(dls_status_message(), "2 of 12 gradients were not reported in this "
                                           "step, the first is layer.0.weight");
    dls_ddp_destroy(ddp);
    dls_comm_destroy(comm);
}

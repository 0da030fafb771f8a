/* tests/parallel/test_zero_laws.c: from chapters/04-data-parallelism-zero-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Memory to the byte, messages to the byte, time on the virtual clock. */
#include "zero_layout.h"

#include "tensor/bf16.h"

/* make a model to be weighed */
typedef struct scale_case {
    dls_dtype dtype;
    dls_zero_options zero;
    int tied, passes;
} scale_case;

typedef struct weighed {
    dls_ctx ctx;
    dls_transformer *model;
    dls_zero *zero;
    int *ids;
    char *losses;
    layout_rows rows;
} weighed;


static dls_status open_weighed(weighed *w, const scale_case *c, dls_comm *comm)
{
    dls_transformer_config config = dls_transformer_gpt2(16, 4, 3, 2, 8);
    config.unplaced = 1;
    config.tied_head = c->tied;
    DLS_TRY(dls_ctx_create(&w->ctx, 0, c->dtype));
    DLS_TRY(dls_transformer_create(&w->model, &w->ctx, &config, 1, 4));
    DLS_TRY(dls_zero_create(&w->zero, &w->ctx, &w->model->params, comm, &c->zero));
    dls_transformer_announce(w->model, dls_zero_units(w->zero));
    DLS_TRY(dls_device_alloc((void **)&w->ids, 16, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc((void **)&w->losses, 16, DLS_F64, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemset(w->ids, 0, 16 * sizeof *w->ids));
    w->rows = (layout_rows){.model = w->model, .tokens = w->ids, .targets = w->ids,
                            .rows = c->passes, .micro = 1, .T = 4, .passes = c->passes,
                            .loss_scale = 1, .losses = w->losses};
    return DLS_OK;
}

static void close_weighed(weighed *w)
{
    dls_zero_destroy(w->zero);
    dls_device_free(w->ids);
    dls_device_free(w->losses);
    dls_transformer_free(w->model);
    dls_ctx_destroy(&w->ctx);
}

/* weigh a stage */
static dls_status compare_bytes(const char *what, size_t is, size_t law)
{
    EXPECT(is == law, "%s: %zu bytes, the law says %zu", what, is, law);
    return DLS_OK;
}

/* The elements that a world keeps: the model's, and for each unit up to n - 1 more so
 * that all slices are alike. */
static dls_status padded_elements(const weighed *w, int stage, int n, size_t *out)
{
    size_t psi = w->model->params.elements, units = (size_t)dls_zero_slices(w->zero);
    *out = (stage ? (size_t)n : 1) * dls_zero_elements(w->zero);
    EXPECT(*out >= psi && *out - psi <= (size_t)(n - 1) * units, "%zu elements for %zu",
           *out, psi);
    EXPECT((n == 3 && stage > 0) || *out == psi, "%d ranks: %zu elements for %zu", n,
           *out, psi);
    return DLS_OK;
}

/* Bytes of parameter, gradient and state, cut from one stage on, for `psi` elements. */
static dls_status compare_with_law(const scale_case *c, const dls_gpu_memory *is,
                                   size_t psi, int n)
{
    int bf16 = c->dtype == DLS_BF16, stage = c->zero.stage;
    size_t p = bf16 ? 2 : 4, g = c->zero.narrow_gradients ? 2 : 4, s = bf16 ? 12 : 8;
    size_t N = (size_t)n, scalars = 3 * sizeof(double);
    DLS_TRY(compare_bytes("parameters by the law", is->peak[DLS_MEM_PARAMETERS],
                          psi * p / (stage >= 3 ? N : 1)));
    DLS_TRY(compare_bytes("gradients by the law", is->peak[DLS_MEM_GRADIENTS],
                          psi * g / (stage >= 2 ? N : 1)));
    return compare_bytes("optimizer by the law", is->peak[DLS_MEM_OPTIMIZER],
                         scalars + (c->zero.offload ? 0 : psi * s / (stage ? N : 1)));
}

static dls_status weigh(int rank, void *arg)
{
    const scale_case *c = arg;
    weighed w;
    dls_comm *comm;
    dls_gpu_memory is;
    dls_zero_sizes want;
    dls_zero_scratch scratch;
    size_t psi;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(open_weighed(&w, c, comm));
    DLS_TRY(dls_gpu_memory_stats(0, &is));
    size_t before = is.current[DLS_MEM_COMMUNICATION];
    DLS_TRY(zero_layout_step(w.zero, &w.rows, 0.01, 1));
    DLS_TRY(dls_zero_sync(w.zero));
    DLS_TRY(dls_gpu_memory_stats(0, &is));
    DLS_TRY(dls_zero_predict(w.model->params.items, w.model->params.n, c->dtype,
                             dls_comm_size(comm), &c->zero, &want));
    DLS_TRY(compare_bytes("parameters", is.peak[DLS_MEM_PARAMETERS], want.parameters));
    DLS_TRY(compare_bytes("gradients", is.peak[DLS_MEM_GRADIENTS], want.gradients));
    DLS_TRY(compare_bytes("optimizer", is.peak[DLS_MEM_OPTIMIZER], want.optimizer));
    int n = dls_comm_size(comm);
    (void)rank;
    DLS_TRY(dls_zero_predict_scratch(w.model->params.items, w.model->params.n, c->dtype,
                                     comm, &c->zero, &scratch));
    want.buffers += scratch.shard + scratch.copies + scratch.norm;
    DLS_TRY(compare_bytes("buffers at first", before, want.buffers));
    DLS_TRY(compare_bytes("buffers", is.peak[DLS_MEM_COMMUNICATION], want.buffers));
    DLS_TRY(padded_elements(&w, c->zero.stage, n, &psi));
    DLS_TRY(compare_with_law(c, &is, psi, n));
    close_weighed(&w);
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* test the memory law */
static void weigh_all(dls_dtype dtype, int narrow, int offload)
{
    for (int stage = 0; stage <= 3; stage++)
        for (int n = 1; n <= 4; n++) {
            scale_case c = {dtype, {.stage = stage, .prefetch = 1, .offload = offload,
                                    .narrow_gradients = narrow}, n % 2, 2};
            expect_ranks(n, weigh, &c);
        }
}

Test(zero, memory_is_the_law_in_f32) { weigh_all(DLS_F32, 0, 0); }
Test(zero, memory_is_the_law_in_bf16) { weigh_all(DLS_BF16, 0, 0); }
Test(zero, memory_is_sixteen_bytes_with_narrow_gradients) { weigh_all(DLS_BF16, 1, 0); }
Test(zero, memory_of_the_host_is_not_the_device_s) { weigh_all(DLS_BF16, 1, 1); }

/* count what is sent */
static dls_status count_sent(int rank, void *arg)
{
    const scale_case *c = arg;
    weighed w;
    dls_comm *comm;
    int n;
    (void)rank;
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    DLS_TRY(test_world(NULL, &comm));
    n = dls_comm_size(comm);
    DLS_TRY(open_weighed(&w, c, comm));
    uint64_t before = dls_comm_stats(comm).wire_bytes, all[n];
    DLS_TRY(zero_layout_step(w.zero, &w.rows, 0.01, 1));
    DLS_TRY(dls_zero_sync(w.zero));
    uint64_t mine = dls_comm_stats(comm).wire_bytes - before, sum = 0;
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, all));
    for (int i = 0; i < n; i++)
        sum += all[i];
    size_t psi, size = dls_dtype_size(c->dtype);
    DLS_TRY(padded_elements(&w, c->zero.stage, n, &psi));
    size_t halves = c->zero.stage == 3 ? 3 : 2; // of an all-reduce: 2 psi, or 3 psi
    if (c->zero.stage >= 2)
        halves += (size_t)c->passes - 1;        // each pass scatters
    if (c->zero.stage == 3)
        halves += 2 * ((size_t)c->passes - 1);  // and gathers, twice
    size_t norm = c->zero.stage == 0 ? 0 : 2 * (size_t)(n - 1) * sizeof(double);
    EXPECT(sum == halves * psi * size * (size_t)(n - 1) + norm,
           "stage %d: %zu bytes, the law says %zu and %zu", c->zero.stage, (size_t)sum,
           halves * psi * size * (size_t)(n - 1), norm);
    close_weighed(&w);
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* test the law of the wire */
Test(zero, two_psi_two_psi_two_psi_three_psi)
{
    for (int stage = 0; stage <= 3; stage++)
        for (int n = 1; n <= 4; n++)
            for (int passes = 1; passes <= 2; passes++) {
                scale_case c = {DLS_F32, {.stage = stage, .prefetch = 1}, 0, passes};
                expect_ranks(n, count_sent, &c);
            }
}

/* test that fetching ahead is faster */
static dls_status swift_world(dls_comm **comm)
{
    const char *path = test_cluster(1, 16);
    char text[4096], *at;
    FILE *f = fopen(path, "r+");
    EXPECT(f, "no cluster file");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    at = strstr(text, "launch_us: 1");
    EXPECT(at, "no launch_us in the cluster file");
    at[strlen("launch_us: ")] = '0';
    rewind(f);
    fputs(text, f);
    fclose(f);
    dls_status s = test_world(path, comm);
    unlink(path);
    return s;
}

static dls_status time_steps(int rank, void *arg)
{
    double seconds[2];
    dls_ddp_times t[2];
    dls_comm *comm;
    (void)rank, (void)arg;
    DLS_TRY(swift_world(&comm));
    for (int prefetch = 0; prefetch < 2; prefetch++) {
        scale_case c = {DLS_F32, {.stage = 3, .prefetch = prefetch}, 1, 1};
        weighed w;
        DLS_TRY(open_weighed(&w, &c, comm));
        DLS_TRY(dls_comm_barrier(comm));
        seconds[prefetch] = -dls_gpu_host_time();
        DLS_TRY(zero_layout_step(w.zero, &w.rows, 0.01, 1));
        DLS_TRY(dls_zero_sync(w.zero));
        seconds[prefetch] += dls_gpu_host_time();
        DLS_TRY(dls_zero_timing(w.zero, &t[prefetch]));
        close_weighed(&w);
    }
    EXPECT(seconds[1] < 0.95 * seconds[0], "%g s ahead, %g s late", seconds[1],
           seconds[0]);
    double mine[] = {seconds[0] - seconds[1], t[0].exposed - t[1].exposed};
    double all[8], won = 0;
    DLS_TRY(dls_comm_all_gather_host(comm, mine, sizeof mine, all));
    for (int i = 0; i < 8; i++)
        won += i % 2 ? -all[i] : all[i];
    EXPECT(mine[1] > 0 && t[1].exposed < 0.5 * t[1].busy && fabs(won) < 1e-5 * seconds[0],
           "%g s won, %g s hidden", mine[0], mine[1]);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(zero, fetching_ahead_is_faster)
{
    expect_ranks(4, time_steps, NULL);
}

/* test narrow gradients */
static dls_status fetch_gradients(const scale_case *c, dls_comm *comm, float *out,
                                  size_t *n)
{
    weighed w;
    dls_dtype type;
    DLS_TRY(open_weighed(&w, c, comm));
    size_t elements = w.model->params.elements;
    float *values = calloc(elements, sizeof *values);
    EXPECT(values && elements < 4096, "no room for %zu values", elements);
    dls_params_fill(&w.model->params, 3, values);
    DLS_TRY(dls_zero_start(w.zero, values));
    DLS_TRY(zero_layout_step(w.zero, &w.rows, 0.01, 1));
    DLS_TRY(dls_zero_sync(w.zero));
    *n = 0;
    for (int i = 0; i < dls_zero_slices(w.zero); i++) {
        size_t count = dls_zero_slice_at(w.zero, i).count;
        const void *from = dls_zero_gradient(w.zero, i, &type);
        dls_bfloat16 narrow[4096];
        DLS_CUDA(cudaMemcpy(type == DLS_BF16 ? (void *)narrow : out + *n, from,
                            count * dls_dtype_size(type), cudaMemcpyDeviceToHost));
        for (size_t k = 0; type == DLS_BF16 && k < count; k++)
            out[*n + k] = dls_widen_bf16(narrow[k]);
        *n += count;
    }
    free(values);
    close_weighed(&w);
    return DLS_OK;
}

static dls_status compare_narrow(int rank, void *arg)
{
    static float wide[4096], first[4096], mine[4096];
    size_t n, zeros = 0;
    dls_comm *comm;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    scale_case c = {DLS_BF16, {.stage = 1, .prefetch = 1}, 1, 1};
    DLS_TRY(fetch_gradients(&c, comm, wide, &n));
    c.zero.narrow_gradients = 1;
    for (c.zero.stage = 1; c.zero.stage <= 3; c.zero.stage++) {
        DLS_TRY(fetch_gradients(&c, comm, c.zero.stage == 1 ? first : mine, &n));
        for (size_t i = 0; i < n; i++) {
            EXPECT(c.zero.stage == 1 || mine[i] == first[i], "stage %d: %g, stage 1: %g",
                   c.zero.stage, mine[i], first[i]);
            EXPECT(fabsf(first[i] - wide[i]) <= ldexpf(fabsf(wide[i]), -8),
                   "%g narrow, %g wide", first[i], wide[i]);
            zeros += first[i] == 0;
        }
    }
    EXPECT(zeros < n, "%zu zeros in three times %zu gradients", zeros, n);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(zero, narrow_gradients_are_rounded_once)
{
    expect_ranks(2, compare_narrow, NULL);
}

/* test what zero refuses */
static dls_status create_with(int rank, void *arg)
{
    scale_case c = *(scale_case *)arg;
    weighed w;
    dls_comm *comm;
    if (c.passes == 2 && rank == 1)
        c.zero.stage = 2;
    DLS_TRY(test_world(NULL, &comm));
    return open_weighed(&w, &c, comm);
}

static void expect_refusal(int n, scale_case c, dls_status status, const char *words)
{
    cr_assert_eq(dls_run_ranks(n, create_with, &c), status, "%s", words);
    cr_assert(strstr(dls_status_message(), words), "%s", dls_status_message());
}

Test(zero, refuses_what_can_not_be)
{
    expect_refusal(1, (scale_case){.zero.stage = 4}, DLS_ERR_INPUT,
                   "stage 4 of ZeRO: expected 0 to 3");
    expect_refusal(3, (scale_case){.zero = {.stage = 1, .shard_size = 2}}, DLS_ERR_INPUT,
                   "shard_size 2: expected a divisor of the 3 ranks");
    expect_refusal(1, (scale_case){.zero = {.stage = 3, .prefetch = -1}}, DLS_ERR_INPUT,
                   "prefetch -1: expected 0 or more");
    expect_refusal(2, (scale_case){.zero = {.stage = 1, .narrow_gradients = 1}},
                   DLS_ERR_INPUT, "narrow_gradients: expected a model in bf16, not f32");
    expect_refusal(2, (scale_case){.zero.stage = 3, .passes = 2}, DLS_ERR_COMM,
                   "the ranks cut the model differently: rank 0 is in stage 3");
}

static dls_status create_shorter(int rank, void *arg)
{
    dls_transformer_config config = dls_transformer_gpt2(16, 4, 3, 2, 8);
    const dls_zero_options stage = {.stage = 3};
    dls_transformer *model;
    dls_comm *comm;
    dls_ctx ctx;
    dls_zero *zero;
    config.unplaced = 1;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    DLS_TRY(dls_transformer_create(&model, &ctx, &config, 1, 4));
    dls_param *last = &model->params.items[model->params.n - 1];
    last->count -= rank == 1 && !arg;
    last->frozen = arg != NULL;
    return dls_zero_create(&zero, &ctx, &model->params, comm, &stage);
}

Test(zero, refuses_a_last_parameter_that_differs_or_is_frozen)
{
    cr_assert_eq(dls_run_ranks(2, create_shorter, NULL), DLS_ERR_COMM);
    cr_assert(strstr(dls_status_message(), "the ranks cut the model differently"), "%s",
              dls_status_message());
    cr_assert_eq(dls_run_ranks(2, create_shorter, "frozen"), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), " is frozen: expected all parameters to "));
}

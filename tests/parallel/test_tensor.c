/* tests/parallel/test_tensor.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole models cut over 1, 2, 3, 4 ranks: losses, gradients, communication. */
#include "tensor_model.h"

#include "model/hf.h"

/* compare a cut model */
static void everywhere(tensor_case c, int from, int to)
{
    int H = c.heads ? c.heads : 6, Hk = c.kv_heads ? c.kv_heads : H;
    c.dtype = DLS_F64;
    for (int t = from; t <= to; t++)
        if (H % t == 0 && (Hk % t == 0 || t % Hk == 0))
            expect_ranks(t, tensor_prove, &c);
}

/* test cut models */
#define C(...) (tensor_case){__VA_ARGS__}

Test(tensor_parallel, gpt2) { everywhere(C(0), 1, 6); }
Test(tensor_parallel, gpt2_untied) { everywhere(C(.untied = 1), 2, 3); }
Test(tensor_parallel, four_ranks)
{
    everywhere(C(.heads = 4), 4, 4);
    everywhere(C(.llama = 1, .heads = 4, .kv_heads = 2, .dropout = 0.25), 4, 4);
}

Test(tensor_parallel, llama) { everywhere(C(.llama = 1), 1, 3); }
Test(tensor_parallel, llama_tied) { everywhere(C(.llama = 1, .untied = 0), 2, 2); }
Test(tensor_parallel, uneven_columns) { everywhere(C(.heads = 4, .hidden = 7), 2, 4); }

Test(tensor_parallel, fewer_keys_and_values)
{
    everywhere(C(.llama = 1, .untied = 1, .kv_heads = 2), 2, 6);
    everywhere(C(.llama = 1, .untied = 1, .kv_heads = 3), 3, 6);
    everywhere(C(.llama = 1, .untied = 1, .heads = 4, .kv_heads = 1), 2, 4);
}

Test(tensor_parallel, dropout)
{
    everywhere(C(.dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .dropout = 0.25), 2, 6);
}

Test(tensor_parallel, recomputation)
{
    everywhere(C(.recompute = DLS_RECOMPUTE_SELECTIVE, .dropout = 0.25), 2, 3);
    everywhere(C(.recompute = DLS_RECOMPUTE_FULL, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .recompute = DLS_RECOMPUTE_SELECTIVE), 2, 2);
    everywhere(C(.llama = 1, .recompute = DLS_RECOMPUTE_FULL), 2, 2);
}

Test(tensor_parallel, split_backward)
{
    everywhere(C(.split = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .split = 1), 2, 6);
    everywhere(C(.split = 1, .recompute = DLS_RECOMPUTE_FULL), 2, 2);
}

Test(tensor_parallel, slices_of_rows)
{
    everywhere(C(.sequence = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.sequence = 1, .untied = 1, .recompute = DLS_RECOMPUTE_SELECTIVE), 2, 3);
    everywhere(C(.sequence = 1, .recompute = DLS_RECOMPUTE_FULL, .dropout = 0.25), 2, 2);
    everywhere(C(.sequence = 1, .split = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .sequence = 1, .dropout = 0.25), 2, 6);
}

/* notice sabotage */
enum { LOCAL_HEADS, DROP_APART, SHARES_NOT_SUMMED, WRONG_BAND };

typedef struct sabotage { tensor_case c; int how; } sabotage;

static void spoil(tensor_side *s, int how, int rank)
{
    if (how == DROP_APART)
        s->model->pass.seed += (uint64_t)rank;
    if (how == SHARES_NOT_SUMMED) {
        dls_comm_destroy(s->axes.kv);
        s->axes.kv = NULL;
    }
    for (dls_layer *l = s->model->build.all; l; l = l->next) {
        if (how == LOCAL_HEADS && strcmp(l->kind->name, "attention") == 0)
            l->first = 0;
        if (how == WRONG_BAND && strcmp(l->kind->name, "embedding") == 0)
            l->first += rank;
    }
}

static dls_status expect_difference(int rank, void *arg)
{
    sabotage *a = arg;
    tensor_side whole, cut;
    dls_comm *comm;
    a->c.dtype = DLS_F64;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(tensor_open(&whole, &a->c, NULL));
    DLS_TRY(tensor_open(&cut, &a->c, comm));
    spoil(&cut, a->how, rank);
    tensor_side *const sides[] = {&whole, &cut};
    for (int i = 0; i < 2; i++) {
        DLS_TRY(tensor_forward(sides[i], &a->c));
        DLS_TRY(tensor_backward(sides[i], &a->c));
    }
    EXPECT(tensor_compare(&cut, &whole, 1e-10, 1e-12) != DLS_OK, "sabotage %d passes",
           a->how);
    tensor_close(&cut);
    tensor_close(&whole);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, sabotage_is_noticed)
{
    sabotage all[] = {{C(.dropout = 0.25), LOCAL_HEADS}, {C(.dropout = 0.25), DROP_APART},
                      {C(.llama = 1, .kv_heads = 1), SHARES_NOT_SUMMED},
                      {C(0), WRONG_BAND}};
    for (int i = 0; i < 4; i++)
        expect_ranks(2, expect_difference, &all[i]);
}

/* keep the precision */
static dls_status compare_errors(int rank, void *arg)
{
    const tensor_case *c = arg;
    tensor_case exact = *c;
    tensor_side truth, whole, cut;
    double error[2];
    dls_comm *comm;
    (void)rank;
    exact.dtype = DLS_F64;
    exact.sequence = 0;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(tensor_open(&truth, &exact, NULL));
    DLS_TRY(tensor_open(&whole, c, NULL));
    DLS_TRY(tensor_open(&cut, c, comm));
    tensor_side *const sides[] = {&truth, &whole, &cut};
    for (int i = 0; i < 3; i++) {
        DLS_TRY(tensor_forward(sides[i], i ? c : &exact));
        DLS_TRY(tensor_backward(sides[i], i ? c : &exact));
    }
    DLS_TRY(tensor_distance(&whole, &truth, &error[0]));
    DLS_TRY(tensor_distance(&cut, &truth, &error[1]));
    EXPECT(error[0] > 0 && error[1] <= 4 * error[0], "%g instead of %g", error[1],
           error[0]);
    for (int i = 0; i < 3; i++)
        tensor_close(sides[i]);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static void no_worse(dls_dtype dtype)
{
    for (int sequence = 0; sequence < 2; sequence++)
        for (int t = 2; t <= 3; t++) {
            tensor_case gpt2 = {.dtype = dtype, .sequence = sequence};
            tensor_case llama = {.dtype = dtype, .sequence = sequence, .llama = 1};
            expect_ranks(t, compare_errors, &gpt2);
            expect_ranks(t, compare_errors, &llama);
        }
}

Test(tensor_parallel, f32_is_no_worse) { no_worse(DLS_F32); }
Test(tensor_parallel, bf16_is_no_worse) { no_worse(DLS_BF16); }

/* count the collectives */
typedef struct traffic { uint64_t operations, steps, bytes; } traffic;

static dls_status traffic_since(dls_comm *comm, traffic *t)
{
    dls_comm_statistics s = dls_comm_stats(comm);
    uint64_t all[dls_comm_size(comm)];
    DLS_TRY(dls_comm_all_gather_host(comm, &s.wire_bytes, sizeof *all, all));
    *t = (traffic){s.operations - t->operations, s.steps - t->steps, 0 - t->bytes};
    for (int i = 0; i < dls_comm_size(comm); i++)
        t->bytes += all[i];
    return DLS_OK;
}

static dls_status expect_traffic(dls_comm *comm, traffic before, const char *what,
                                 uint64_t operations, uint64_t elements)
{
    uint64_t ways = 2 * ((uint64_t)dls_comm_size(comm) - 1);
    DLS_TRY(traffic_since(comm, &before));
    EXPECT(before.operations == operations && before.steps == ways * operations,
           "%s: %d operations in %d steps", what, (int)before.operations,
           (int)before.steps);
    EXPECT(before.bytes == ways * elements * sizeof(double), "%s: %zu bytes sent", what,
           (size_t)before.bytes);
    return DLS_OK;
}

static dls_status count(int rank, void *arg)
{
    const tensor_case *c = arg;
    dls_comm_options ring = {.algorithm = "all_reduce:ring"};
    uint64_t wide = TM_N * 24, L = 2, again = c->recompute == DLS_RECOMPUTE_FULL ? L : 0;
    tensor_side s;
    dls_comm *comm;
    traffic now = {0};
    (void)rank;
    DLS_TRY(dls_gpu_init(NULL));
    DLS_TRY(dls_comm_create(&comm, &ring));
    DLS_TRY(tensor_open(&s, c, comm));
    DLS_TRY(traffic_since(comm, &now));
    DLS_TRY(tensor_forward(&s, c));
    DLS_TRY(expect_traffic(comm, now, "forward", 2 * L + 1 + 3,
                           (2 * L + 1) * wide + 3 * TM_N));
    now = (traffic){0};
    DLS_TRY(traffic_since(comm, &now));
    DLS_TRY(tensor_backward(&s, c));
    DLS_TRY(expect_traffic(comm, now, "backward", 2 * L + 1 + again,
                           (2 * L + 1 + again) * wide));
    tensor_close(&s);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, two_sums_a_block_each_way)
{
    tensor_case gpt2 = {.dtype = DLS_F64}, llama = {.dtype = DLS_F64, .llama = 1};
    tensor_case again = {.dtype = DLS_F64, .recompute = DLS_RECOMPUTE_FULL};
    for (int t = 2; t <= 3; t++) {
        expect_ranks(t, count, &gpt2);
        expect_ranks(t, count, &llama);
        expect_ranks(t, count, &again);
    }
}

/* predict the memory of a part */
static dls_status weigh(int rank, void *arg)
{
    const tensor_case *c = arg;
    dls_gpu_memory before, after;
    dls_transformer_memory says;
    tensor_side s;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(dls_gpu_memory_stats(0, &before));
    DLS_TRY(tensor_open(&s, c, comm));
    DLS_TRY(dls_gpu_memory_stats(0, &after));
    DLS_TRY(dls_transformer_predict_memory(&s.model->config, TM_B, TM_T, c->dtype,
                                           &says));
    size_t all[] = {says.parameters, says.gradients, says.activations};
    const dls_memory_purpose of[] = {DLS_MEM_PARAMETERS, DLS_MEM_GRADIENTS,
                                     DLS_MEM_ACTIVATIONS};
    for (int i = 0; i < 3; i++)
        EXPECT(after.current[of[i]] - before.current[of[i]] == all[i], "%s: %zu bytes "
               "instead of %zu", dls_memory_purpose_name(of[i]),
               after.current[of[i]] - before.current[of[i]], all[i]);
    tensor_close(&s);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, the_memory_of_a_part_is_predicted)
{
    for (int i = 0; i < 4; i++) {
        tensor_case c = {.dtype = i % 2 ? DLS_BF16 : DLS_F64, .llama = i / 2,
                         .sequence = i % 2};
        expect_ranks(3, weigh, &c);
    }
}

/* refuse what can not be cut over ranks */
static void expect_refusal(int heads, int kv_heads, int hidden, int t, const char *says)
{
    dls_transformer_config c = dls_transformer_llama(23, 4, 1, heads, kv_heads,
                                                     4 * heads, hidden);
    c.sharding = (dls_sharding){.tensor = t};
    cr_assert_eq(dls_transformer_config_check(&c), says ? DLS_ERR_INPUT : DLS_OK,
                 "%d heads, %d", heads, kv_heads);
    if (says)
        cr_assert_str_eq(dls_status_message(), says);
}

Test(tensor_parallel, what_can_not_be_cut_is_refused)
{
    expect_refusal(4, 4, 9, 3, "model.heads: expected a multiple of the 3 tensor ranks, "
                               "got 4; the nearest is 3");
    expect_refusal(5, 5, 9, 3, "model.heads: expected a multiple of the 3 tensor ranks, "
                               "got 5; the nearest is 6");
    expect_refusal(2, 1, 9, 8, "model.heads: expected a multiple of the 8 tensor ranks, "
                               "got 2; the nearest is 8");
    expect_refusal(12, 4, 9, 6, "model.kv_heads: expected a multiple or a divisor of the "
                                "6 tensor ranks, got 4; the nearest is 3");
    expect_refusal(6, 2, 9, 3, "model.kv_heads: expected a multiple or a divisor of the "
                               "3 tensor ranks, got 2; the nearest is 1");
    expect_refusal(4, 2, 3, 4, "model.hidden: expected 4 to 1048576, got 3");
    expect_refusal(12, 3, 9, 6, NULL);
    expect_refusal(24, 24, 24, 24, "model.vocabulary: expected 24 to 1048576, got 23");
}

static dls_status expect_message(dls_status got, dls_status want, const char *says)
{
    EXPECT(got == want && strcmp(dls_status_message(), says) == 0, "%d: %s", (int)got,
           dls_status_message());
    return DLS_OK;
}

static dls_status refuse_passes(int rank, void *arg)
{
    tensor_case c = {.dtype = DLS_F64, .sequence = 1};
    tensor_side s;
    dls_comm *comm;
    double out[TM_V];
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(tensor_open(&s, &c, comm));
    DLS_TRY(expect_message(dls_transformer_forward(s.model, s.ids, NULL, 1, 3),
        DLS_ERR_INPUT, "micro-batch 1 x 3: expected rows for 2 slices, got 3; the "
        "nearest number is 4"));
    DLS_TRY(expect_message(dls_transformer_logits(s.model, s.ids, 4, out), DLS_ERR_STATE,
        "the scores of a model cut over 2 tensor ranks are in as many parts; expected a "
        "whole model"));
    DLS_TRY(expect_message(dls_hf_load("nowhere", &s.model->config, &s.model->params),
        DLS_ERR_STATE, "this is one of 2 parts of a model; expected a whole one"));
    dls_axes none;
    s.model->config.sharding.tensor = 3;
    DLS_TRY(expect_message(dls_axes_open(&none, &s.model->config.sharding, 6, comm, NULL),
        DLS_ERR_INPUT, rank ? "the tensor axis: expected rank 1 of 3, got rank 1 of 2"
                            : "the tensor axis: expected rank 0 of 3, got rank 0 of 2"));
    dls_transformer_connect(s.model, NULL);
    DLS_TRY(expect_message(dls_transformer_forward(s.model, s.ids, NULL, 1, 4),
        DLS_ERR_STATE, "a model cut over ranks runs without their communicator: see "
        "dls_transformer_connect"));
    tensor_close(&s);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, impossible_passes_are_refused)
{
    expect_ranks(2, refuse_passes, NULL);
}

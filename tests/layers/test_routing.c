/* tests/layers/test_routing.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Routers over ranks equal one that has all rows; what can not be; bad scores. */
#include "route_rig.h"

#include "layers/dispatch.h"

/* compare routed rows */
static dls_status expect_close(double got, double want, const char *what, int i)
{
    EXPECT(fabs(got - want) <= 1e-13 * (1 + fabs(want)), "%s %d: %.17g, expected %.17g",
           what, i, got, want);
    return DLS_OK;
}

static dls_status compare_rows(const routed_rows *got, const routed_rows *whole)
{
    for (int i = 0; i < got->n; i++) {
        int row = got->row[i];
        for (int j = 0; j < ROUTE_K; j++) {
            int a = i * ROUTE_K + j, b = row * ROUTE_K + j;
            EXPECT(got->index[a] == whole->index[b], "row %d chose %d, not %d", row,
                   got->index[a], whole->index[b]);
            EXPECT(got->kept[a] == whole->kept[b], "row %d: kept %d", row, got->kept[a]);
            DLS_TRY(expect_close(got->weight[a], whole->weight[b], "weight of row", row));
        }
        for (int j = 0; j < ROUTE_C; j++)
            DLS_TRY(expect_close(got->dx[i * ROUTE_C + j], whole->dx[row * ROUTE_C + j],
                                 "dx of row", row));
    }
    return DLS_OK;
}

/* The sum over all ranks of mine (n) is want. */
static dls_status compare_sums(dls_comm *world, const double *mine, const double *want,
                               int n, const char *what)
{
    int ranks = dls_comm_size(world);
    double all[ranks * n];
    DLS_TRY(dls_comm_all_gather_host(world, mine, n * sizeof *mine, all));
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < ranks; r++)
            sum += all[r * n + i];
        DLS_TRY(expect_close(sum, want[i], what, i));
    }
    return DLS_OK;
}
/* test layouts of a router */
static dls_status run_layout(int rank, void *arg)
{
    const route_layout *l = arg;
    dls_comm *world, *tensor = NULL, *context = NULL;
    dls_axes axes;
    dls_sharding s = {.tensor = l->tp, .tensor_rank = rank % l->tp, .context = l->cp,
                      .context_rank = rank / l->tp % l->cp};
    static routed_rows whole, own;
    DLS_TRY(test_world(NULL, &world));
    if (l->tp > 1)
        DLS_TRY(dls_comm_split(world, rank / l->tp, rank, &tensor));
    if (l->cp > 1)
        DLS_TRY(dls_comm_split(world, rank % l->tp + l->tp * (rank / l->tp / l->cp), rank,
                               &context));
    DLS_TRY(dls_axes_open(&axes, &s, 4, tensor, context));
    axes.rows = world;
    DLS_TRY(route_rows(l, NULL, 0, 4, &whole));
    DLS_TRY(route_rows(l, &axes, rank, 4, &own));
    DLS_TRY(compare_rows(&own, &whole));
    DLS_TRY(compare_sums(world, own.dweight, whole.dweight, ROUTE_E * ROUTE_C, "dWr"));
    DLS_TRY(compare_sums(world, own.tally, whole.tally, 2 * ROUTE_E + DLS_TALLY_SUMS,
                         "tally"));
    EXPECT(whole.tally[2 * ROUTE_E] == 24, "%g tokens", whole.tally[2 * ROUTE_E]);
    dls_axes_close(&axes);
    dls_comm_destroy(tensor);
    dls_comm_destroy(context);
    dls_comm_destroy(world);
    return DLS_OK;
}
#define ROUTING_TEST(tp, cp, dp, gate_, capacity_)                              \
    Test(routing, over_##tp##x##cp##x##dp##_##gate_)                            \
    {                                                                           \
        route_layout l = {tp, cp, dp, {.experts = ROUTE_E, .chosen = ROUTE_K,   \
                          .gate = DLS_GATE_##gate_, .capacity = capacity_,      \
                          .normalised = 1, .aux_batch = 0.3, .aux_sequence = 0.2, \
                          .z_loss = 0.1}};                                      \
        expect_ranks(tp * cp * dp, run_layout, &l);                             \
    }
ROUTING_TEST(1, 1, 2, SOFTMAX, 0.8)
ROUTING_TEST(3, 1, 1, SOFTMAX, 0.8)
ROUTING_TEST(5, 1, 1, SIGMOID, 0.5)
ROUTING_TEST(1, 2, 1, SIGMOID, 0)
ROUTING_TEST(2, 3, 1, SOFTMAX, 0)
ROUTING_TEST(3, 1, 2, SIGMOID, 0.8)
ROUTING_TEST(2, 2, 2, SOFTMAX, 0)
/* test the scale of the losses */
Test(routing, losses_follow_the_scale_of_the_pass)
{
    static routed_rows a, b;
    route_layout l = {1, 1, 1, {.experts = ROUTE_E, .chosen = ROUTE_K, .aux_batch = 0.3,
                                .aux_sequence = 0.2, .z_loss = 0.1}, 0.5};
    double size = 0;
    cr_assert_eq(route_rows(&l, NULL, 0, 4, &a), DLS_OK);
    l.losses_only = 1;
    cr_assert_eq(route_rows(&l, NULL, 0, 4, &b), DLS_OK);
    for (int i = 0; i < ROUTE_E * ROUTE_C; i++) {
        cr_expect_eq(b.dweight[i], 2 * a.dweight[i]);
        size += fabs(a.dweight[i]);
    }
    cr_expect_gt(size, 0.1);
    for (int i = 0; i < b.n * ROUTE_C; i++)
        cr_expect_eq(b.dx[i], 2 * a.dx[i]);
}
/* test refused routings */
static void expect_refused(dls_moe m, int context, const char *words)
{
    dls_sharding s = {.context = context};
    cr_expect_eq(dls_routing_check(&s, &m), DLS_ERR_INPUT, "%s", words);
    cr_expect(strstr(dls_status_message(), words), "\"%s\" not in \"%s\"", words,
              dls_status_message());
}

Test(routing, refusals)
{
    const dls_moe m = {.experts = 8, .chosen = 2};
    dls_moe x = m;
    cr_expect_eq(dls_routing_check(NULL, &m), DLS_OK);
    x.capacity = 1.25;
    expect_refused(x, 2, "capacity: expected 0 with sequences over 2 context ranks");
    x.capacity = -1;
    expect_refused(x, 1, "capacity: expected 0 (all rows) or more, got -1");
    x.capacity = NAN;
    expect_refused(x, 1, "capacity: expected 0 (all rows) or more");
    x = m;
    x.padded = 1;
    expect_refused(x, 1, "padded: expected a capacity to pad to, got 0");
    x.capacity = x.balanced = 1;
    expect_refused(x, 1, "balanced: expected capacity 0, got 1");
    x = m;
    x.chosen = 9;
    expect_refused(x, 1, "chosen: expected 1 to 8, the experts, got 9");
}
/* test known counts */
Test(routing, knows_balanced_counts)
{
    for (int E = 1; E < 8; E++)
        for (int k = 1; k <= E; k++)
            for (int n = 0; n < 7; n++)
                for (int first = 0; first < 6; first++) {
                    dls_routing r = {.moe = {.experts = E, .chosen = k, .balanced = 1}};
                    int counts[8], want[8] = {0};
                    for (int i = first; i < first + n; i++)
                        for (int j = 0; j < k; j++)
                            want[(i * k + j) % E]++;
                    cr_assert_eq(dls_routing_known(&r, n, first, counts), counts);
                    for (int e = 0; e < E; e++)
                        cr_assert_eq(counts[e], want[e]);
                    r.moe.balanced = 0;
                    cr_assert_null(dls_routing_known(&r, n, first, counts));
                }
}
/* test a fault on all ranks */
static dls_status meet_fault(int rank, void *arg)
{
    dls_comm *world;
    dls_axes axes = {0};
    dls_sharding s = {.expert = 3, .expert_rank = rank};
    dls_moe m = {.experts = 6, .chosen = 2};
    dls_plan plan = {.max_B = 1, .max_T = 8, .dtype = DLS_F32};
    dls_dispatch d;
    dls_ctx ctx;
    int *counts;
    void *memory;
    (void)arg;
    DLS_TRY(test_world(NULL, &world));
    DLS_TRY(dls_axes_open(&axes, &s, 1, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&axes, world, NULL, world));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    dls_dispatch_plan(&d, &plan, &s, &m, 8, 8, 4);
    DLS_TRY(test_buffer(&memory, dls_plan_bytes(&plan)));
    DLS_TRY(test_buffer(&counts, 6 * sizeof *counts));
    memset(counts, 0, 6 * sizeof *counts);
    counts[0] = rank == 1 ? -1 - 5 : 2;
    dls_pass p = {.ctx = &ctx, .axes = &axes, .B = 1, .T = 8,
                  .host = malloc(plan.host)};
    dls_pass_regions(&p, &plan, memory);
    dls_status status = dls_dispatch_count(&p, &d, counts, NULL);
    EXPECT(status == DLS_ERR_STATE, "status %d", status);
    EXPECT(strcmp(dls_status_message(), "the router's scores of token 5 of rank 1 of the "
                  "expert group are not finite numbers") == 0, "%s",
           dls_status_message());
    free(p.host);
    dls_ctx_destroy(&ctx);
    dls_axes_close(&axes);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(routing, a_fault_is_known_to_all)
{
    expect_ranks(3, meet_fault, NULL);
}
/* test reading a balance */
Test(routing, reads_a_balance)
{
    dls_ctx ctx;
    dls_balance b;
    dls_load load;
    double chosen[3], dropped[3];
    static const float tally[2][6 + DLS_TALLY_SUMS] = {
        {0}, {6, 3, 0, 1, 0, 0, 4, 8, 6, 10, 2}};
    cr_assert_eq(dls_ctx_create(&ctx, 0, DLS_BF16), DLS_OK);
    cr_assert_eq(dls_balance_open(&b, &ctx, 2, 3), DLS_OK);
    cr_assert_eq(dls_ctx_sync(&ctx), DLS_OK);
    cudaMemcpy(b.tally, tally, sizeof tally, cudaMemcpyHostToDevice);
    cr_assert_eq(dls_balance_read(&b, 1, &load, chosen, dropped), DLS_OK);
    double got[] = {load.experts, load.tokens, load.rows, load.most, load.least,
                    load.violation, load.dropped, load.batch, load.sequence, load.z,
                    load.entropy, chosen[0], chosen[2], dropped[0], dropped[1]};
    double want[] = {3, 4, 9, 2, 0, 1, 1 / 9.0, 2, 1.5, 2.5, 0.5, 6, 0, 1, 0};
    for (int i = 0; i < 15; i++)
        cr_expect_eq(got[i], want[i], "%d: %g, expected %g", i, got[i], want[i]);
    cr_assert_eq(dls_balance_step(&b, 0.125), DLS_OK);
    float bias[6];
    static const float after[6] = {0, 0, 0, -0.125f, 0, 0.125f};
    cr_assert_eq(dls_ctx_sync(&ctx), DLS_OK);
    cudaMemcpy(bias, b.bias, sizeof bias, cudaMemcpyDeviceToHost);
    cr_expect_arr_eq(bias, after, sizeof bias);
    cr_assert_eq(dls_balance_read(&b, 0, &load, NULL, NULL), DLS_OK);
    cr_expect_eq(load.most, 0);
    cr_expect_eq(dls_balance_read(&b, 2, &load, NULL, NULL), DLS_ERR_STATE);
    dls_balance_close(&b);
    dls_ctx_destroy(&ctx);
}

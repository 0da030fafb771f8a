/* tests/layers/test_context.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Context parallelism against the definition of attention. */
#include "context_case.h"

#include "../comm/world.h"
#include "layers/token_order.h"
#include "parallel/context/laws.h"
#include "tensor/bf16.h"

/* run every case of a world */
static const int packed[] = {5, 1, 12, 3, 0, 8};

static dls_status run_orders(dls_axes *axes, context_case c)
{
    int n = axes->sharding.context, u = c.way == DLS_CONTEXT_ULYSSES ? n : c.ulysses;
    double worst;
    for (int order = 0; order < DLS_TOKEN_ORDERS; order++)
        for (c.causal = 0; c.causal <= 1; c.causal++) {
            c.order = (dls_token_order)order;
            if (c.order == DLS_TOKENS_STRIPED && u > 1 && u < n)
                continue;
            DLS_TRY(case_compare(&c, axes, &worst));
        }
    return DLS_OK;
}

static dls_status run_lengths(dls_axes *axes, context_case c)
{
    static const int lengths[] = {16, 13, 3};
    for (c.exact = 0; c.exact <= 1; c.exact++) {
        c.dtype = c.exact ? DLS_F32 : DLS_F64;
        c.allowed = c.exact ? 0 : 1e-10;
        c.lengths = NULL;
        c.B = 2;
        for (int i = 0; i < 3; i++) {
            c.T = lengths[i];
            DLS_TRY(run_orders(axes, c));
        }
        c.lengths = packed;
        c.B = 6;
        DLS_TRY(run_orders(axes, c));
    }
    return DLS_OK;
}

static dls_status run_way(dls_comm *comm, context_case c)
{
    dls_axes axes;
    dls_sharding by = {.context = dls_comm_size(comm), .way = c.way,
                       .context_rank = dls_comm_rank(comm), .ulysses = c.ulysses};
    DLS_TRY(dls_axes_open(&axes, &by, c.Hk, NULL, comm));
    dls_status s = run_lengths(&axes, c);
    dls_axes_close(&axes);
    return s;
}

// Eight query heads; two of keys, so that groups of four and eight repeat them.
static dls_status run_world(int rank, void *arg)
{
    int n = *(int *)arg;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    context_case c = {.H = n == 3 ? 6 : 8, .Hk = n == 3 ? 3 : 2, .D = 4};
    for (int way = DLS_CONTEXT_RING; way <= DLS_CONTEXT_GATHER; way++) {
        c.way = (dls_context_way)way;
        DLS_TRY(run_way(comm, c));
    }
    c.ulysses = 2;
    for (int way = 0; n > 2 && n % 2 == 0 && way <= DLS_CONTEXT_GATHER; way += 2) {
        c.way = (dls_context_way)way;
        DLS_TRY(run_way(comm, c));
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

#define CONTEXT_TEST(n)                             \
    Test(context, equals_the_definition_on_##n##_ranks) \
    {                                               \
        int ranks = n;                              \
        expect_ranks(ranks, run_world, &ranks);     \
    }
CONTEXT_TEST(1)
CONTEXT_TEST(2)
CONTEXT_TEST(3)
CONTEXT_TEST(4)
CONTEXT_TEST(8)

static dls_status run_sizes(int rank, void *arg)
{
    static const int sizes[] = {1, 5, 64, 80, 128, 256};
    context_case c = {.B = 1, .T = 13, .H = 4, .Hk = 2, .causal = 1, .dtype = DLS_F64,
                      .allowed = 1e-10};
    dls_axes axes;
    dls_comm *comm;
    double worst;
    DLS_TRY(test_world(NULL, &comm));
    for (int way = DLS_CONTEXT_RING; way <= DLS_CONTEXT_GATHER; way++) {
        dls_sharding by = {.context = *(int *)arg, .context_rank = rank,
                           .way = c.way = (dls_context_way)way};
        DLS_TRY(dls_axes_open(&axes, &by, c.Hk, NULL, comm));
        for (int i = 0; i < 6; i++) {
            c.D = sizes[i];
            DLS_TRY(case_compare(&c, &axes, &worst));
        }
        dls_axes_close(&axes);
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(context, takes_heads_of_every_size)
{
    int ranks = 2;
    expect_ranks(ranks, run_sizes, &ranks);
}

/* count the bytes of a context */
static double sent(const dls_axes *a)
{
    return (a->ring ? (double)dls_comm_stats(a->ring).wire_bytes : 0) +
           (a->ulysses ? (double)dls_comm_stats(a->ulysses).wire_bytes : 0);
}

// One pass forward and one back, over axes that served others before.
static dls_status count_case(dls_axes *axes, context_case c)
{
    double worst, before = sent(axes), size = (double)dls_dtype_size(c.dtype);
    dls_context_sizes s = {(double)c.B * c.T, c.H, c.Hk, c.D, size, size < 4 ? 4 : size};
    DLS_TRY(case_compare(&c, axes, &worst));
    double want = dls_context_law_sent(&axes->sharding, &s, 0)
                + dls_context_law_sent(&axes->sharding, &s, 1);
    EXPECT(sent(axes) - before == want,
           "way %d of %d: sent %.0f bytes, the formula says %.0f", c.way,
           axes->sharding.context, sent(axes) - before, want);
    return DLS_OK;
}

static dls_status count_way(dls_comm *comm, context_case c)
{
    dls_axes axes;
    int n = dls_comm_size(comm);
    dls_sharding by = {.context = n, .way = c.way, .order = c.order,
                       .context_rank = dls_comm_rank(comm), .ulysses = c.ulysses};
    DLS_TRY(dls_axes_open(&axes, &by, n, NULL, comm));
    for (c.Hk = 1; c.Hk <= n; c.Hk += n - 1) {
        c.dtype = DLS_F64;
        c.allowed = 1e-10;
        DLS_TRY(count_case(&axes, c));
        c.dtype = DLS_BF16;
        c.allowed = 0.02;
        DLS_TRY(count_case(&axes, c));
    }
    dls_axes_close(&axes);
    return DLS_OK;
}

static dls_status count_bytes(int rank, void *arg)
{
    int n = *(int *)arg;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    context_case c = {.B = 2, .T = 2 * n * 3, .H = 2 * n, .D = 8, .causal = 1};
    for (int way = DLS_CONTEXT_RING; way <= DLS_CONTEXT_GATHER; way++)
        for (c.ulysses = 0; c.ulysses <= (n == 4 ? 2 : 0); c.ulysses += 2) {
            c.way = (dls_context_way)way;
            DLS_TRY(count_way(comm, c));
        }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(context, sends_what_the_formulas_say)
{
    int ranks[] = {2, 3, 4};
    for (int i = 0; i < 3; i++)
        expect_ranks(ranks[i], count_bytes, &ranks[i]);
}

Test(context, laws_by_hand)
{
    dls_sharding by = {.context = 4};
    dls_context_sizes s = {256, 8, 2, 8, 2, 4};
    cr_assert_eq(dls_context_law_sent(&by, &s, 0), 3 * 64 * 32 * 2);
    cr_assert_eq(dls_context_law_sent(&by, &s, 1), 3 * 64 * 32 * 6);
    by.way = DLS_CONTEXT_ULYSSES;       // two heads of queries, one of keys, to a rank
    cr_assert_eq(dls_context_law_sent(&by, &s, 0), 3 * 64 * (2 * 2 + 2) * 8 * 2);
    by = (dls_sharding){.context = 4, .ulysses = 2};
    cr_assert_eq(dls_context_law_sent(&by, &s, 1),
                 64 * (2 * 4 + 2) * 8 * 2 + 128 * 2 * 8 * (2 + 4));
    cr_assert_float_eq(dls_context_law_efficiency(DLS_TOKENS_CONTIGUOUS, 8), 8. / 15, 0);
    cr_assert_eq(dls_context_law_efficiency(DLS_TOKENS_ZIGZAG, 8), 1);
    cr_assert_eq(dls_context_law_efficiency(DLS_TOKENS_CONTIGUOUS, 1), 1);
}

static dls_status measure_rounding(int rank, void *arg)
{
    context_case c = {.B = 1, .T = 64, .H = 2, .Hk = 1, .D = 16, .causal = 1,
                      .dtype = DLS_BF16, .allowed = *(double *)arg};
    context_case flat = c;
    dls_axes axes;
    dls_comm *comm;
    double worst;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    dls_sharding by = {.context = dls_comm_size(comm),
                       .context_rank = dls_comm_rank(comm)};
    DLS_TRY(dls_axes_open(&axes, &by, c.Hk, NULL, comm));
    DLS_TRY(case_compare(&c, &axes, &worst));
    flat.flat = 1;
    flat.causal = 0;
    flat.order = DLS_TOKENS_CONTIGUOUS;
    DLS_TRY(case_compare(&flat, &axes, &worst));
    dls_axes_close(&axes);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(context, does_not_round_more_with_more_ranks)
{
    double two = 2 * 0x1p-9;
    for (int n = 1; n <= 8; n *= 2)
        expect_ranks(n, measure_rounding, &two);
}

/* refuse a bad context */
static void expect_refusal(dls_sharding by, int H, int Hk, double dropout,
                           const char *words)
{
    dls_axes axes = {.sharding = by, .ring = (dls_comm *)&by, .ulysses = (dls_comm *)&by};
    dls_context c = {.axes = &axes, .shape = {.B = 1, .Tq = 8, .Tk = 8, .H = H, .Hk = Hk,
                                              .D = 8, .dropout = dropout}};
    cr_assert_eq(dls_context_check(&c), words ? DLS_ERR_INPUT : DLS_OK);
    cr_assert(!words || strstr(dls_status_message(), words), "%s", dls_status_message());
}

Test(context, refuses_what_can_not_be_shared)
{
    dls_sharding six = {.context = 6, .way = DLS_CONTEXT_ULYSSES}, ring = {.context = 4};
    expect_refusal(six, 8, 8, 0, "6 ranks can not share 8 heads with 8 of keys; the "
                                 "nearest that works is 2");
    expect_refusal(six, 12, 4, 0, "the nearest that works is 2");
    expect_refusal(six, 12, 3, 0.5, NULL);
    expect_refusal(ring, 8, 8, 0.5, "attention dropout 0.5 needs all tokens");
    ring.ulysses = 3;
    expect_refusal(ring, 12, 12, 0, "groups of 3 do not divide 4 ranks; the nearest that "
                                    "works is 2");
    ring.ulysses = 2;
    ring.order = DLS_TOKENS_STRIPED;
    expect_refusal(ring, 8, 8, 0, "striped does not go with groups of 2");
    ring = (dls_sharding){.context = 1025};
    expect_refusal(ring, 8, 8, 0, "1025 ranks; at most 1024");
}

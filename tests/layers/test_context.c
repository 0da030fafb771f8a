/* tests/layers/test_context.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Context parallelism against the definition of attention. */
#include "context_case.h"

#include "../comm/world.h"
#include "layers/token_order.h"
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

/* count the bytes of a context */

/* refuse a bad context */

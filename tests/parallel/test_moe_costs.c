/* tests/parallel/test_moe_costs.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What blocks with experts cost: as counted, and as recorded. */
#include <criterion/criterion.h>

#include "model/moe_config.h"
#include "parallel/pipeline/partition.h"
#include "parallel/plan/unit.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* test the costs of experts */
enum { T = 16, C = 8, F = 6 };

static dls_transformer_config model(int chosen)
{
    dls_transformer_config c = dls_transformer_llama(32, T, 3, 2, 2, C, 12);
    c.moe = (dls_moe){.experts = 8, .chosen = chosen, .hidden = F, .shared = 1,
                      .dense_layers = 1, .capacity = 1};
    return c;
}

Test(moe_costs, an_expert_block_costs_what_a_token_passes)
{
    dls_transformer_config c = model(2);
    int64_t cost[5], attention = 2 * 4 * C * C + 4 * T * C;
    dls_partition_flops(&c, T, cost);
    cr_assert_eq(cost[1], attention + 2 * 3 * C * 12);
    cr_assert_eq(cost[2], attention + 2 * (3 * C * 3 * F + C * 8));
    cr_assert_eq(cost[3], cost[2]);
}

static double recorded(int chosen, int unit)
{
    dls_transformer_config c = model(chosen);
    dls_planned_pass pass = {&c, DLS_BF16, 1, T, 0};
    dls_planner planner;
    dls_planned_unit u;
    OK(dls_planner_open(&planner, DLS_BF16));
    OK(dls_planner_unit(&planner, &pass, unit, unit + 1, &u));
    dls_planner_close(&planner);
    return u.F.flops;
}

Test(moe_costs, recorded_experts_are_as_many_as_are_chosen)
{
    double products = 2 * 3 * C * F, small = 5 * F + 2 * C + 8 + 1; // of a token's choice
    cr_assert_eq(recorded(4, 2) - recorded(2, 2), 2 * T * (products + small));
    cr_assert_eq(recorded(2, 1), recorded(4, 1), "a dense block has no experts");
}

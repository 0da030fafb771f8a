/* tests/parallel/test_partition.c: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Partitions by count, cost and hand, against enumeration and the numbers of the text. */
#include <criterion/criterion.h>

#include "base/rng.h"
#include "parallel/pipeline/partition.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* test partitions by count */
Test(pipeline_partition, by_count_is_even_and_whole)
{
    int first[40];
    for (int layers = 1; layers <= 17; layers++)
        for (int stages = 1; stages <= layers + 2; stages++) {
            OK(dls_partition_by_count(layers, stages, first));
            cr_assert_eq(first[0], 0);
            cr_assert_eq(first[stages], layers + 2);
            int least = layers, most = 0;
            for (int s = 0; s < stages; s++) {
                int n = first[s + 1] - first[s];
                n -= layers >= stages ? (s == 0) + (s == stages - 1) : 0;
                least = n < least ? n : least;
                most = n > most ? n : most;
            }
            cr_assert_geq(least, 1);
            cr_assert_leq(most - least, 1, "%d blocks on %d stages", layers, stages);
        }
    cr_assert_eq(dls_partition_by_count(3, 6, first), DLS_ERR_INPUT);
    cr_assert_eq(dls_partition_by_count(3, 0, first), DLS_ERR_INPUT);
}

/* test partitions by cost */
enum { UNITS = 8 };

/* The smallest largest stage over all ways to cut units from .. on into so many. */
static int64_t best(const int64_t *cost, int from, int stages)
{
    int64_t sum = 0, least = INT64_MAX;
    if (stages == 1) {
        for (int u = from; u < UNITS; u++)
            sum += cost[u];
        return sum;
    }
    for (int end = from + 1; end <= UNITS - stages + 1; end++) {
        sum += cost[end - 1];
        int64_t rest = best(cost, end, stages - 1), worst = rest > sum ? rest : sum;
        least = worst < least ? worst : least;
    }
    return least;
}

Test(pipeline_partition, by_cost_no_partition_is_better)
{
    int64_t cost[UNITS];
    int first[UNITS + 1];
    for (int trial = 0; trial < 300; trial++) {
        for (int u = 0; u < UNITS; u++)
            cost[u] = dls_rng_u32(1, (uint64_t)trial, (uint64_t)u) % (trial % 9 + 1);
        for (int stages = 1; stages <= UNITS; stages++) {
            OK(dls_partition_by_cost(cost, UNITS - 2, stages, first));
            cr_assert_eq(first[0], 0);
            cr_assert_eq(first[stages], UNITS);
            for (int s = 0; s < stages; s++)
                cr_assert_lt(first[s], first[s + 1]);
            cr_assert_eq(dls_partition_largest(cost, stages, first),
                         best(cost, 0, stages), "trial %d, %d stages", trial, stages);
        }
    }
    cr_assert_eq(dls_partition_by_cost(cost, UNITS - 2, UNITS + 1, first),
                 DLS_ERR_INPUT);
}

/* test partitions by hand */
Test(pipeline_partition, by_hand_says_what_is_wrong)
{
    int first[4];
    OK(dls_partition_by_hand((const int64_t[]){1, 4, 2}, 5, 3, first));
    cr_assert_eq(first[1], 1);
    cr_assert_eq(first[2], 5);
    cr_assert_eq(first[3], 7);
    cr_assert_eq(dls_partition_by_hand((const int64_t[]){1, 3, 2}, 5, 3, first),
                 DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "6 units: expected 7"));
    cr_assert_eq(dls_partition_by_hand((const int64_t[]){3, 0, 4}, 5, 3, first),
                 DLS_ERR_INPUT);
    cr_assert_eq(dls_partition_by_hand((const int64_t[]){6, 2, 1}, 5, 3, first),
                 DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "stage 1 has 2"));
}

/* test the partition of gpt2 */
Test(pipeline_partition, the_example_of_the_text)
{
    const int64_t cost[] = {1, 2, 2, 2, 7};
    int first[4];
    OK(dls_partition_by_cost(cost, 3, 3, first));
    cr_assert(first[1] == 3 && first[2] == 4 && first[3] == 5);
}

Test(pipeline_partition, the_head_of_gpt2_is_four_and_a_half_blocks)
{
    dls_transformer_config c = dls_transformer_gpt2(50257, 1024, 12, 12, 768);
    int64_t cost[14];
    int first[5];
    dls_partition_flops(&c, 1024, cost);
    cr_assert_eq(cost[1], 24 * 768 * 768 + 4 * 1024 * 768);
    cr_assert_eq(cost[13], 2 * 50257 * 768);
    OK(dls_partition_by_count(12, 4, first));
    int64_t by_count = dls_partition_largest(cost, 4, first);
    cr_assert_eq(by_count, 3 * cost[1] + cost[13]);
    OK(dls_partition_by_cost(cost, 12, 4, first));
    cr_assert_eq(dls_partition_largest(cost, 4, first), cost[13]);
    cr_assert_eq(first[3], 13);
    cr_assert_eq(first[2], 9);
    cr_assert_eq(first[1], 5);
}

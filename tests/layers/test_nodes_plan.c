/* tests/layers/test_nodes_plan.c: from chapters/08-dispatch-nodes-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The plan of the ways over nodes, all ranks in one process. */
#include <math.h>
#include <string.h>

#include <criterion/criterion.h>

#include "nodes_case.h"

/* plan all ranks */
enum { RANKS = 12, CENSUS = 80 };

typedef struct plans {
    dls_node_grid grid;
    int censuses[RANKS * CENSUS], room[RANKS][CENSUS];
    dls_leg leg[RANKS][DLS_LEGS];
} plans;

static void plan_case(const nodes_case *c, plans *all)
{
    int index[NODES_MOST * 64], R = c->nodes * c->places;
    all->grid = nodes_grid(c);
    for (int r = 0; r < R; r++) {
        nodes_kept(c, r, index);
        dls_node_census(&all->grid, index, nodes_tokens(c, r),
                        all->censuses + r * dls_node_census_ints(&all->grid));
    }
    for (int r = 0; r < R; r++)
        dls_node_legs(&all->grid, r, nodes_tokens(c, r), all->censuses, all->room[r],
                      all->leg[r]);
}

static void for_all_cases(void (*fn)(const nodes_case *c, const plans *all))
{
    static const int grids[][2] = {{2, 1}, {3, 1}, {1, 3}, {1, 4}, {2, 2}, {2, 4},
                                   {4, 2}, {3, 4}};
    plans all;
    for (int g = 0; g < 8; g++)
        for (int per = 1; per <= 3; per++)
            for (int k = 1; k <= 2 * per && k <= 5; k++)
                for (int pattern = 0; pattern < NODES_PATTERNS; pattern++) {
                    nodes_case c = {.nodes = grids[g][0], .places = grids[g][1],
                                    .per_rank = per, .k = k,
                                    .pattern = (nodes_pattern)pattern};
                    plan_case(&c, &all);
                    fn(&c, &all);
                }
}

/* hold plans against each other */
static void agree(const nodes_case *c, const plans *all)
{
    int N = c->nodes, P = c->places;
    for (int r = 0; r < N * P; r++) {
        const dls_leg *leg = all->leg[r];
        for (int a = 0; a < N; a++)
            cr_assert_eq(leg[0].go[a], all->leg[a * P + r % P][0].come[r / P]);
        for (int q = 0; q < P; q++)
            cr_assert_eq(leg[1].go[q], all->leg[r / P * P + q][1].come[r % P]);
        cr_assert_eq(leg[0].rows, nodes_tokens(c, r));
        for (int l = 0; l < DLS_LEGS; l++)
            cr_assert_leq(leg[l].copies, leg[l].rows * leg[l].width);
    }
}

Test(nodes_plan, ranks_agree_on_every_number) { for_all_cases(agree); }

/* hold plans against sets */
static int touches(const int *x, int k, int first, int count)
{
    for (int j = 0; j < k; j++)
        if (x[j] >= first && x[j] < first + count)
            return 1;
    return 0;
}

// Rows of rank s that a row's way makes for link ends (from, to), by definition.
static void by_definition(const nodes_case *c, int s, int rank, dls_node_traffic *flat,
                          dls_node_traffic *nested)
{
    int index[NODES_MOST * 64], P = c->places, k = c->k, per = c->per_rank;
    nodes_kept(c, s, index);
    for (int t = 0; t < nodes_tokens(c, s); t++) {
        const int *x = index + t * k;
        for (int j = 0; j < k && s == rank; j++)
            if (x[j] >= 0 && x[j] / per != s)
                *(x[j] / per / P == s / P ? &flat->fast : &flat->slow) += 1;
        for (int b = 0; b < c->nodes && s == rank; b++)
            nested->slow += b != s / P && touches(x, k, b * P * per, P * per);
        for (int q = 0; q < P && s % P == rank % P; q++)
            nested->fast += q != rank % P && touches(x, k, (rank / P * P + q) * per, per);
    }
}

/* compare the traffic */
static void compare_traffic(const nodes_case *c, const plans *all)
{
    int R = c->nodes * c->places;
    for (int r = 0; r < R; r++) {
        dls_node_traffic flat = {0, 0}, nested = {0, 0};
        for (int s = 0; s < R; s++)
            by_definition(c, s, r, &flat, &nested);
        dls_node_traffic f = dls_node_flat(&all->grid, r, all->censuses);
        dls_node_traffic n = dls_node_nested(&all->grid, r, all->censuses);
        cr_assert(f.slow == flat.slow && f.fast == flat.fast);
        cr_assert(n.slow == nested.slow && n.fast == nested.fast);
        cr_assert_leq(n.slow, f.slow);
    }
}

Test(nodes_plan, traffic_is_that_of_the_distinct_nodes) { for_all_cases(compare_traffic); }

/* check the example by hand */
Test(nodes_plan, example_by_hand)
{
    static const int tokens[] = {1, 2, 2, 3, 0, 1};
    dls_node_grid g = {2, 2, 4, 2};
    int censuses[4 * 10] = {0}, room[4][10];
    dls_leg leg[4][DLS_LEGS];
    cr_assert_eq(dls_node_census_ints(&g), 10);
    dls_node_census(&g, tokens, 3, censuses);
    for (int r = 0; r < 4; r++)
        dls_node_legs(&g, r, r ? 0 : 3, censuses, room[r], leg[r]);
    cr_assert(leg[0][0].go[0] == 2 && leg[0][0].go[1] == 2);
    cr_assert(leg[0][1].go[0] == 1 && leg[0][1].go[1] == 2);
    cr_assert(leg[2][1].rows == 2 && leg[2][1].go[0] == 2 && leg[2][1].go[1] == 1);
    cr_assert(leg[3][2].rows == 1 && leg[3][2].copies == 1);
    cr_assert_eq(dls_node_flat(&g, 0, censuses).slow, 3);
    cr_assert_eq(dls_node_nested(&g, 0, censuses).slow, 2);
}

/* hold the expected nodes against all choices */
// The mean number of nodes over all sets of k experts; used: bits of nodes allowed.
static double mean_nodes(const dls_node_grid *g, unsigned allowed, int *sets)
{
    int per = g->experts / g->nodes, all = 0;
    *sets = 0;
    for (unsigned x = 0; x < 1u << g->experts; x++) {
        unsigned nodes = 0;
        for (int e = 0; e < g->experts; e++)
            nodes |= (x >> e & 1) << e / per;
        if (__builtin_popcount(x) != g->chosen || nodes & ~allowed)
            continue;
        all += __builtin_popcount(nodes);
        ++*sets;
    }
    return (double)all / *sets;
}

Test(nodes_plan, expected_nodes_are_the_mean_over_all_sets)
{
    for (int nodes = 2; nodes <= 4; nodes *= 2)
        for (int k = 1; k <= 4; k++)
            for (int limit = 1; limit <= nodes; limit++) {
                dls_node_grid g = {nodes, 1, 8, k};
                int sets;
                double mean = mean_nodes(&g, (1u << limit) - 1, &sets);
                if (sets > 0)
                    cr_assert_float_eq(dls_nodes_expected(&g, limit), mean, 1e-12);
            }
}

Test(nodes_plan, factors_of_the_text)
{
    dls_node_grid two = {2, 8, 256, 8}, many = {32, 8, 256, 8}, four = {2, 2, 4, 2};
    cr_assert_float_eq(8 / dls_nodes_expected(&two, 0), 4.014, 5e-4);
    cr_assert_float_eq(8 / dls_nodes_expected(&many, 0), 1.10, 5e-3);
    cr_assert_float_eq(dls_nodes_expected(&many, 4), 3.72, 5e-3);
    cr_assert_float_eq(2 / dls_nodes_expected(&four, 0), 1.2, 1e-12);
}

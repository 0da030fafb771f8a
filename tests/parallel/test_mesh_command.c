/* tests/parallel/test_mesh_command.c: from chapters/07-mesh-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The links of a mesh on a cluster, and dls mesh from outside. */
#include <jansson.h>

#include "../cli/program.h"
#include "../comm/failure.h"
#include "parallel/mesh_links.h"

/* find the links of groups */
static void expect_link(const dls_mesh *m, const dls_cluster *c, unsigned axes, int rank,
                        dls_mesh_link want)
{
    dls_mesh_link all[32];
    cr_assert_eq(dls_mesh_links(m, c, axes, all), DLS_OK, "%s", dls_status_message());
    const dls_mesh_link *is = &all[rank];
    cr_assert(is->kind == want.kind && is->nodes == want.nodes
              && fabs(is->alpha - want.alpha) < 1e-12
              && fabs(is->beta - want.beta) < 1e-16,
              "rank %d, axes %x: %d on %d, %g s, %g s/B", rank, axes, is->kind, is->nodes,
              is->alpha, is->beta);
}

static dls_cluster cluster_of(const char *name)
{
    dls_cluster c;
    cr_assert_eq(dls_cluster_load(name, &c), DLS_OK, "%s", dls_status_message());
    return c;
}

Test(mesh_command, links_are_the_slowest_of_a_group)
{
    const dls_mesh_link near = {DLS_HOP_PORT, 1, TEST_ALPHA, TEST_BETA};
    const dls_mesh_link far = {DLS_HOP_NIC, 2, 1e-5, 1e-10}, none = {0};
    dls_cluster c = cluster_of(test_cluster(2, 4));
    dls_mesh m = {.size = {2, 1, 2, 2}}, triples = {.size = {3, 1, 1, 2}};
    cr_assert_eq(dls_mesh_fit(&m, 8), DLS_OK);
    cr_assert_eq(dls_mesh_fit(&triples, 6), DLS_OK);
    for (int r = 0; r < 8; r++) {
        expect_link(&m, &c, DLS_BIT(DLS_AXIS_TP), r, near);
        expect_link(&m, &c, DLS_BIT(DLS_AXIS_PP), r, near);
        expect_link(&m, &c, DLS_BIT(DLS_AXIS_DP), r, far);
        expect_link(&m, &c, DLS_BIT(DLS_AXIS_CP), r, none);
    }
    for (int r = 0; r < 6; r++)
        expect_link(&triples, &c, DLS_BIT(DLS_AXIS_TP), r, r < 3 ? near : far);
}

Test(mesh_command, flows_share_a_network_card)
{
    dls_cluster c = cluster_of("four-nodes-spine");
    dls_mesh m = {.size = {1, 1, 1, 8}, .order = {3, 0, 1, 2}, .ep = 2};
    cr_assert_eq(dls_mesh_fit(&m, 8), DLS_OK);
    /* one ring over two nodes: one flow each way */
    expect_link(&m, &c, DLS_BIT(DLS_AXIS_DP), 0,
                (dls_mesh_link){DLS_HOP_SPINE, 2, 10.6e-6, 2 / 23e9});
    /* four rings of two, rank r with r + 4: two flows through a card */
    expect_link(&m, &c, DLS_BIT(DLS_AXIS_EP), 0,
                (dls_mesh_link){DLS_HOP_NVLINK, 1, 3.4e-6, 1 / 78.3e9});
    dls_mesh pairs = {.size = {4, 1, 1, 2}};
    cr_assert_eq(dls_mesh_fit(&pairs, 8), DLS_OK);
    expect_link(&pairs, &c, DLS_BIT(DLS_AXIS_DP), 5,
                (dls_mesh_link){DLS_HOP_NIC, 2, 9.6e-6, 2 / 23e9});
}

Test(mesh_command, clusters_grow_by_nodes)
{
    dls_cluster c = cluster_of("dgx-h100"), laptop = cluster_of("laptop-rtx-4060");
    cr_assert_eq(dls_mesh_enlarge(&c, 8), DLS_OK);
    cr_assert_eq(c.nodes, 1);
    cr_assert_eq(dls_mesh_enlarge(&c, 17), DLS_OK);
    cr_assert_eq(c.nodes, 3);
    dls_mesh m = {.size = {8, 1, 1, 3}};
    cr_assert_eq(dls_mesh_fit(&m, 24), DLS_OK);
    expect_link(&m, &c, DLS_BIT(DLS_AXIS_DP), 0,
                (dls_mesh_link){DLS_HOP_NIC, 3, 9.6e-6, 1 / 46e9});
    cr_assert_eq(dls_mesh_enlarge(&laptop, 2), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "expected a network for 2 ranks"));
}

/* look at the command from outside */
static json_t *mesh_json(const char *options)
{
    outcome o = run_program("build/bin/dls mesh %s --json", options);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    json_t *all = json_loads(o.output, 0, NULL);
    cr_assert_not_null(all, "%s", o.output);
    return all;
}

static int count_groups(json_t *all, const char *axis, int first, const char *link)
{
    size_t i;
    json_t *g;
    int n = 0;
    json_array_foreach(json_object_get(all, "groups"), i, g)
        n += strcmp(json_string_value(json_object_get(g, "axis")), axis) == 0
            && json_integer_value(json_array_get(json_object_get(g, "ranks"), 1))
                - json_integer_value(json_array_get(json_object_get(g, "ranks"), 0))
                == first
            && strcmp(json_string_value(json_object_get(g, "link")), link) == 0;
    return n;
}

Test(mesh_command, json_lists_every_group_and_rank)
{
    json_t *all = mesh_json("--dp 4 --pp 2 --tp 2 --ep 4"), *last;
    cr_assert_eq(json_array_size(json_object_get(all, "groups")), 8 + 8 + 4 + 4 + 8);
    cr_assert_eq(count_groups(all, "tp", 1, "NVLink"), 8);
    cr_assert_eq(count_groups(all, "pp", 2, "NVLink"), 8);
    cr_assert_eq(count_groups(all, "dp", 4, "network"), 4);
    cr_assert_eq(count_groups(all, "ep", 1, "NVLink"), 4);
    cr_assert_eq(count_groups(all, "edp", 8, "network"), 8);
    last = json_array_get(json_object_get(all, "ranks"), 14);
    cr_assert_eq(json_integer_value(json_object_get(last, "dp")), 3);
    cr_assert_eq(json_integer_value(json_object_get(last, "pp")), 1);
    cr_assert_eq(json_integer_value(json_object_get(last, "tp")), 0);
    cr_assert_eq(json_integer_value(json_object_get(last, "ep")), 2);
    cr_assert_eq(json_integer_value(json_object_get(last, "edp")), 1);
    json_decref(all);
}

Test(mesh_command, the_table_of_six_ranks)
{
    outcome o = run_program("build/bin/dls mesh --dp 3 --cp 2 --order cp,dp,tp,pp");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    cr_assert_not_null(strstr(o.output, "6 ranks, nearest first: cp 2 * dp 3 * tp 1 * pp "
                              "1; 1 node of dgx-h100, 8 GPUs each\n"), "%s", o.output);
    cr_assert_not_null(strstr(o.output, "  pp 0   tp 0      0     1     2     3     4"
                              "     5\n"), "%s", o.output);
    cr_assert_not_null(strstr(o.output, "{0,1} {2,3} {4,5}"), "%s", o.output);
    cr_assert_not_null(strstr(o.output, "{0,2,4} {1,3,5}"), "%s", o.output);
    cr_assert_not_null(strstr(o.output, "dp*cp      6       1  {0,1,..,5}"), "%s",
                       o.output);
}

Test(mesh_command, mistakes_are_one_line)
{
    static const char *const cases[][2] = {
        {"--tp 2 --world 5", "world size: expected a multiple of tp 2 * cp 1 * pp 1 = 2, "
         "got 5; the nearest is 4"},
        {"--tp 99999999999", "parallel.tp: expected 1 to 1048576"},
        {"--tp 4096 --dp 4096", "--world: expected 1 to 1048576 ranks"},
        {"--tp 2 --ep 4", "parallel.ep: expected a divisor of tp 2 * cp 1 * dp 1"},
        {"--order tp,dp", "parallel.order: expected tp, cp, pp and dp"},
        {"--tp 9 --cluster laptop-rtx-4060", "expected a network for 9 ranks"},
        {"--svg /nowhere/m.svg", "/nowhere/m.svg"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        outcome o = run_program("build/bin/dls mesh %s", cases[i][0]);
        cr_assert_eq(o.exit_code, i < 6 ? 2 : 1, "%s", o.output);
        cr_assert_not_null(strstr(o.output, cases[i][1]), "%s", o.output);
        cr_assert_eq(strchr(o.output, '\n'), o.output + strlen(o.output) - 1);
    }
}

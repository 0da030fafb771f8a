/* tests/comm/test_cost.c: from chapters/04-data-parallelism-collectives-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The costs of algorithms against the laws of the text, and the choice between them. */
#include "world.h"

#include "comm/choose.h"
#include "comm/cost.h"

/* measure a law */
enum { COUNT = 5040 * 16, BYTES = 4 * COUNT };
static const double a = TEST_ALPHA, b = TEST_BETA;
static dls_link links[64 * 64];
static dls_cluster cluster;

static void use(const char *path)
{
    cr_assert_eq(dls_cluster_load(path, &cluster), DLS_OK, "%s", dls_status_message());
}

static void connect(int n)
{
    int member[64];
    for (int r = 0; r < n; r++)
        member[r] = r;
    cr_assert_eq(dls_links_measure(&cluster, member, n, links), DLS_OK);
}

/* The cost of "operation:algorithm", with blocks of count elements. */
static dls_cost cost_of(const char *name, int n, size_t count, int per_node)
{
    size_t colon = strcspn(name, ":");
    dls_message_kind kind = dls_operation_find(name, colon);
    const dls_algorithm *algorithm =
        dls_algorithm_find(kind, name + colon + 1, strlen(name) - colon - 1);
    dls_shape shape = {.world = n, .count = count, .per_node = per_node};
    dls_cost cost;
    cr_assert(algorithm, "%s", name);
    connect(n);
    shape.block = dls_cost_block(algorithm, &shape, links, 4);
    cr_assert_eq(dls_cost_of(algorithm, &shape, links, 4, NULL, &cost), DLS_OK, "%s",
                 dls_status_message());
    return cost;
}

static void expect_law(const char *name, int n, size_t count, double seconds)
{
    double is = cost_of(name, n, count, 0).seconds;
    cr_expect(fabs(is - seconds) < 1e-12 * seconds, "%s, %d ranks: %.12g s, not %.12g",
              name, n, is, seconds);
}

/* test the laws */
static void expect_laws(int n)
{
    double S = BYTES, s = BYTES / n, all = (n - 1) * (a + b * s);
    size_t block = (size_t)(COUNT / n);
    expect_law("all_reduce:ring", n, COUNT, 2 * all);
    expect_law("all_reduce:direct", n, COUNT, 2 * all);
    expect_law("reduce_scatter:ring", n, block, all);
    expect_law("reduce_scatter:direct", n, block, all);
    expect_law("all_gather:ring", n, block, all);
    expect_law("all_gather:direct", n, block, all);
    expect_law("all_gather:bruck", n, block, ceil(log2(n)) * a + (n - 1) * b * s);
    expect_law("all_to_all:pairwise", n, block, all);
    expect_law("all_to_all:direct", n, block, all);
    expect_law("gather:direct", n, block, all);
    expect_law("scatter:direct", n, block, all);
    expect_law("broadcast:direct", n, COUNT, (n - 1) * (a + b * S));
    expect_law("reduce:direct", n, COUNT, (n - 1) * (a + b * S));
}

/* Those of powers of two. */
static void expect_even_laws(int n)
{
    double S = BYTES, s = BYTES / n, levels = log2(n);
    size_t block = (size_t)(COUNT / n);
    expect_law("all_reduce:doubling", n, COUNT, levels * (a + b * S));
    expect_law("all_reduce:halving", n, COUNT, 2 * (levels * a + (n - 1) * b * s));
    expect_law("reduce_scatter:halving", n, block, levels * a + (n - 1) * b * s);
    expect_law("all_to_all:bruck", n, block, levels * (a + b * S / 2));
    expect_law("broadcast:binomial", n, COUNT, levels * (a + b * S));
    expect_law("reduce:binomial", n, COUNT, levels * (a + b * S));
    expect_law("gather:binomial", n, block, levels * a + (n - 1) * b * s);
    expect_law("scatter:binomial", n, block, levels * a + (n - 1) * b * s);
}

static void expect_folded_laws(int n)
{
    double S = BYTES, levels = floor(log2(n)), p = exp2(levels);
    double fold = p < n ? 2 * (a + b * S) : 0;
    double doubling = cost_of("all_reduce:doubling", n, COUNT, 0).seconds;
    double most = fold + levels * (a + b * S), least = most - fold / 2;
    cr_expect(doubling > least * (1 - 1e-12) && doubling < most * (1 + 1e-12),
              "%d ranks: %g s, not from %g to %g", n, doubling, least, most);
    expect_law("all_reduce:halving", n, COUNT,
               fold + 2 * (levels * a + b * S * (p - 1) / p));
}

static void expect_tree(int n)
{
    double S = BYTES, deep = floor(log2(n)) + 1, worst = INFINITY;
    double is = cost_of("all_reduce:tree", n, COUNT, 0).seconds;
    for (int k = 1; k < 1000; k++)
        worst = fmin(worst, (2 * deep - 1 + k) * (4 * a + 2 * b * S / k));
    cr_expect(is > 2 * b * S * (n - 1) / n && is < 1.1 * worst, "%d ranks: %g, law %g", n,
              is, worst);
}

Test(collectives, costs_are_those_of_the_laws)
{
    const char *path = test_cluster(1, 64);
    use(path);
    for (int n = 2; n <= 16; n++)
        if (n <= 10 || n == 12 || n == 14 || n == 15 || n == 16)
            expect_laws(n);
    for (int n = 2; n <= 16; n *= 2)
        expect_even_laws(n);
    for (int n = 3; n <= 9; n++) // of 2 and 4 ranks, and all of 4 and 8 parts
        expect_folded_laws(n);
    for (int n = 2; n <= 64; n += n < 9 ? 1 : 11)
        expect_tree(n);
    unlink(path);
}

Test(collectives, no_algorithm_sends_less_than_the_bound)
{
    const char *path = test_cluster(1, 64);
    use(path);
    for (int n = 2; n <= 16; n++)
        for (int i = 0; i < dls_algorithm_count; i++)
            if (dls_algorithms[i].kind == DLS_MESSAGE_ALL_REDUCE &&
                !dls_algorithms[i].fits) {
                char name[64];
                snprintf(name, sizeof name, "all_reduce:%s", dls_algorithms[i].name);
                dls_cost c = cost_of(name, n, COUNT, 0);
                cr_expect_geq(c.all_bytes, 2u * (unsigned)(n - 1) * BYTES, "%s", name);
                if (strcmp(name, "all_reduce:ring") == 0)
                    cr_expect_eq(c.all_bytes, 2u * (unsigned)(n - 1) * BYTES);
            }
    unlink(path);
}

/* test the double tree */
static void expect_double_tree(int n, int pieces)
{
    const dls_algorithm *tree = dls_algorithm_find(DLS_MESSAGE_ALL_REDUCE, "tree", 4);
    dls_shape shape = {.world = n, .count = COUNT, .block = COUNT / 2 / (size_t)pieces};
    double busiest = n == 2 ? 1 : n == 3 ? 1.5 : 2, piece = a + b * BYTES / 2 / pieces;
    int deep = (int)floor(log2(n));
    dls_cost is;
    connect(n);
    cr_assert_eq(dls_cost_of(tree, &shape, links, 4, NULL, &is), DLS_OK);
    cr_expect_eq(is.all_bytes, 2 * (n - 1) * (uint64_t)BYTES, "%d ranks", n);
    cr_expect_eq(is.bytes, (uint64_t)(busiest * BYTES), "%d ranks", n);
    cr_expect(pieces < 2 * deep - 1 || is.steps == (uint64_t)(2 * deep - 1 + pieces),
              "%d ranks, %d pieces: %d steps", n, pieces, (int)is.steps);
    double law = (n == 2 ? 2 * pieces : 3 * pieces + 1) * piece;
    cr_expect(n > 3 || fabs(is.seconds - law) < 1e-12 * law, "%d ranks, %d pieces: %g s, "
              "not %g", n, pieces, is.seconds, law);
}

Test(collectives, two_trees_have_the_steps_and_bytes_of_their_law)
{
    static const int pieces[] = {1, 2, 3, 4, 7, 16, 30}; // they divide half of COUNT
    const char *path = test_cluster(1, 64);
    use(path);
    for (int n = 2; n <= 33; n++)
        for (int i = 0; i < 7; i++)
            expect_double_tree(n, pieces[i]);
    unlink(path);
}

/* test that topology matters */
Test(collectives, the_topology_changes_the_cost)
{
    const double alpha = 3.4e-6, beta = 1e-9 / 78.3, s = BYTES / 4.0;
    use("hgx-a100-4");
    expect_law("all_reduce:direct", 4, COUNT, 2 * (alpha + beta * s));
    expect_law("all_reduce:ring", 4, COUNT, 6 * (alpha + beta * s));
    const char *path = test_cluster(2, 8);
    use(path);
    double slow = 10e-6, wire = 1e-10, S = 100.0 * BYTES;
    double law = 2 * 7 * (a + b * S / 8) + 2 * (slow + wire * S / 16);
    double is = cost_of("all_reduce:hierarchical", 16, 100 * COUNT, 8).seconds;
    cr_expect(fabs(is - law) < 1e-12 * law, "%.12g s, not %.12g", is, law);
    double flat = cost_of("all_reduce:ring", 16, 100 * COUNT, 8).seconds;
    cr_expect_gt(flat, 2 * law);
    unlink(path);
}

Test(collectives, all_to_all_over_nodes_meets_nobody_twice)
{
    const char *path = test_cluster(2, 8);
    use(path);
    double near = 7 * (a + b * BYTES), far = 8 * (10e-6 + 1e-10 * BYTES);
    double direct = cost_of("all_to_all:direct", 16, COUNT, 8).seconds;
    double pairwise = cost_of("all_to_all:pairwise", 16, COUNT, 8).seconds;
    cr_expect(fabs(direct - fmax(near, far)) < 1e-12, "%g s, not %g", direct, far);
    cr_expect(fabs(pairwise - near - far) < 1e-12, "%g s, not %g", pairwise, near + far);
    cr_expect_gt(cost_of("all_to_all:direct", 16, COUNT, 0).seconds, 1.5 * direct);
    unlink(path);
}

/* test the choice */
static const char *chosen(int n, size_t count, int per_node)
{
    static dls_comm comm;
    dls_shape shape = {.world = n, .count = count, .root = -1, .per_node = per_node};
    const dls_algorithm *algorithm = NULL;
    connect(n);
    comm = (dls_comm){.world = n, .links = links};
    for (int again = 0; again < 2; again++) // computed, then remembered
        cr_assert_eq(dls_comm_choose(&comm, DLS_MESSAGE_ALL_REDUCE, &shape, 4,
                                     &algorithm), DLS_OK);
    return algorithm->name;
}

Test(collectives, the_cheapest_algorithm_is_chosen)
{
    const char *path = test_cluster(1, 64);
    use(path);
    cr_expect_str_eq(chosen(8, 2, 8), "doubling");
    cr_expect_str_eq(chosen(8, 100 * COUNT, 8), "halving");
    cr_expect_str_eq(chosen(2, 1, 2), "doubling");
    cr_expect_str_eq(chosen(6, 100 * COUNT, 6), "ring");
    cr_expect_str_eq(chosen(6, 2, 6), "doubling");
    unlink(path);
    use("hgx-a100-4");
    cr_expect_str_eq(chosen(4, COUNT, 4), "direct");
}

Test(collectives, nodes_change_the_choice)
{
    const char *path = test_cluster(2, 6);
    use(path);
    cr_expect_str_eq(chosen(12, 100 * COUNT, 6), "hierarchical");
    cr_expect_str_neq(chosen(12, 2, 6), "hierarchical");
    unlink(path);
}

static void expect_refusal(const char *wanted)
{
    dls_comm *comm = NULL;
    dls_comm_options options = {.algorithm = wanted};
    cr_expect_eq(dls_comm_create(&comm, &options), DLS_ERR_INPUT);
    cr_expect(strstr(dls_status_message(), "expected a list such as"), "%s",
              dls_status_message());
    cr_expect_null(comm);
}

Test(collectives, a_wish_that_is_misspelt_is_refused)
{
    expect_refusal("all_reduce:rnig");
    expect_refusal("allreduce:ring");
    expect_refusal("ring");
    expect_refusal("all_reduce:ring,broadcast");
}

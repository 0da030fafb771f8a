/* tests/parallel/test_mesh.c: from chapters/07-mesh-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Meshes of all sizes: coordinates, groups, folds, splits, refusals. */
#include "../comm/failure.h"
#include "parallel/mesh.h"

/* count ranks with loops */
enum { MOST = 24 };

/* at[rank][axis], by counting. */
static void count_ranks(const dls_mesh *m, int at[][DLS_AXES])
{
    const dls_axis *o = m->order;
    int i[DLS_AXES], rank = 0;
    for (i[3] = 0; i[3] < m->size[o[3]]; i[3]++)
        for (i[2] = 0; i[2] < m->size[o[2]]; i[2]++)
            for (i[1] = 0; i[1] < m->size[o[1]]; i[1]++)
                for (i[0] = 0; i[0] < m->size[o[0]]; i[0]++, rank++)
                    for (int k = 0; k < DLS_AXES; k++)
                        at[rank][o[k]] = i[k];
}

/* check the coordinates */
static void check_coordinates(const dls_mesh *m, int world, int at[][DLS_AXES])
{
    cr_assert_eq(dls_mesh_world(m), world);
    for (int r = 0; r < world; r++) {
        for (int a = 0; a < DLS_AXES; a++)
            cr_assert_eq(dls_mesh_coordinate(m, r, (dls_axis)a), at[r][a]);
        cr_assert_eq(dls_mesh_rank(m, at[r]), r);
    }
}

/* check the groups */
static int agree(const int *a, const int *b, unsigned axes, int n)
{
    for (int i = 0; i < n; i++)
        if (axes >> i & 1 && a[i] != b[i])
            return 0;
    return 1;
}

static unsigned group_bits(const dls_mesh *m, int rank, unsigned axes)
{
    int ranks[MOST], n = dls_mesh_group_ranks(m, rank, axes, ranks);
    unsigned bits = 0;
    cr_assert_eq(n, dls_mesh_group_size(m, axes));
    for (int i = 0; i < n; i++) {
        cr_assert(i == 0 || ranks[i] > ranks[i - 1]);
        bits |= 1u << ranks[i];
    }
    return bits;
}


static void check_groups(const dls_mesh *m, int world, int at[][DLS_AXES],
                         const dls_axis *names)
{
    for (unsigned axes = 0; axes < 1u << DLS_AXES; axes++) {
        unsigned bits = 0, rest = 0, group[MOST], other[MOST];
        for (int i = 0; i < DLS_AXES; i++)
            *(axes >> i & 1 ? &bits : &rest) |= DLS_BIT(names[i]);
        for (int r = 0; r < world; r++) {
            group[r] = group_bits(m, r, bits);
            other[r] = group_bits(m, r, rest);
            for (int s = 0; s < world; s++)
                cr_assert_eq(group[r] >> s & 1, agree(at[r], at[s], ~axes, DLS_AXES));
        }
        for (int r = 0; r < world; r++)
            for (int s = 0; s < world; s++) {
                cr_assert(group[r] == group[s] || (group[r] & group[s]) == 0);
                cr_assert_eq(__builtin_popcount(group[r] & other[s]), 1);
            }
    }
}

/* try all meshes */
static void set_order(dls_mesh *m, int number)
{
    dls_axis left[DLS_AXES] = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP};
    for (int i = 0, n = DLS_AXES; n > 0; i++, n--) {
        int k = number % n;
        number /= n;
        m->order[i] = left[k];
        left[k] = left[n - 1];
    }
}

static void check_nearest(const dls_mesh *m, int world)
{
    int ranks[MOST], i = 0;
    while (i < DLS_AXES && m->size[m->order[i]] == 1)
        i++;
    for (int r = 0; r < world && i < DLS_AXES; r++) {
        int n = dls_mesh_group_ranks(m, r, DLS_BIT(m->order[i]), ranks);
        cr_assert_eq(ranks[0], r / n * n);
        cr_assert_eq(ranks[n - 1], ranks[0] + n - 1);
    }
}

static void try_mesh(dls_mesh m, int world)
{
    static const dls_axis names[] = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP};
    int at[MOST][DLS_AXES];
    count_ranks(&m, at);
    check_coordinates(&m, world, at);
    check_groups(&m, world, at, names);
    check_nearest(&m, world);
}

/* Calls fn for all sizes whose product is `world`; returns how many there are. */
static int for_all_sizes(int world, void (*fn)(dls_mesh m, int world, int number))
{
    int count = 0;
    for (int tp = 1; tp <= world; tp++)
        for (int cp = 1; world % tp == 0 && tp * cp <= world; cp++)
            for (int pp = 1; world % (tp * cp) == 0 && tp * cp * pp <= world; pp++) {
                if (world % (tp * cp * pp) != 0)
                    continue;
                dls_mesh m = {.size = {tp, cp, pp, 0}};
                cr_assert_eq(dls_mesh_fit(&m, world), DLS_OK);
                cr_assert_eq(m.size[DLS_AXIS_DP], world / (tp * cp * pp));
                fn(m, world, count++);
            }
    return count;
}

static void try_orders(dls_mesh m, int world, int number)
{
    for (int i = 0; i < 24; i++)
        if (world <= 12 || i == number % 24) {
            set_order(&m, i);
            try_mesh(m, world);
        }
}

Test(mesh, every_mesh_of_at_most_24_ranks)
{
    int count = 0;
    for (int world = 1; world <= MOST; world++)
        count += for_all_sizes(world, try_orders);
    cr_assert_eq(count, 408, "%d", count);
}

/* check the expert mesh */
/* at[rank] = etp, ep, edp, pp. */
static void count_experts(const dls_mesh *m, int world, int at[][DLS_AXES])
{
    for (int stage = 0; stage < m->size[DLS_AXIS_PP]; stage++)
        for (int r = 0, n = 0; r < world; r++) {
            if (dls_mesh_coordinate(m, r, DLS_AXIS_PP) != stage)
                continue;
            at[r][0] = n % m->etp;
            at[r][1] = n / m->etp % m->ep;
            at[r][2] = n / (m->etp * m->ep);
            at[r][3] = stage;
            n++;
        }
}

static void try_folds(dls_mesh m, int world, int number)
{
    static const dls_axis names[] = {DLS_AXIS_ETP, DLS_AXIS_EP, DLS_AXIS_EDP,
                                     DLS_AXIS_PP};
    int stage = world / m.size[DLS_AXIS_PP], at[MOST][DLS_AXES];
    set_order(&m, number % 24);
    for (m.etp = 1; m.etp <= stage; m.etp++)
        for (m.ep = 1; stage % m.etp == 0 && m.ep * m.etp <= stage; m.ep++) {
            if (stage / m.etp % m.ep != 0)
                continue;
            cr_assert_eq(dls_mesh_check(&m, world), DLS_OK);
            cr_assert_eq(dls_mesh_size(&m, DLS_AXIS_EDP), stage / m.etp / m.ep);
            count_experts(&m, world, at);
            for (int r = 0; r < world; r++)
                for (int i = 0; i < DLS_AXES; i++)
                    cr_assert_eq(dls_mesh_coordinate(&m, r, names[i]), at[r][i]);
            check_groups(&m, world, at, names);
        }
}

Test(mesh, every_fold_of_the_experts)
{
    const int worlds[] = {1, 2, 3, 4, 5, 6, 8, 9, 12};
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++)
        for_all_sizes(worlds[i], try_folds);
}

Test(mesh, the_fewest_ranks_are_a_common_multiple)
{
    dls_mesh m = {.size = {2, 3, 5, 0}, .etp = 1, .ep = 4};
    cr_assert_eq(dls_mesh_least(&m), 60);
    m.ep = 2;
    cr_assert_eq(dls_mesh_least(&m), 30);
    m.etp = 6;
    cr_assert_eq(dls_mesh_least(&m), 60);
    dls_mesh published = {.size = {2, 1, 16, 0}, .etp = 1, .ep = 64};
    cr_assert_eq(dls_mesh_least(&published), 1024);
    cr_assert_eq(dls_mesh_fit(&published, 1024), DLS_OK);
    cr_assert_eq(dls_mesh_size(&published, DLS_AXIS_EDP), 1);
}

/* split real communicators */
static dls_status sum_over(const dls_mesh *m, dls_comm *world, unsigned axes)
{
    int rank = dls_comm_rank(world), *buf;
    int ranks[MOST], n = dls_mesh_group_ranks(m, rank, axes, ranks), want = 0;
    dls_comm *comm;
    DLS_TRY(dls_mesh_split(m, world, axes, &comm));
    EXPECT(!comm == (n == 1), "a group of %d", n);
    if (!comm)
        return DLS_OK;
    for (int i = 0; i < n; i++) {
        want |= 1 << ranks[i];
        EXPECT(dls_comm_world_rank(comm, i) == ranks[i], "member %d", i);
    }
    DLS_TRY(test_buffer(&buf, sizeof *buf));
    *buf = 1 << rank;
    DLS_TRY(dls_comm_all_reduce(comm, buf, 1, DLS_COMM_I32, DLS_SUM, 0));
    DLS_CUDA(cudaStreamSynchronize(0));
    EXPECT(*buf == want, "rank %d, axes %x: %x, not %x", rank, axes, *buf, want);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static dls_status split_everything(int rank, void *arg)
{
    const dls_mesh *m = arg;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    for (unsigned axes = 0; axes < DLS_BIT(DLS_AXES); axes++)
        DLS_TRY(sum_over(m, comm, axes));
    for (unsigned axes = DLS_BIT(DLS_AXIS_ETP); axes < DLS_BIT(DLS_AXES_ALL);
         axes += DLS_BIT(DLS_AXIS_ETP))
        DLS_TRY(sum_over(m, comm, axes));
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(mesh, groups_of_eight_ranks_sum_over_themselves)
{
    dls_mesh m = {.size = {2, 1, 2, 2}, .ep = 2};
    cr_assert_eq(dls_mesh_fit(&m, 8), DLS_OK);
    expect_ranks(8, split_everything, &m);
}

Test(mesh, groups_of_six_ranks_in_a_strange_order)
{
    dls_mesh m = {.size = {3, 1, 1, 0}, .ep = 3, .etp = 2};
    cr_assert_eq(dls_mesh_set_order(&m, "dp,pp,cp,tp"), DLS_OK);
    cr_assert_eq(dls_mesh_fit(&m, 6), DLS_OK);
    expect_ranks(6, split_everything, &m);
}

/* refuse impossible meshes */
static void refuse(dls_mesh m, int world, const char *message)
{
    cr_assert_eq(dls_mesh_fit(&m, world), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), message);
}

Test(mesh, says_what_would_have_worked)
{
    refuse((dls_mesh){.size = {2, 1, 2, 0}}, 6,
           "world size: expected a multiple of tp 2 * cp 1 * pp 2 = 4, got 6; the "
           "nearest is 4");
    refuse((dls_mesh){.size = {2, 1, 2, 0}}, 7,
           "world size: expected a multiple of tp 2 * cp 1 * pp 2 = 4, got 7; the "
           "nearest is 8");
    refuse((dls_mesh){.size = {8, 1, 1, 0}}, 1,
           "world size: expected a multiple of tp 8 * cp 1 * pp 1 = 8, got 1; the "
           "nearest is 8");
    refuse((dls_mesh){.size = {2, 1, 2, 2}}, 12,
           "parallel.dp: expected 3, as 12 ranks / (tp 2 * cp 1 * pp 2), got 2");
    refuse((dls_mesh){.size = {2, 1, 2, 2}}, 6,
           "world size: expected tp 2 * cp 1 * pp 2 * dp 2 = 8 ranks, got 6");
    refuse((dls_mesh){.size = {1, -3, 1, 0}}, 6,
           "parallel.cp: expected 1 to 1048576, got -3");
}

Test(mesh, says_which_fold_would_have_worked)
{
    refuse((dls_mesh){.size = {2, 1, 2, 2}, .ep = 3}, 8,
           "parallel.ep: expected a divisor of tp 2 * cp 1 * dp 2 / etp 1 = 4, got 3; "
           "the nearest is 2");
    refuse((dls_mesh){.size = {2, 1, 1, 6}, .etp = 2, .ep = 5}, 12,
           "parallel.ep: expected a divisor of tp 2 * cp 1 * dp 6 / etp 2 = 6, got 5; "
           "the nearest is 6");
    refuse((dls_mesh){.size = {2, 1, 2, 2}, .etp = 8}, 8,
           "parallel.etp: expected a divisor of tp 2 * cp 1 * dp 2 = 4, got 8; the "
           "nearest is 4");
}

Test(mesh, orders_have_each_axis_once)
{
    dls_mesh m = {.size = {2, 1, 2, 2}};
    char text[DLS_ORDER_TEXT];
    const char *const bad[] = {"", "tp", "tp,cp,pp", "tp,tp,pp,dp", "tp,cp,pp,dp,",
                               "tp,cp,pp,ep", "tp cp pp dp", "TP,CP,PP,DP"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(dls_mesh_set_order(&m, bad[i]), DLS_ERR_INPUT, "%s", bad[i]);
    cr_assert_str_eq(dls_status_message(), "parallel.order: expected tp, cp, pp and dp, "
                     "each once, nearest first, such as tp,cp,pp,dp, got TP,CP,PP,DP");
    cr_assert_eq(dls_mesh_set_order(&m, "dp,pp,cp,tp"), DLS_OK);
    cr_assert_eq(dls_mesh_fit(&m, 8), DLS_OK);
    dls_mesh_order_text(&m, text);
    cr_assert_str_eq(text, "dp,pp,cp,tp");
    cr_assert_eq(dls_mesh_coordinate(&m, 6, DLS_AXIS_TP), 1);
    cr_assert_eq(dls_mesh_coordinate(&m, 6, DLS_AXIS_DP), 0);
}

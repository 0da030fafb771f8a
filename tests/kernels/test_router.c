/* tests/kernels/test_router.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Tests of kernels/router.h: the example by hand, the choice, the places. */
#include "router_case.h"

/* tell the routed example */
enum { E4 = 4, N4 = 4 };
/* exp(scores): the probabilities are these by 10. */
static const double tenths[N4][E4] = {
    {4, 3, 2, 1}, {5, 1, 3, 1}, {6, 2, 1, 1}, {3, 5, 1, 1}};

static double *example_scores(kcase *k)
{
    double *s = kcase_zeros(k, N4 * E4);
    for (int i = 0; i < N4 * E4; i++)
        s[i] = kcase_round_acc(k, log(tenths[i / E4][i % E4]));
    return s;
}

static dls_router example_router(double capacity)
{
    return (dls_router){.E = E4, .k = 2, .normalised = 1, .scale = 1, .N = N4, .B = 1,
                        .T = N4, .capacity = (int)ceil(capacity * 2 * N4 / E4)};
}

static void expect_ints(const int *got, const int *want, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        cr_expect_eq(got[i], want[i], "%s[%d]: %d, expected %d", what, i, got[i],
                     want[i]);
}
/* test the routed example */
KERNEL_TEST(router_example)
{
    static const int index[] = {0, 1, 0, 2, 0, 1, 1, 0}, counts[] = {4, 3, 1, 0};
    static const int place[] = {0, 4, 1, 7, 2, 5, 6, 3};
    static const double w[] = {4 / 7.0, 3 / 7.0, 5 / 8.0, 3 / 8.0,
                               6 / 8.0, 2 / 8.0, 5 / 8.0, 3 / 8.0};
    rcase c = rcase_make(k, example_router(0), example_scores(k), NULL);
    rcase_route(k, &c);
    expect_ints(c.index_of, index, 8, "index");
    expect_ints(c.place_of, place, 8, "place");
    expect_ints(c.counts_of, counts, 4, "counts");
    expect_ints(c.chosen_of, counts, 4, "chosen");
    expect_within(c.weight_of, w, rounding(k, 24), 8, "weight");
}

KERNEL_TEST(router_example_with_capacity)
{
    static const int place[] = {0, 2, 1, 4, -1, 3, -1, -1}, counts[] = {2, 2, 1, 0};
    static const int padded[] = {0, 2, 1, 4, -1, 3, -1, -1}, two[] = {2, 2, 2, 2};
    rcase c = rcase_make(k, example_router(1), example_scores(k), NULL);
    rcase_route(k, &c);
    expect_ints(c.place_of, place, 8, "place");
    expect_ints(c.counts_of, counts, 4, "counts");
    c.r.padded = 1;
    rcase_route(k, &c);
    expect_ints(c.place_of, padded, 8, "padded place");
    expect_ints(c.counts_of, two, 4, "padded counts");
}
/* test the steps of the bias */
KERNEL_TEST(router_example_balances)
{
    static const int loads[4][E4] = {
        {4, 3, 1, 0}, {4, 1, 3, 0}, {3, 2, 1, 2}, {2, 2, 2, 2}};
    static const double last[E4] = {-0.18, 0, 0.06, 0.12};
    static const double w0[] = {0.6, 0.4};      // of token 0 with experts 1 and 2
    rcase c = rcase_make(k, example_router(0), example_scores(k), kcase_zeros(k, E4));
    dls_router_aux aux = {0};
    void *values = kcase_space_acc(k, N4 * DLS_TALLY_SUMS);
    for (int step = 0; step < 4; step++) {
        void *tally = kcase_put_acc(k, kcase_zeros(k, 16), 16);
        rcase_route(k, &c);
        expect_ints(c.chosen_of, loads[step], E4, "load");
        OK(dls_router_tally(&k->ctx, &c.r, &aux, tally, values, c.scores, c.chosen, NULL,
                            0));
        OK(dls_router_bias(&k->ctx, c.bias, tally, E4, 0.06));
    }
    cr_expect_eq(c.index_of[0], 1);
    cr_expect_eq(c.index_of[1], 2);
    expect_within(c.weight_of, w0, rounding(k, 24), 2, "weight");
    expect_within(kcase_get_acc(k, c.bias, E4), last, rounding(k, 8), E4, "bias");
}
/* test every gate */
static double *drawn_scores(kcase *k, int N, int E, unsigned stream)
{
    double *s = kcase_zeros(k, (size_t)N * E);
    double *u = kcase_random(k, (size_t)N * E, stream, 0, 1);
    for (int i = 0; i < N; i++)
        for (int e = 0; e < E; e++) {
            int rank = 0;
            for (int f = 0; f < E; f++)
                rank += u[i * E + f] < u[i * E + e] ||
                        (u[i * E + f] == u[i * E + e] && f < e);
            s[i * E + e] = kcase_round_acc(k, 0.01 * (rank - E / 2) + 0.3 * (i % 3));
        }
    return s;
}

static void check_choice(kcase *k, dls_router r, int biased, unsigned stream)
{
    double *s = drawn_scores(k, r.N, r.E, stream);
    double *b = biased ? kcase_random(k, r.E, stream + 100, -0.1, 0.1) : NULL;
    rcase c = rcase_make(k, r, s, b);
    rcase_route(k, &c);
    for (int i = 0; i < r.N; i++) {
        int want[8];
        double w[8];
        refer_choice(&r, s + i * r.E, b, want);
        refer_weights(&r, s + i * r.E, want, w);
        expect_ints(c.index_of + i * r.k, want, r.k, "index");
        expect_within(c.weight_of + i * r.k, w, r.scale * rounding(k, r.E + 40), r.k,
                      "weight");
    }
}
KERNEL_TEST(router_choice)
{
    static const int E[] = {1, 2, 3, 8, 31, 32, 33, 72};
    static const int best[] = {1, 2, 1, 2, 5, 8, 8, 6};
    for (int i = 0; i < 8; i++)
        for (int gate = DLS_GATE_SOFTMAX; gate <= DLS_GATE_IDENTITY; gate++) {
            dls_router r = {.E = E[i], .k = best[i], .gate = gate, .scale = 1 + i % 3,
                            .normalised = gate != DLS_GATE_IDENTITY && i % 2,
                            .N = 1 + 3 * i, .B = 2, .T = 11};
            check_choice(k, r, 0, i);
            check_choice(k, r, 1, i);
            kcase_release(k, 0, 0);
        }
}

KERNEL_TEST(router_groups)
{
    static const int E[] = {8, 6, 32, 64, 12}, groups[] = {4, 6, 32, 8, 3};
    static const int limit[] = {2, 3, 4, 4, 1}, best[] = {2, 3, 4, 6, 2};
    for (int i = 0; i < 5; i++) {
        dls_router r = {.E = E[i], .k = best[i], .gate = DLS_GATE_SIGMOID, .scale = 2.5,
                        .normalised = 1, .groups = groups[i], .group_limit = limit[i],
                        .N = 9, .B = 1, .T = 9};
        check_choice(k, r, 0, i);
        check_choice(k, r, 1, i);
        r.gate = DLS_GATE_SOFTMAX;
        check_choice(k, r, 1, i);
    }
}
/* test ties of experts */
KERNEL_TEST(router_ties)
{
    static const int first[] = {0, 1, 2}, second[] = {3, 40, 0};
    static const int grouped[] = {4, 5, 0};
    double s[3][45] = {{0}}, b[45] = {0};
    dls_router r = {.E = 45, .k = 3, .scale = 1, .N = 2, .B = 1, .T = 2};
    s[1][3] = s[1][40] = 1;             // lanes 3 and 8: 8 comes later, 40 too
    s[1][0] = s[1][1] = -0.0;
    rcase c = rcase_make(k, r, s[0], NULL);
    rcase_route(k, &c);
    expect_ints(c.index_of, first, 3, "all equal");
    expect_ints(c.index_of + 3, second, 3, "two and the rest");
    c = rcase_make(k, r, s[0], b);
    rcase_route(k, &c);
    expect_ints(c.index_of, first, 3, "all equal with a bias");
    r = (dls_router){.E = 8, .k = 3, .gate = DLS_GATE_SIGMOID, .groups = 4,
                     .group_limit = 2, .scale = 1, .N = 1, .B = 1, .T = 1};
    double g[8] = {0, 0, 0, 0, 1, 1, 0, 0};     // group 2, then the first of three equals
    c = rcase_make(k, r, g, NULL);
    rcase_route(k, &c);
    expect_ints(c.index_of, grouped, 3, "groups");
    double even[8] = {0.25, 0.25, 0.5, 0.5, 0.75, 0.25, 0.5, 0.25};
    static const int lower[] = {2, 3};          // groups 1 and 2 have 1 each
    r = (dls_router){.E = 8, .k = 2, .gate = DLS_GATE_IDENTITY, .groups = 4,
                     .group_limit = 1, .scale = 1, .N = 1, .B = 1, .T = 1};
    c = rcase_make(k, r, even, NULL);
    rcase_route(k, &c);
    expect_ints(c.index_of, lower, 2, "equal groups");
}
/* test the bias stays out */
KERNEL_TEST(router_bias_stays_out_of_the_weights)
{
    double b[E4] = {0, 0, 0, 100};
    static const double want[] = {1 / 5.0, 4 / 5.0, 1 / 6.0, 5 / 6.0, 1 / 7.0, 6 / 7.0,
                                  1 / 6.0, 5 / 6.0};
    static const double plain[] = {0.1, 0.4, 0.1, 0.5, 0.1, 0.6, 0.1, 0.5};
    rcase c = rcase_make(k, example_router(0), example_scores(k), b);
    rcase_route(k, &c);
    for (int i = 0; i < N4; i++)
        cr_expect_eq(c.index_of[2 * i], 3);
    expect_within(c.weight_of, want, rounding(k, 24), 8, "weight");
    c.r.normalised = 0;
    rcase_route(k, &c);
    expect_within(c.weight_of, plain, rounding(k, 24), 8, "plain weight");
}
/* test places */
static int refer_kept(const dls_router *r, const int *index, int i, int j)
{
    int e = index[i * r->k + j], earlier = 0;
    for (int h = 0; h < i; h++)
        for (int l = 0; l < r->k && (r->first + h) / r->T == (r->first + i) / r->T; l++)
            earlier += index[h * r->k + l] == e;
    return r->capacity == 0 || earlier < r->capacity;
}

static int refer_place(const dls_router *r, const int *index, int i, int j, int sequences)
{
    int e = index[i * r->k + j], at = 0;
    if (!refer_kept(r, index, i, j))
        return -1;
    for (int h = 0; h < r->N; h++)
        for (int l = 0; l < r->k; l++) {
            int other = index[h * r->k + l];
            at += refer_kept(r, index, h, l) &&
                  ((other < e && !r->padded) || (other == e && h < i));
        }
    return at + (r->padded ? e * sequences * r->capacity : 0);
}

static void check_places(kcase *k, dls_router r, int sequences, unsigned stream)
{
    rcase c = rcase_make(k, r, drawn_scores(k, r.N, r.E, stream), NULL);
    int counts[DLS_ROUTER_EXPERTS] = {0};
    rcase_route(k, &c);
    for (int i = 0; i < r.N; i++)
        for (int j = 0; j < r.k; j++) {
            int want = refer_place(&r, c.index_of, i, j, sequences);
            cr_expect_eq(c.place_of[i * r.k + j], want, "place of %d, %d: %d not %d", i,
                         j, c.place_of[i * r.k + j], want);
            counts[c.index_of[i * r.k + j]] += want >= 0;
        }
    for (int e = 0; e < r.E; e++)
        counts[e] = r.padded ? sequences * r.capacity : counts[e];
    expect_ints(c.counts_of, counts, r.E, "counts");
}
KERNEL_TEST(router_places)
{
    dls_router r = {.E = 5, .k = 2, .scale = 1, .N = 14, .B = 2, .T = 7};
    for (int capacity = 0; capacity < 4; capacity++) {
        r.capacity = capacity;
        check_places(k, r, 2, 1);
    }
    r.padded = 1;
    check_places(k, r, 2, 2);
    r = (dls_router){.E = 3, .k = 3, .scale = 1, .N = 70, .B = 1, .T = 70,
                     .capacity = 66};
    check_places(k, r, 1, 3);           // across three chunks of a warp
    r = (dls_router){.E = 40, .k = 1, .scale = 1, .N = 5, .B = 5, .T = 1, .capacity = 1};
    check_places(k, r, 5, 4);
    r = (dls_router){.E = 4, .k = 2, .scale = 1, .N = 5, .first = 5, .B = 2, .T = 8,
                     .capacity = 2};
    check_places(k, r, 2, 5);           // rows 5 ... 9: 3 of one sequence, 2 of the next
    r.padded = 1;
    check_places(k, r, 2, 5);
    r = (dls_router){.E = 4, .k = 2, .scale = 1, .B = 2, .T = 8, .capacity = 2};
    check_places(k, r, 0, 6);           // a rank without rows
    r.padded = 1;
    check_places(k, r, 0, 6);
}
/* test cut sequences */
KERNEL_TEST(router_cut_sequences)
{
    enum { E = 5, K = 2, T = 10, B = 2, N = T * B, TABLE = B * E + 1 };
    dls_router r = {.E = E, .k = K, .scale = 1, .N = N, .B = B, .T = T, .capacity = 3};
    static const int cut[] = {0, 7, 14, N};
    double *s = drawn_scores(k, N, E, 9);
    rcase whole = rcase_make(k, r, s, NULL);
    int tables[3 * TABLE], kept = 0;
    rcase_route(k, &whole);
    for (int q = 0; q < 3; q++) {
        r.first = cut[q];
        r.N = cut[q + 1] - cut[q];
        rcase c = rcase_make(k, r, s + cut[q] * E, NULL);
        c.before = kcase_put_ints(k, tables, q * TABLE);
        c.earlier = q;
        rcase_route(k, &c);
        memcpy(tables + q * TABLE, c.chosen_of, sizeof(int) * TABLE);
        for (int i = 0; i < r.N * K; i++) {
            cr_expect_eq(c.place_of[i] < 0, whole.place_of[cut[q] * K + i] < 0);
            kept += c.place_of[i] >= 0;
        }
    }
    cr_expect_lt(kept, N * K);
    cr_expect_gt(kept, 0);
}
/* test balanced routes */
KERNEL_TEST(router_balanced)
{
    static const int index[] = {1, 2, 3, 4, 0, 1, 2, 3, 4}, counts[] = {1, 2, 2, 2, 2};
    dls_router r = {.E = 5, .k = 3, .scale = 1, .balanced = 1, .N = 3, .first = 2, .B = 1,
                    .T = 8};
    double *s = drawn_scores(k, 3, 5, 1), w[3];
    rcase c = rcase_make(k, r, s, NULL);
    rcase_route(k, &c);
    expect_ints(c.index_of, index, 9, "index");
    expect_ints(c.counts_of, counts, 5, "counts");
    refer_weights(&r, s + 5, index + 3, w);
    expect_within(c.weight_of + 3, w, rounding(k, 40), 3, "weight");
}
/* test bad scores */
KERNEL_TEST(router_bad_scores)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 9; i++) {
        double *s = drawn_scores(k, 6, 40, 1), b[40] = {0};
        dls_router r = {.E = 40, .k = 3, .gate = i / 3, .normalised = i % 2, .scale = 1,
                        .N = 6, .first = 10, .B = 2, .T = 8, .capacity = i % 2};
        s[4 * 40 + 39] = s[2 * 40 + 13 * i % 40] = bad[i % 3];
        rcase c = rcase_make(k, r, s, i % 2 ? b : NULL);
        rcase_route(k, &c);
        cr_expect_eq(c.counts_of[0], -1 - 12, "counts[0] %d", c.counts_of[0]);
        for (int j = 0; j < 18; j++) {
            cr_expect(c.index_of[j] >= 0 && c.index_of[j] < 40);
            cr_expect(c.place_of[j] >= -1 && c.place_of[j] < 18);
        }
        for (int e = 1; e < 40; e++)
            cr_expect(c.counts_of[e] >= 0 && c.counts_of[e] <= 6);
    }
}
/* test refused routers */
static void expect_refusal(dls_router r, const char *words)
{
    cr_expect_eq(dls_router_check(&r), DLS_ERR_INPUT, "%s", words);
    cr_expect(strstr(dls_status_message(), words), "\"%s\" not in \"%s\"", words,
              dls_status_message());
}

Test(kernels, router_refusals)
{
    dls_router r = {.E = 8, .k = 2, .groups = 4, .group_limit = 2};
    cr_expect_eq(dls_router_check(&r), DLS_OK);
    expect_refusal((dls_router){.E = 0, .k = 1}, "experts: expected 1 to 1024, got 0");
    expect_refusal((dls_router){.E = 1025, .k = 1}, "got 1025");
    expect_refusal((dls_router){.E = 4, .k = 5}, "chosen: expected 1 to 4");
    expect_refusal((dls_router){.E = 4}, "chosen: expected 1 to 4, the experts, got 0");
    expect_refusal((dls_router){.E = 8, .k = 2, .groups = 3, .group_limit = 1},
                   "groups: expected at most 32, a divisor of the 8 experts, got 3");
    expect_refusal((dls_router){.E = 64, .k = 2, .groups = 64, .group_limit = 2},
                   "got 64");
    expect_refusal((dls_router){.E = 8, .k = 3, .groups = 4, .group_limit = 1},
                   "group_limit: expected 1 to 4 groups that have the 3 chosen");
    expect_refusal((dls_router){.E = 8, .k = 3, .groups = 4, .group_limit = 5}, "got 5");
}

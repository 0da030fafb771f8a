/* tests/parallel/test_pipeline_laws.c: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Makespans, idle times and peaks of the classic schedules: the printed tables, and the
 * laws on grids, exactly, in whole ticks. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "pipeline_oracle.h"

/* make and run */
static oracle run(const char *name, int p, int m, int v, int g, int64_t F, int64_t B,
                  int64_t hop)
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.chunks = v;
    o.group = g;
    return oracle_of(&o, F, 0, B, hop);
}

/* The times of a forward and a backward with which laws are tried. */
static const int64_t times[][2] = {{1, 1}, {1, 2}, {2, 1}, {3, 5}, {1, 10}, {10, 1}};
enum { TIMES = sizeof times / sizeof *times };

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* test the printed makespans */
static const struct { const char *name; int v; int64_t makespan[3]; } golden[] = {
    {"gpipe", 1, {33, 45, 69}},       {"1f1b", 1, {33, 45, 69}},
    {"interleaved", 2, {57, 81, 117}}, {"interleaved", 4, {105, 153, 213}},
    {"bfs", 2, {57, 81, 117}},         {"bfs", 4, {105, 153, 213}}};

Test(pipeline_laws, the_golden_makespans)
{
    static const int p[] = {4, 4, 8}, m[] = {8, 12, 16};
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++)
        for (int k = 0; k < 3; k++) {
            oracle x = run(golden[i].name, p[k], m[k], golden[i].v, 0, 1, 2, 0);
            cr_assert_eq(x.makespan, golden[i].makespan[k], "%s v%d p%d m%d: %lld",
                         golden[i].name, golden[i].v, p[k], m[k], (long long)x.makespan);
        }
}

Test(pipeline_laws, the_golden_peaks_of_interleaving)
{
    oracle x = run("interleaved", 8, 16, 2, 0, 1, 2, 0);
    for (int r = 0; r < 8; r++)
        cr_assert_eq(x.peak[r], 23 - 2 * r); // halves of a stage: 11.5, 10.5 ... 4.5
}

/* test the laws of gpipe and 1f1b */
Test(pipeline_laws, gpipe_and_1f1b_idle_alike_and_hold_m_or_p_minus_r)
{
    for (int p = 1; p <= 16; p++)
        for (int m = 1; m <= 40; m++)
            for (int t = 0; t < TIMES; t++) {
                int64_t F = times[t][0], B = times[t][1];
                oracle g = run("gpipe", p, m, 1, 0, F, B, 0);
                oracle o = run("1f1b", p, m, 1, 0, F, B, 0);
                oracle e = run("1f1b-eager", p, m, 1, 0, F, B, 0);
                for (int r = 0; r < p; r++) {
                    cr_assert_eq(g.idle[r], (p - 1) * (F + B));
                    cr_assert_eq(o.idle[r], (p - 1) * (F + B));
                    cr_assert_eq(e.idle[r], (p - 1) * (F + B));
                    cr_assert_eq(g.peak[r], m);
                    cr_assert_eq(o.peak[r], least(m, p - r));
                    cr_assert_eq(e.peak[r], least(m, 2 * (p - r) - 1));
                }
            }
}

/* test the latency of 1f1b */
Test(pipeline_laws, latency_grows_with_m_in_1f1b_only)
{
    static const int64_t hops[] = {1, 2, 7, 100};
    for (int p = 1; p <= 10; p++)
        for (int m = 1; m <= 24; m++)
            for (int t = 0; t < TIMES * 4; t++) {
                int64_t F = times[t / 4][0], B = times[t / 4][1], c = hops[t % 4];
                int64_t base = (m + p - 1) * (F + B), trips = m - (m - 1 + p - 1) / p;
                cr_assert_eq(run("gpipe", p, m, 1, 0, F, B, c).makespan,
                             base + 2 * (p - 1) * c);
                cr_assert_eq(run("1f1b", p, m, 1, 0, F, B, c).makespan,
                             base + 2 * c * (p - 2 + trips), "p%d m%d c%d", p, m, (int)c);
                if (p > 1 && m % p == 0)
                    cr_assert_eq(p - 2 + trips, (p - 1) * m / p + p - 2);
            }
}

/* The doubled warm-up hides every hop but the first and last p - 1, as long as two hops
 * take no longer than a forward and a backward; one tick more and it does not. */
Test(pipeline_laws, an_eager_warm_up_hides_hops_up_to_half_of_f_plus_b)
{
    for (int p = 2; p <= 10; p++)
        for (int m = 1; m <= 24; m++)
            for (int t = 0; t < TIMES; t++) {
                int64_t F = 2 * times[t][0], B = 2 * times[t][1], c = (F + B) / 2;
                int64_t law = (m + p - 1) * (F + B) + 2 * (p - 1) * c;
                cr_assert_eq(run("1f1b-eager", p, m, 1, 0, F, B, c).makespan, law);
                int64_t more = run("1f1b-eager", p, m, 1, 0, F, B, c + 1).makespan -
                               (law + 2 * (p - 1));
                cr_assert(m <= 3 ? more == 0 : p == 2 && m % 2 ? more >= 0 : more > 0,
                          "p%d m%d: %d", p, m, (int)more);
            }
}

/* test the laws of interleaving */
/* The sizes of the groups, as the chapter's text says, not as groups.c does. */
static int sizes_of(int m, int p, int g, int size[64])
{
    int n = m / g, left = m % g;
    if (n == 0)
        return size[0] = m, 1;
    for (int i = 0; i < n; i++)
        size[i] = g;
    if (left >= p)
        return size[n] = left, n + 1;
    for (int i = 0; left > 0; left--, i = (i + 1) % n)
        size[i]++;
    return n;
}

/* One combination: idle times and peaks, for every other set of times. `lean`: the form
 * with half the warm-up. */
static void check_interleaving(int p, int v, int g, int m, int lean)
{
    int64_t bubble = m >= p ? p - 1 : p * v + m - 1 - m * v;
    int size[64];
    sizes_of(m, p, g, size);
    for (int t = 0; t < TIMES; t += 2) {
        int64_t F = times[t][0], B = times[t][1];
        oracle x = run(lean ? "interleaved-lean" : "interleaved", p, m, v, g, F, B, 0);
        for (int r = 0; r < p; r++) {
            int ahead = lean ? p - r : 2 * (p - 1 - r) + 1;
            cr_assert_eq(x.idle[r], bubble * (F + B), "p%d v%d g%d m%d", p, v, g, m);
            cr_assert_eq(x.peak[r], least(m * v, (v - 1) * size[0] + ahead));
        }
    }
}

static void check_all_interleavings(int lean)
{
    for (int p = 1; p <= 9; p++)
        for (int v = 1; v <= 4; v++)
            for (int g = p; g <= 2 * p + 1; g += 1 + p / 3)
                for (int m = 1; m <= 3 * p + 2; m++)
                    check_interleaving(p, v, g, m, lean);
}

Test(pipeline_laws, interleaving_divides_the_bubble_for_any_number_of_micro_batches)
{
    check_all_interleavings(0);
}

/* test the latency of interleaving */
/* For hops up to F and B, and not more than the slack of the groups of more than p. */
Test(pipeline_laws, a_larger_group_hides_the_hops_of_interleaving)
{
    for (int p = 2; p <= 7; p++)
        for (int v = 1; v <= 4; v++)
            for (int g = p; g <= 2 * p + 1; g++)
                for (int m = 1; m <= 3 * p + 2; m++) {
                    int size[64], n = sizes_of(m, p, g, size), tight = 0;
                    int64_t F = 420, B = 2 * F, c = F;
                    for (int i = 0; i < n; i++) {
                        tight += size[i] <= p;
                        c = size[i] > p ? least(c, (size[i] - p) * F / p) : c;
                    }
                    int stalls = tight == 0 ? 0 : tight == n ? 2 : 1;
                    int64_t passes = m >= p ? m * v + p - 1 : p * v + m - 1;
                    cr_assert_eq(run("interleaved", p, m, v, g, F, B, c).makespan,
                                 passes * (F + B) + 2 * (p - 1) * c +
                                     (v - 1) * p * c * stalls,
                                 "p%d v%d g%d m%d", p, v, g, m);
                    if (m % p == 0 && g == p)
                        cr_assert_eq(2 * (p - 1) + 2 * (v - 1) * p, 2 * (p * v - 1));
                }
}

/* Where the law ends: a hop longer than a forward. */
Test(pipeline_laws, a_hop_longer_than_a_forward_costs_interleaving_more)
{
    int64_t law = (2 * 8 + 3) * 30 + 2 * (4 * 2 - 1) * 10;
    cr_assert_eq(run("interleaved", 4, 8, 2, 0, 10, 20, 10).makespan, law);
    cr_assert_gt(run("interleaved", 4, 8, 2, 0, 10, 20, 11).makespan, law + 14);
}

/* test the lean warm up */
Test(pipeline_laws, half_the_warm_up_idles_no_longer_and_holds_less)
{
    check_all_interleavings(1);
}
/* What it costs: with v = 1 this is the law of 1F1B. */
Test(pipeline_laws, half_the_warm_up_pays_for_every_hop)
{
    for (int p = 2; p <= 8; p++)
        for (int v = 1; v <= 4; v++)
            for (int rounds = 1; rounds <= 5; rounds++) {
                int64_t F = 1000, B = 2000, m = p * rounds;
                int64_t hops = 2 * (p * v - 1) + 2 * (p - 2) +
                               2 * (p - 1) * v * (rounds - 1);
                cr_assert_eq(run("interleaved-lean", p, (int)m, v, 0, F, B, 1).makespan,
                             (m * v + p - 1) * (F + B) + hops, "p%d v%d", p, v);
                if (v == 1)
                    cr_assert_eq(hops, 2 * ((p - 1) * rounds + p - 2));
            }
}

/* test the laws of breadth first */
Test(pipeline_laws, breadth_first_for_every_hop)
{
    for (int p = 1; p <= 9; p++)
        for (int v = 1; v <= 4; v++)
            for (int m = 1; m <= 20; m++)
                for (int t = 0; t < TIMES * 3; t++) {
                    int64_t F = times[t / 3][0], B = times[t / 3][1], c = t % 3 * 3;
                    int64_t hop = p > 1 ? c : 0;
                    oracle x = run("bfs", p, m, v, 0, F, B, c);
                    cr_assert_eq(x.makespan,
                                 (m + p - 1) * (F + B) + 2 * (p - 1) * hop +
                                     (v - 1) * (most(m * F, p * (F + hop)) +
                                                most(m * B, p * (B + hop))));
                    for (int r = 0; r < p; r++)
                        cr_assert_eq(x.peak[r], m * v);
                }
}

/* test the law of forward only */
Test(pipeline_laws, forward_only_waits_for_small_groups_in_every_round)
{
    for (int p = 1; p <= 8; p++)
        for (int v = 1; v <= 4; v++)
            for (int g = p; g <= 2 * p + 1; g++)
                for (int m = 1; m <= 3 * p + 2; m++) {
                    int size[64], n = sizes_of(m, p, g, size);
                    int64_t F = 5, c = p > 1 ? m % 4 : 0;
                    int64_t law = (m * v + p - 1) * F + (p - 1) * c;
                    for (int i = 0; i < n; i++)
                        law += (v - 1) * most(0, p * (F + c) - size[i] * F);
                    cr_assert_eq(run("forward-only", p, m, v, g, F, 0, c).makespan, law);
                }
}

/* test the laws of chimera */
Test(pipeline_laws, chimera_idles_p_minus_2_slots_only_if_f_equals_b)
{
    srand(7);
    for (int p = 2; p <= 16; p += 2)
        for (int units = 1; units <= 5; units++)
            for (int t = 0; t < 2 * TIMES; t++) {
                int64_t F = t < TIMES ? times[t][0] : 1 + rand() % 40;
                int64_t B = t < TIMES ? times[t][1] : 1 + rand() % 40;
                oracle x = run("chimera", p, p * units, 1, 0, F, B, 0);
                int64_t longer = most(F, B), differ = longer - least(F, B);
                for (int r = 0; r < p; r++) {
                    cr_assert_eq(x.idle[r],
                                 (p - 2) * (longer + (units - 1) * differ));
                    cr_assert_eq(x.peak[r], p / 2 + 1 + least(r, p - 1 - r));
                }
            }
}

/* Any number of micro-batches, F = B: the last unit takes its full time. */
Test(pipeline_laws, chimera_with_a_last_unit_that_is_not_full)
{
    for (int p = 2; p <= 12; p += 2)
        for (int m = 1; m <= 4 * p; m++) {
            int units = (m + p - 1) / p, last = m - (units - 1) * p;
            cr_assert_eq(run("chimera", p, m, 1, 0, 1, 1, 0).makespan,
                         2 * p * units + 2 * ((last + 1) / 2) - 2);
        }
}

Test(pipeline_laws, the_latency_of_chimera_grows_with_m_too)
{
    for (int p = 4; p <= 10; p += 2)
        for (int units = 1; units <= 5; units++) {
            int64_t F = 1000, slots = 2 * p * units + p - 2;
            cr_assert_eq(run("chimera", p, p * units, 1, 0, F, F, 1).makespan,
                         slots * F + 2 * (p - 1) * units + p - 3);
        }
}

/* test uneven stages */
/* Stages with times of their own. GPipe: the slowest forward and the slowest backward
 * set the pace, one after the other; 1F1B is never slower, and often faster. */
Test(pipeline_laws, uneven_stages)
{
    int faster = 0;
    srand(5);
    for (int n = 0; n < 500; n++) {
        int p = 1 + rand() % 7, m = 1 + rand() % 14;
        int64_t sum = 0, slowest[2] = {0, 0}, of_stage[7][3];
        for (int s = 0; s < p; s++) {
            for (int k = 0; k < 3; k++)
                of_stage[s][k] = 1 + rand() % 9;
            int64_t F = of_stage[s][0], B = of_stage[s][1] + of_stage[s][2];
            sum += F + B;
            slowest[0] = most(slowest[0], F);
            slowest[1] = most(slowest[1], B);
        }
        dls_pipeline_costs cost = {.of_stage = of_stage[0]};
        int64_t makespan[2];
        for (int k = 0; k < 2; k++) {
            dls_schedule_options o = dls_schedule_defaults(k ? "1f1b" : "gpipe", p, m);
            dls_schedule s;
            cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK);
            makespan[k] = oracle_run_costs(&s, &cost).makespan;
            dls_schedule_free(&s);
        }
        cr_assert_eq(makespan[0], sum + (m - 1) * (slowest[0] + slowest[1]));
        cr_assert_leq(makespan[1], makespan[0]);
        faster += makespan[1] < makespan[0];
    }
    cr_assert_gt(faster, 100);
}

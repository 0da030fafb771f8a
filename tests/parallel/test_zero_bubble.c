/* tests/parallel/test_zero_bubble.c: from chapters/05-pipeline-zero-bubble-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The laws of ZB-H1, ZB-H2, interleaved ZB and ZB-V, in whole ticks, and where the
 * printed ones end.
 */
#include <criterion/criterion.h>

#include "parallel/pipeline/evaluate.h"
#include "pipeline_oracle.h"

/* try zero bubbles */
typedef struct costs { int64_t F, I, W; } costs;

static const int64_t sizes[] = {0, 1, 2, 3, 5};
enum { SIZES = sizeof sizes / sizeof *sizes, COSTS = SIZES * SIZES * SIZES };

/* The i-th of all triples of sizes. */
static costs cost_at(int i)
{
    return (costs){sizes[i % SIZES], sizes[i / SIZES % SIZES], sizes[i / SIZES / SIZES]};
}

static oracle run(const char *name, int p, int m, int v, costs c, int64_t hop)
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.chunks = v;
    return oracle_of(&o, c.F, c.I, c.W, hop);
}
static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The time that a rank works, without any waiting. */
static int64_t work(int m, int v, costs c)
{
    return (int64_t)m * v * (c.F + c.I + c.W);
}

/* test the golden zero bubbles */
static const struct { const char *name; int p, m; int64_t makespan, span; } golden[] = {
    {"zb-h1", 4, 8, 27, 27}, {"zb-h1", 4, 12, 39, 39}, {"zb-h1", 8, 16, 55, 55},
    {"zb-h2", 4, 8, 27, 24}, {"zb-h2", 4, 12, 39, 36}, {"zb-h2", 8, 16, 55, 48},
    {"zb-v", 4, 8, 51, 48},  {"zb-v", 4, 12, 75, 72},  {"zb-v", 8, 16, 103, 96}};

Test(pipeline_zero_bubble, the_golden_makespans_and_spans)
{
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        oracle x = run(golden[i].name, golden[i].p, golden[i].m, 0, (costs){1, 1, 1}, 0);
        cr_assert_eq(x.makespan, golden[i].makespan, "%s", golden[i].name);
        cr_assert_eq(x.span, golden[i].span, "%s", golden[i].name);
    }
    for (int r = 0; r < 8; r++) {
        cr_assert_eq(run("zb-h2", 8, 16, 0, (costs){1, 1, 1}, 0).peak[r], 15);
        cr_assert_eq(run("zb-v", 8, 16, 0, (costs){1, 1, 1}, 0).peak[r], 16);
    }
}

/* test the law of zb h1 */
Test(pipeline_zero_bubble, zb_h1_for_all_costs)
{
    for (int p = 1; p <= 7; p++)
        for (int m = 1; m <= 2 * p + 1; m++)
            for (int i = 0; i < COSTS; i++) {
                costs c = cost_at(i);
                int64_t hidden = least(c.W, least(c.F, c.I));
                oracle x = run("zb-h1", p, m, 0, c, 0);
                cr_assert_eq(x.makespan, work(m, 1, c) + (p - 1) * (c.F + c.I)
                                             - (least(m, p) - 1) * hidden,
                             "p%d m%d %d,%d,%d", p, m, (int)c.F, (int)c.I, (int)c.W);
                for (int r = 0; r < p; r++)
                    cr_assert_eq(x.peak[r], least(m, p));
            }
}
Test(pipeline_zero_bubble, the_printed_bubble_of_zb_h1_holds_up_to_the_shortest_pass)
{
    for (int i = 0; i < COSTS; i++) {
        costs c = cost_at(i);
        int64_t printed = work(9, 1, c) + 3 * (c.F + c.I - c.W);
        oracle x = run("zb-h1", 4, 9, 0, c, 0);
        cr_assert_eq(x.makespan == printed, c.W <= least(c.F, c.I));
        cr_assert_geq(x.makespan, printed);
    }
    cr_assert_eq(run("zb-h1", 4, 9, 0, (costs){1, 1, 2}, 0).makespan, 36 + 3);
}

/* test the law of zb h2 */
Test(pipeline_zero_bubble, zb_h2_for_all_costs)
{
    for (int p = 2; p <= 6; p++)
        for (int m = 2 * p - 1; m <= 3 * p; m++)
            for (int i = 0; i < COSTS; i++) {
                costs c = cost_at(i);
                int64_t late = most(c.F + c.I - 2 * c.W, c.I - c.F);
                oracle x = run("zb-h2", p, m, 0, c, 0);
                cr_assert_eq(x.span, work(m, 1, c) + (p - 1) * most(late, 0));
                cr_assert_eq(x.makespan, work(m, 1, c) + (p - 1) * most(late, c.F));
                for (int r = 0; r < p; r++)
                    cr_assert_eq(x.peak[r], 2 * p - 1);
            }
}
Test(pipeline_zero_bubble, zb_h2_needs_two_p_less_one_micro_batches)
{
    for (int p = 2; p <= 8; p++) {
        cr_assert_eq(run("zb-h2", p, 2 * p - 1, 0, (costs){1, 1, 1}, 0).span, 6 * p - 3);
        cr_assert_eq(run("zb-h2", p, 2 * p - 2, 0, (costs){1, 1, 1}, 0).span, 6 * p - 5);
    }
}

/* test the law of interleaved zb */
Test(pipeline_zero_bubble, interleaving_divides_the_bubble_once_more)
{
    for (int p = 1; p <= 5; p++)
        for (int v = 1; v <= 4; v++)
            for (int m = p; m <= 3 * p + 1; m++)
                for (int i = 0; i < COSTS; i += 3) {
                    costs c = cost_at(i);
                    int64_t hidden = least(c.W, least(c.F, c.I));
                    oracle x = run("interleaved-zb", p, m, v, c, 0);
                    cr_assert_eq(x.makespan,
                                 work(m, v, c) + (p - 1) * (c.F + c.I - hidden));
                    for (int r = 0; m % p == 0 && r < p; r++)
                        cr_assert_eq(x.peak[r], p * v);
                }
}

/* test what latency adds */
Test(pipeline_zero_bubble, latency_adds_a_constant_as_long_as_w_covers_it)
{
    static const costs some[] = {{6, 6, 6}, {9, 8, 6}, {7, 12, 6}, {12, 7, 6}};
    for (int i = 0; i < 4; i++)
        for (int p = 2; p <= 6; p++)
            for (int m = 2 * p; m <= 4 * p; m++) {
                costs c = some[i];
                int64_t h1 = work(m, 1, c) + (p - 1) * (c.F + c.I - c.W);
                int64_t h2 = work(m, 1, c) + (p - 1) * (c.F + c.I - 2 * c.W);
                for (int64_t hop = 1; hop <= 3; hop++)
                    cr_assert_eq(run("zb-h1", p, m, 0, c, hop).makespan,
                                 h1 + 4 * (p - 1) * hop);
                if (m > 2 * p)
                    cr_assert_gt(run("zb-h1", p, m, 0, c, 4).makespan, h1 + 16 * (p - 1));
                for (int64_t hop = 1; hop <= 6; hop++)
                    cr_assert_eq(run("zb-h2", p, m, 0, c, hop).span,
                                 h2 + 2 * (p - 1) * hop);
            }
}

/* test what is held until w */
static const int64_t *peaks_of(const char *name, int p, int m, int64_t a, int64_t w)
{
    static int64_t peak[8];
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.memory = (dls_pipeline_memory){.hold = a, .keep = w};
    dls_schedule s;
    dls_evaluation e;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK);
    cr_assert_eq(dls_evaluate(&s, &e), DLS_OK);
    for (int r = 0; r < p; r++)
        peak[r] = e.peak[r];
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    return peak;
}

Test(pipeline_zero_bubble, what_is_kept_until_w_counts_where_w_lags)
{
    for (int p = 1; p <= 8; p++)
        for (int64_t w = 0; w <= 10; w += 5)
            for (int r = 0; r < p; r++) {
                cr_assert_eq(peaks_of("zb-h1", p, 2 * p, 10, w)[r], (p - r) * 10 + r * w);
                cr_assert_eq(peaks_of("zb-h2", p, 2 * p, 10, w)[r],
                             (2 * (p - r) - 1) * 10 + 2 * r * w);
            }
}

/* test the domain of zb v */
Test(pipeline_zero_bubble, zb_v_has_no_bubble_for_equal_passes_only)
{
    for (int p = 3; p <= 6; p++)
        for (int m = 2 * p - 1; m <= 3 * p; m++)
            for (int i = 0; i < COSTS; i++) {
                costs c = cost_at(i);
                if (least(c.F, least(c.I, c.W)) == 0)
                    continue;
                oracle x = run("zb-v", p, m, 0, c, 0);
                cr_assert_eq(x.span == work(m, 2, c), c.F == c.I && c.I == c.W,
                             "p%d m%d %d,%d,%d", p, m, (int)c.F, (int)c.I, (int)c.W);
                for (int r = 0; r < p; r++)
                    cr_assert_eq(x.peak[r], 2 * p);
            }
}
Test(pipeline_zero_bubble, the_bubbles_of_zb_v)
{
    static const struct { costs c; int64_t bubble; } some[] = {
        {{2, 2, 1}, 6}, {{3, 3, 2}, 6}, {{2, 3, 2}, 6}, {{1, 1, 2}, 2}};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(run("zb-v", 4, 12, 0, some[i].c, 0).span,
                     work(12, 2, some[i].c) + some[i].bubble);
    cr_assert_eq(run("zb-v", 8, 8, 0, (costs){1, 1, 1}, 0).span, 48 + 14);
}
